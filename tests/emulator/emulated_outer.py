"""The emulated outer_update behind the signatures of kronext.ops, for tests that both must pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from emulated import matrices, matrix
from torch import Tensor


@dataclass
class EmulatedOuter:
    module: ModuleType
    precision: str = "highest"
    tiles: str = "fastest"
    multiprocessors: int = 3
    launched: Sequence[str] = ()  # the kernels of the latest call
    split_tiles: int = 0

    def outer_update_(
        self, L: Tensor | None, R: Tensor | None, G: Tensor, *, decay: float, weight: float
    ) -> None:
        factor = L if L is not None else R
        assert factor is not None
        batch = factor.shape[:-2]
        gradients = matrices(G.expand(*batch, *G.shape[-2:]))
        Ls, Rs = (
            None if side is None else matrices(side.expand(*batch, *side.shape[-2:]))
            for side in (L, R)
        )
        self.outer_update_list_(Ls, Rs, gradients, decay=decay, weight=weight)

    def outer_update_list_(
        self,
        Ls: Sequence[Tensor | None] | None,
        Rs: Sequence[Tensor | None] | None,
        Gs: Sequence[Tensor],
        *,
        decay: float | Sequence[float],
        weight: float | Sequence[float],
    ) -> None:
        sides = []
        for i, G in enumerate(Gs):
            numbers = tuple(
                float(value if isinstance(value, float | int) else value[i])
                for value in (decay, weight)
            )
            for factors, x in ((Ls, G), (Rs, G.mT)):
                factor = None if factors is None else factors[i]
                if factor is not None:
                    sides.append((matrix(self.module, x), matrix(self.module, factor), *numbers))
        self.launched, self.split_tiles = self.module.outer_update(
            sides,
            getattr(self.module.MatmulPrecision, self.precision),
            self.multiprocessors,
            getattr(self.module.TileSize, self.tiles),
        )
