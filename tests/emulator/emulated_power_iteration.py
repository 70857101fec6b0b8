"""The emulated ops of power iteration behind the signatures of kronext.ops."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import torch
from emulated import matrices, matrix
from torch import Tensor


@dataclass
class EmulatedPowerIteration:
    module: ModuleType
    precision: str = "highest"
    multiprocessors: int = 3

    def rearranged_matvec(self, H: Tensor, L: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
        batch = torch.broadcast_shapes(H.shape[:-2], L.shape[:-2], R.shape[:-2])
        left, right = self._results(batch, H, L, R)
        operands = [
            [matrix(self.module, x) for x in matrices(t.expand(*batch, *t.shape[-2:]))]
            for t in (H, L, R, left, right)
        ]
        self.module.rearranged_matvec(list(zip(*operands, strict=True)), self.multiprocessors)
        return left, right

    def _results(
        self, batch: torch.Size, samples: Tensor, L: Tensor, R: Tensor
    ) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(L.dtype, samples.dtype)
        m, n = L.shape[-1], R.shape[-1]
        left, right = (torch.full((*batch, k, k), float("nan"), dtype=dtype) for k in (m, n))
        return left, right
