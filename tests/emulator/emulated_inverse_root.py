"""The emulated eigensolvers behind the signatures of kronext.ops, for tests that both must pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from emulated import matrices
from torch import Tensor

from kronext.ops import Eigh, InverseRoot, InverseRootList

SHARED_BYTES = 227 * 1024


@dataclass
class EmulatedInverseRoot:
    module: ModuleType
    slow_double: bool = False
    shared_bytes: int = SHARED_BYTES
    launched: Sequence[tuple[str, int]] = ()  # kernels of the latest call, and how many matrices

    def eigh(self, A: Tensor, *, basis: Tensor | None = None) -> Eigh:
        values, vectors = A.new_empty(A.shape[:-1]), A.new_empty(A.shape)
        (info,) = self._solve([A], [basis], [values], [vectors], [None])
        return Eigh(values, vectors, info)

    def inverse_root(
        self,
        A: Tensor,
        root: float,
        *,
        eps: float = 0.0,
        relative_eps: float = 0.0,
        basis: Tensor | None = None,
    ) -> InverseRoot:
        bases = None if basis is None else [basis]
        result = self.inverse_root_list([A], root, eps=eps, relative_eps=relative_eps, bases=bases)
        info = result.info.view(A.shape[:-2])
        return InverseRoot(result.root[0], result.basis[0], result.values[0], info)

    def inverse_root_list(
        self,
        As: Sequence[Tensor],
        root: float,
        *,
        eps: float = 0.0,
        relative_eps: float = 0.0,
        bases: Sequence[Tensor] | None = None,
    ) -> InverseRootList:
        roots, vectors = ([A.new_empty(A.shape) for A in As] for _ in range(2))
        values = [A.new_empty(A.shape[:-1]) for A in As]
        info = self._solve(As, bases, values, vectors, roots, (root, eps, relative_eps))
        return InverseRootList(roots, vectors, values, _joined(info))

    def inverse_root_(
        self,
        out: Tensor,
        A: Tensor,
        root: float,
        *,
        eps: float = 0.0,
        relative_eps: float = 0.0,
        basis: Tensor | None = None,
    ) -> Tensor:
        bases = None if basis is None else [basis]
        options = {"eps": eps, "relative_eps": relative_eps, "bases": bases}
        return self.inverse_root_list_([out], [A], root, **options).view(A.shape[:-2])

    def inverse_root_list_(
        self,
        outs: Sequence[Tensor],
        As: Sequence[Tensor],
        root: float,
        *,
        eps: float = 0.0,
        relative_eps: float = 0.0,
        bases: Sequence[Tensor] | None = None,
    ) -> Tensor:
        nothing = [None] * len(As)
        numbers = (root, eps, relative_eps)
        return _joined(self._solve(As, bases, nothing, nothing, outs, numbers, keep_failed=True))

    def _solve(
        self,
        As: Sequence[Tensor],
        bases: Sequence[Tensor | None] | None,
        values: Sequence[Tensor | None],
        vectors: Sequence[Tensor | None],
        roots: Sequence[Tensor | None],
        numbers: tuple[float, float, float] = (1.0, 0.0, 0.0),
        keep_failed: bool = False,
    ) -> list[Tensor]:
        """Takes tensors with batch dimensions; returns one info tensor for each."""
        infos = [torch.full(A.shape[:-2], -1, dtype=torch.int32) for A in As]
        tasks, held = [], []
        for i, A in enumerate(As):
            basis = None if bases is None or bases[i] is None else bases[i].contiguous()
            held.append(basis)
            entries = matrices(A if A.stride(-1) == 1 or A.shape[-1] < 2 else A.contiguous())
            held.append(entries)
            n = A.shape[-1]
            for k, matrix in enumerate(entries):
                pointers = (
                    0 if t is None else t.data_ptr() + 4 * k * size
                    for t, size in (
                        (basis, n * n),
                        (values[i], n),
                        (vectors[i], n * n),
                        (roots[i], n * n),
                        (infos[i], 1),
                    )
                )
                tasks.append((matrix.data_ptr(), *pointers, matrix.stride(0), n))
        self._launch(tasks, (*numbers, keep_failed))
        return infos

    def _launch(self, tasks: list[Any], options: tuple[float | bool, ...]) -> None:
        device = (self.shared_bytes, self.slow_double)
        self.launched, left_over = self.module.inverse_root(tasks, *options, *device)
        assert left_over == 0, "a matrix is too large for the resident kernels"


def _joined(infos: Sequence[Tensor]) -> Tensor:
    return torch.cat([info.flatten() for info in infos]) if infos else torch.empty(0)
