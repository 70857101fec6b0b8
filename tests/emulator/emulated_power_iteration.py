"""The emulated ops of power iteration behind the signatures of kronext.ops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from emulated import matrices, matrix
from torch import Tensor

from kronext.ops.power_iteration import KroneckerSum, _start


@dataclass
class EmulatedPowerIteration:
    module: ModuleType
    precision: str = "highest"
    multiprocessors: int = 3
    round_bytes: int = 64 << 20
    launches: tuple[int, int] = (0, 0)  # of the latest products and sums

    def rearranged_matvec(self, H: Tensor, L: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
        batch = torch.broadcast_shapes(H.shape[:-2], L.shape[:-2], R.shape[:-2])
        left, right = self._results(batch, H, L, R)
        operands = [
            [matrix(self.module, x) for x in matrices(t.expand(*batch, *t.shape[-2:]))]
            for t in (H, L, R, left, right)
        ]
        self.module.rearranged_matvec(list(zip(*operands, strict=True)), self.multiprocessors)
        return left, right

    def kron_matvec(
        self, G: Tensor, L: Tensor, R: Tensor, *, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._multiply((G,), L, R, weights)

    def kron_matvec_factored(
        self, D: Tensor, A: Tensor, L: Tensor, R: Tensor, *, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._multiply((D, A), L, R, weights)

    def power_iteration_list_(
        self,
        Ls: Sequence[Tensor],
        Rs: Sequence[Tensor],
        Gs: Sequence[Tensor],
        *,
        decay: float | Sequence[float],
        weight: float | Sequence[float],
    ) -> None:
        steps = []
        for i, (L, R, G) in enumerate(zip(Ls, Rs, Gs, strict=True)):
            numbers = [float(x if isinstance(x, float | int) else x[i]) for x in (decay, weight)]
            gradients = matrices(G.expand(*L.shape[:-2], *G.shape[-2:]))
            for left, right, g in zip(matrices(L), matrices(R), gradients, strict=True):
                factors = [matrix(self.module, x) for x in (left, right, left, right)]
                samples = self._samples((g.unsqueeze(0),))
                steps.append(
                    self.module.WeightedStep(samples, *factors, *numbers, self._weights(None))
                )
        self._run(steps, self.module.Inspection.direction)

    def power_iteration(
        self,
        samples: Tensor | tuple[Tensor, Tensor],
        *,
        shape: tuple[int, int] | None = None,
        steps: int = 5,
        init: tuple[Tensor, Tensor] | None = None,
        tol: float | None = None,
        rank: int = 1,
    ) -> KroneckerSum:
        given = samples if isinstance(samples, tuple) else (samples,)
        stack = 2 if shape else 3
        batch = torch.broadcast_shapes(*(t.shape[:-stack] for t in given))
        m, n = shape or (given[0].shape[-1 if len(given) > 1 else -2], given[-1].shape[-1])
        start = _start(batch, m, n, given[0], init, rank)
        left, right = (torch.full_like(t, float("nan")) for t in start)
        sigma = left.new_full((*batch, rank), float("nan"))
        info = torch.full(batch, -1, dtype=torch.int32)
        entries = [stacks(t.expand(*batch, *t.shape[-stack:]), stack) for t in given]
        count = given[0].shape[-3] if shape is None and given[0].shape[-2] else 0
        self.module.power_iteration(
            self._iterates(*start),
            self._iterates(left, right),
            sigma.data_ptr(),
            info.data_ptr(),
            [] if shape else [self._samples(e, count) for e in zip(*entries, strict=True)],
            [matrix(self.module, e) for e in entries[0]] if shape else [],
            steps,
            tol,
            getattr(self.module.MatmulPrecision, self.precision),
            self.multiprocessors,
        )
        return KroneckerSum(left, right, sigma, info)

    def normalise(
        self, left: Tensor, right: Tensor, previous: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        left, right = left.clone(), right.clone()
        turned = torch.full(left.shape[:-3], float("nan"), dtype=torch.float64)
        self.module.orthonormalise(
            self._iterates(left, right), self._iterates(*previous), turned.data_ptr()
        )
        return left, right, turned

    def triples(
        self, left: Tensor, right: Tensor, image: Tensor, turned: Tensor, *, tol: float | None
    ) -> KroneckerSum:
        left, right, image = left.clone(), right.clone(), image.clone()
        sigma = left.new_full(left.shape[:-2], float("nan"))
        info = torch.full(left.shape[:-3], -1, dtype=torch.int32)
        self.module.singular_triples(
            self._iterates(left, right),
            image.data_ptr(),
            turned.data_ptr(),
            sigma.data_ptr(),
            info.data_ptr(),
            tol,
        )
        return KroneckerSum(left, right, sigma, info)

    def _iterates(self, left: Tensor, right: Tensor) -> tuple[object, ...]:
        count = left.shape[:-3].numel()
        sizes = (count, left.shape[-3], left.shape[-1], right.shape[-1])
        return (left.data_ptr(), right.data_ptr(), self._dtype(left), *sizes)

    def _multiply(
        self, given: tuple[Tensor, ...], L: Tensor, R: Tensor, weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        batch = torch.broadcast_shapes(
            *(t.shape[:-3] for t in given),
            L.shape[:-2],
            R.shape[:-2],
            () if weights is None else weights.shape[:-1],
        )
        left, right = self._results(batch, given[0], L, R)
        entries = [stacks(t.expand(*batch, *t.shape[-3:]), 3) for t in given]
        factors = [
            [matrix(self.module, x) for x in matrices(t.expand(*batch, *t.shape[-2:]))]
            for t in (L, R, left, right)
        ]
        numbers = None if weights is None else stacks(weights.expand(*batch, weights.shape[-1]), 1)
        # Without positions every sample is zero, as if there were none.
        count = given[0].shape[-3] if len(given) == 1 or given[0].shape[-2] else 0
        weight = 1.0 if weights is not None else 1 / max(count, 1)
        steps = [
            self.module.WeightedStep(
                self._samples([stack[i] for stack in entries], count),
                *(side[i] for side in factors),
                0.0,
                weight,
                self._weights(None if numbers is None else numbers[i]),
            )
            for i in range(batch.numel())
        ]
        self._run(steps, self.module.Inspection.structure)
        return left, right

    def _samples(self, given: Sequence[Tensor], count: int | None = None) -> object:
        first = [(t.data_ptr(), self._dtype(t), *t.shape[1:], *t.stride()[1:]) for t in given]
        strides = [t.stride(0) for t in given]
        absent = (0, self.module.Dtype.float32, 0, 0, 0, 0)
        return self.module.Samples(
            first[0],
            first[1] if len(given) > 1 else absent,
            len(given) > 1,
            strides[0],
            strides[-1] if len(given) > 1 else 0,
            given[0].shape[0] if count is None else count,
        )

    def _weights(self, weights: Tensor | None) -> tuple[object, ...]:
        if weights is None:
            return (0, self.module.Dtype.float32, 0)
        return (weights.data_ptr(), self._dtype(weights), weights.stride(0))

    def _dtype(self, t: Tensor) -> object:
        return getattr(self.module.Dtype, str(t.dtype).removeprefix("torch."))

    def _run(self, steps: list[object], inspection: object) -> None:
        precision = getattr(self.module.MatmulPrecision, self.precision)
        self.launches = self.module.kronecker_steps(
            steps, inspection, precision, self.multiprocessors, self.round_bytes
        )

    def _results(
        self, batch: torch.Size, samples: Tensor, L: Tensor, R: Tensor
    ) -> tuple[Tensor, Tensor]:
        wide = torch.float64 in (L.dtype, samples.dtype)
        dtype = torch.float64 if wide else torch.float32
        m, n = L.shape[-1], R.shape[-1]
        left, right = (torch.full((*batch, k, k), float("nan"), dtype=dtype) for k in (m, n))
        return left, right


def stacks(t: Tensor, dimensions: int) -> list[Tensor]:
    """The entries of a batch as views of so many dimensions."""
    if t.dim() == dimensions:
        return [t]
    return [stack for entry in torch.unbind(t) for stack in stacks(entry, dimensions)]
