"""`H` from samples of `G`, without an `mn x mn` matrix.

Its products with Kronecker factors need the samples only, and its norm their inner products.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import TypeAlias, TypeGuard

import torch
from torch import Tensor
from typing_extensions import override

from kronext import ops
from kronext.curvature import moments
from kronext.curvature.moments import SecondMoment, largest_entry, scale_into_range

Chunk: TypeAlias = "Tensor | tuple[Tensor, Tensor]"


class SampledMoment(SecondMoment):
    """`H = (1/S) sum_s vec(G_s) vec(G_s)T`.

    Attributes:
        count: the number of samples `S`.
        positions: rank-one terms in a sample; 1 where gradients are given whole.
        product_cost: multiplications of the inner product of two samples.
    """

    count: int
    positions: int
    product_cost: int

    @property
    @abstractmethod
    def samples(self) -> Chunk:
        """What the ops take: gradients, or a pair `(D, A)`."""

    @abstractmethod
    def gradients(self, start: int, stop: int) -> Tensor:
        """`G_s` of these samples, `(stop - start, m, n)`."""

    @abstractmethod
    def part(self, start: int, stop: int) -> SampledMoment:
        """The second moment of these samples alone."""

    @abstractmethod
    def inner_products(self, others: SampledMoment) -> Tensor:
        """`<G_s, G_t>` for each `s` of these and `t` of the other samples: `(S, S')`."""

    @abstractmethod
    def divided(self, divisors: tuple[float, ...]) -> SampledMoment:
        """The samples, each of their tensors divided by its number."""

    @abstractmethod
    def largest_entries(self) -> tuple[float, ...]:
        """The largest absolute value in each tensor of the samples."""

    @override
    def power_iteration(
        self,
        *,
        steps: int,
        tol: float | None = None,
        init: tuple[Tensor, Tensor] | None = None,
        rank: int = 1,
    ) -> ops.KroneckerSum:
        return ops.power_iteration(self.samples, steps=steps, tol=tol, init=init, rank=rank)

    @override
    def squares(self, left: Tensor | None = None, right: Tensor | None = None) -> Tensor:
        m, n = self.shape
        total = torch.zeros(m, n, dtype=torch.float64, device=self.device)
        sides = (None if left is None else left.mT, right)
        for start, stop in self.chunks(m * n):
            G = self.gradients(start, stop)
            if sides != (None, None):
                G = ops.precondition(G, *sides)
            total += G.square().sum(0)
        return total.div_(self.count).to(self.dtype)

    @override
    def dense(self) -> Tensor:
        m, n = self.shape
        H = torch.zeros(m * n, m * n, dtype=self.dtype, device=self.device)
        for start, stop in self.chunks(m * n):
            g = self.gradients(start, stop).flatten(1)
            H.addmm_(g.mT, g)
        return H.div_(self.count)

    @override
    def frobenius_norm(self) -> float:
        """`||H||_F^2 = (1/S^2) sum_{s,t} <G_s, G_t>^2`, or from the entries where that is less."""
        m, n = self.shape
        entries = (m * n) ** 2
        if entries <= min(self.count * self.product_cost // 2, moments.MEMORY_ENTRIES):
            return float(torch.linalg.matrix_norm(self.dense().double()))
        return math.sqrt(self.squared_products()) / self.count

    def squared_products(self) -> float:
        """`sum_{s,t} <G_s, G_t>^2` over all pairs of samples."""
        total = 0.0
        for start, stop in self.chunks(self.count * self.positions**2):
            later = self.part(start, self.count)
            products = later.part(0, stop - start).inner_products(later).double().square_()
            # The products with later samples stand for their mirror images too.
            total += float(2 * products.sum() - products[:, : stop - start].sum())
        return total

    @cached_property
    @override
    def in_range(self) -> SecondMoment:
        divisors = tuple(scale_into_range(x, self.dtype) for x in self.largest_entries())
        return self if set(divisors) == {1.0} else self.divided(divisors)

    def chunks(self, entries_per_sample: int) -> Iterator[tuple[int, int]]:
        """Ranges of samples whose temporaries fit the memory that is allowed."""
        size = max(1, moments.MEMORY_ENTRIES // max(1, entries_per_sample))
        for start in range(0, self.count, size):
            yield start, min(start + size, self.count)


class GradientMoment(SampledMoment):
    """`H` from gradients `G` `(S, m, n)`."""

    def __init__(self, G: Tensor) -> None:
        self.count, m, n = G.shape
        super().__init__((m, n), G)
        self.positions, self.product_cost = 1, m * n
        self.G = G

    @property
    @override
    def samples(self) -> Chunk:
        return self.G

    @override
    def matvec(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        return ops.kron_matvec(self.G, left, right)

    @override
    def images(self, V: Tensor) -> Tensor:
        result = torch.zeros_like(V, dtype=self.dtype).flatten(1)
        for start, stop in self.chunks(self.G[0].numel()):
            g = self.gradients(start, stop).flatten(1)
            result.addmm_(V.flatten(1).to(self.dtype) @ g.mT, g)
        return result.div_(self.count).view_as(V)

    @override
    def gradients(self, start: int, stop: int) -> Tensor:
        return self.G[start:stop].to(self.dtype)

    @override
    def part(self, start: int, stop: int) -> SampledMoment:
        return GradientMoment(self.G[start:stop])

    @override
    def inner_products(self, others: SampledMoment) -> Tensor:
        g, h = (x.gradients(0, x.count).flatten(1) for x in (self, others))
        return g @ h.mT

    @override
    def divided(self, divisors: tuple[float, ...]) -> SampledMoment:
        (divisor,) = divisors
        return GradientMoment(self.G.to(self.dtype) / divisor)

    @override
    def largest_entries(self) -> tuple[float, ...]:
        return (largest_entry(self.G),)


class FactoredMoment(SampledMoment):
    """`H` from `G_s = D_sT A_s`, with `D` `(S, T, m)` and `A` `(S, T, n)`."""

    def __init__(self, D: Tensor, A: Tensor) -> None:
        self.count, self.positions, m = D.shape
        n = A.shape[2]
        self._by_position = self.positions**2 * (m + n) <= m * n
        self.product_cost = min(self.positions**2 * (m + n), m * n)
        # Under autocast the two may differ in dtype, and the ops take one.
        dtype = torch.promote_types(D.dtype, A.dtype)
        self.D, self.A = D.to(dtype), A.to(dtype)
        super().__init__((m, n), self.D)

    @property
    @override
    def samples(self) -> Chunk:
        return self.D, self.A

    @override
    def matvec(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        return ops.kron_matvec_factored(self.D, self.A, left, right)

    @override
    def images(self, V: Tensor) -> Tensor:
        """`<G_s, v> = sum_t d_t . v a_t`, so that no `G_s` is formed."""
        D, A = self.D.to(self.dtype), self.A.to(self.dtype)
        images = []
        for v in V.to(self.dtype):
            products = ((D @ v) * A).sum((1, 2), keepdim=True)
            images.append((products * D).flatten(0, 1).mT @ A.flatten(0, 1))
        return torch.stack(images).div_(self.count)

    @override
    def squares(self, left: Tensor | None = None, right: Tensor | None = None) -> Tensor:
        D, A = self.D.to(self.dtype), self.A.to(self.dtype)
        D = D if left is None else D @ left.to(self.dtype)
        A = A if right is None else A @ right.to(self.dtype)
        if self.positions == 1:
            return D.squeeze(1).square().mT @ A.squeeze(1).square() / self.count
        return SampledMoment.squares(FactoredMoment(D, A))

    @override
    def gradients(self, start: int, stop: int) -> Tensor:
        return self.D[start:stop].mT.to(self.dtype) @ self.A[start:stop].to(self.dtype)

    @override
    def part(self, start: int, stop: int) -> SampledMoment:
        return FactoredMoment(self.D[start:stop], self.A[start:stop])

    @override
    def inner_products(self, others: SampledMoment) -> Tensor:
        """`<G_s, G_t> = sum (D_s D_tT) * (A_s A_tT)` over all pairs of positions."""
        if not isinstance(others, FactoredMoment):
            return others.inner_products(self).mT
        products = self._positions(self.D) @ self._positions(others.D).mT
        products *= self._positions(self.A) @ self._positions(others.A).mT
        pairs = products.view(self.count, self.positions, others.count, others.positions)
        return pairs.sum((1, 3))

    @override
    def squared_products(self) -> float:
        if self._by_position:
            return super().squared_products()
        # Many positions make whole gradients the lesser work, in blocks that fit in memory.
        m, n = self.shape
        blocks = list(self.chunks(m * n))
        total = 0.0
        for index, block in enumerate(blocks):
            G = GradientMoment(self.gradients(*block))
            total += float(G.inner_products(G).double().square_().sum())
            for later in blocks[index + 1 :]:
                products = G.inner_products(GradientMoment(self.gradients(*later)))
                total += 2 * float(products.double().square_().sum())
        return total

    @override
    def divided(self, divisors: tuple[float, ...]) -> SampledMoment:
        by_output, by_input = divisors
        return FactoredMoment(self.D.to(self.dtype) / by_output, self.A.to(self.dtype) / by_input)

    @override
    def largest_entries(self) -> tuple[float, ...]:
        return largest_entry(self.D), largest_entry(self.A)

    def _positions(self, rows: Tensor) -> Tensor:
        return rows.flatten(0, 1).to(self.dtype)


def sampled_moment(samples: Chunk) -> SampledMoment:
    """The second moment of gradients `(S, m, n)` or of a factored pair `(D, A)`.

    Raises:
        ValueError: the shapes are others, or there is no sample.
        TypeError: neither a tensor nor a pair of tensors.
    """
    if isinstance(samples, Tensor):
        if samples.dim() != 3 or not samples.shape[0]:
            raise ValueError(
                "second_moment: samples must be (S, m, n) with S > 0, or a dense H with "
                f"shape=(m, n) (got samples={tuple(samples.shape)})"
            )
        return GradientMoment(samples.detach())
    if not is_pair(samples):
        raise TypeError(
            "second_moment: a stream must yield tensors or pairs (tuples) of tensors (D, A) "
            f"(got {type(samples).__name__})"
        )
    D, A = samples
    if D.dim() != 3 or A.dim() != 3 or D.shape[:2] != A.shape[:2] or not D.shape[0]:
        raise ValueError(
            "second_moment: a factored pair must be D (S, T, m) and A (S, T, n) with S > 0 "
            f"(got D={tuple(D.shape)}, A={tuple(A.shape)})"
        )
    return FactoredMoment(D.detach(), A.detach())


def is_pair(samples: object) -> TypeGuard[tuple[Tensor, Tensor]]:
    """Whether these are factored samples; a list of two tensors is a stream of chunks."""
    return (
        isinstance(samples, tuple)
        and len(samples) == 2
        and all(isinstance(part, Tensor) for part in samples)
    )
