"""The emulated precondition behind the signatures of kronext.ops, for tests that both must pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from emulated import matrices, matrix
from torch import Tensor


@dataclass
class EmulatedPrecondition:
    module: ModuleType
    precision: str = "highest"
    tiles: str = "fastest"
    multiprocessors: int = 3
    launched: Sequence[str] = ()  # the kernels of the latest call
    split_tiles: int = 0
    norms: Tensor | None = None  # where a call leaves the sums of squares of its outputs

    def precondition(self, G: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
        given = [t for t in (G, left, right) if t is not None]
        batch = torch.broadcast_shapes(*(t.shape[:-2] for t in given))
        expanded = [
            None if t is None else matrices(t.expand(*batch, *t.shape[-2:]))
            for t in (G, left, right)
        ]
        Gs = expanded[0]
        assert Gs is not None
        outputs = self.precondition_list(Gs, expanded[1], expanded[2])
        return torch.stack(outputs).view(*batch, *G.shape[-2:])

    def precondition_list(
        self,
        Gs: Sequence[Tensor],
        lefts: Sequence[Tensor | None] | None,
        rights: Sequence[Tensor | None] | None,
    ) -> list[Tensor]:
        problems, outputs = [], []
        for i, G in enumerate(Gs):
            left, right = (None if side is None else side[i] for side in (lefts, rights))
            dtypes = [t.dtype for t in (G, left, right) if t is not None]
            wide = torch.float64 if torch.float64 in dtypes else torch.float32
            outputs.append(torch.full(G.shape, float("nan"), dtype=wide))
            problems.append(
                tuple(
                    None if t is None else matrix(self.module, t)
                    for t in (G, left, right, outputs[-1])
                )
            )
        self.launched, self.split_tiles = self.module.precondition(
            problems,
            getattr(self.module.MatmulPrecision, self.precision),
            self.multiprocessors,
            getattr(self.module.TileSize, self.tiles),
            0 if self.norms is None else self.norms.data_ptr(),
        )
        return outputs
