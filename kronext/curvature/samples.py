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

# What is summed in float32 before float64 takes over; at 2^22 a norm would lose half its digits.
TERMS_AT_ONCE = 2**14


class SampledMoment(SecondMoment):
    """`H = (1/S) sum_s vec(G_s) vec(G_s)T`.

    Attributes:
        count: the number of samples `S`.
        positions: rank-one terms of a sample that inner products go through, each with each; 1
            where they go through whole gradients.
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
    def rows(self, start: int, stop: int) -> Tensor:
        """These rows of every `G_s`, one behind the other: `(S, (stop - start) n)`."""

    @abstractmethod
    def part(self, start: int, stop: int) -> SampledMoment:
        """The second moment of these samples alone."""

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

    def inner_products(self, others: SampledMoment) -> Tensor:
        """`<G_s, G_t>` for each `s` of these and `t` of the other samples: `(S, S')`.

        Piece by piece, so that every gradient is formed once and no sum in float32 is long.
        """
        m, n = self.shape
        products = torch.zeros(self.count, others.count, dtype=torch.float64, device=self.device)
        fitting = moments.MEMORY_ENTRIES // (self.count + others.count)
        size = max(1, min(fitting, TERMS_AT_ONCE) // max(1, n))
        for start in range(0, m, size):
            g = self.rows(start, start + size)
            h = g if others is self else others.rows(start, start + size)
            products += g @ h.mT
        return products

    def squared_products(self) -> float:
        """`sum_{s,t} <G_s, G_t>^2` over all pairs of samples."""
        total = 0.0
        for start, stop in self.chunks(self.count * self.positions**2):
            later = self.part(start, self.count)
            first = later if stop == self.count else later.part(0, stop - start)
            products = first.inner_products(later).double().square_()
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
        size = chunk_size(entries_per_sample)
        for start in range(0, self.count, size):
            yield start, min(start + size, self.count)


def chunk_size(entries_per_sample: int) -> int:
    """How many samples' temporaries fit the memory that is allowed."""
    return max(1, moments.MEMORY_ENTRIES // max(1, entries_per_sample))


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
    def rows(self, start: int, stop: int) -> Tensor:
        return self.G[:, start:stop].to(self.dtype).flatten(1)

    @override
    def part(self, start: int, stop: int) -> SampledMoment:
        return GradientMoment(self.G[start:stop])

    @override
    def divided(self, divisors: tuple[float, ...]) -> SampledMoment:
        (divisor,) = divisors
        return GradientMoment(self.G.to(self.dtype) / divisor)

    @override
    def largest_entries(self) -> tuple[float, ...]:
        return (largest_entry(self.G),)


class FactoredMoment(SampledMoment):
    """`H` from `G_s = D_sT A_s`, with `D` `(S, T, m)` and `A` `(S, T, n)`.

    Inner products go through all pairs of positions, or through whole gradients where that is less
    work; parts go the way of the whole, whose memory is shared out for it.
    """

    def __init__(self, D: Tensor, A: Tensor, by_position: bool | None = None) -> None:
        self.count, positions, m = D.shape
        n = A.shape[2]
        # For each chunk of samples all later gradients are formed.
        formed_for = max(1, min(self.count, chunk_size(self.count)))
        costs = positions**2 * (m + n), m * n * (formed_for + positions) // formed_for
        self._by_position = costs[0] <= costs[1] if by_position is None else by_position
        self.positions = positions if self._by_position else 1
        self.product_cost = min(costs)
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
        if self.D.shape[1] == 1:
            return D.squeeze(1).square().mT @ A.squeeze(1).square() / self.count
        return SampledMoment.squares(FactoredMoment(D, A))

    @override
    def gradients(self, start: int, stop: int) -> Tensor:
        return self.D[start:stop].mT.to(self.dtype) @ self.A[start:stop].to(self.dtype)

    @override
    def rows(self, start: int, stop: int) -> Tensor:
        return (self.D[..., start:stop].mT.to(self.dtype) @ self.A.to(self.dtype)).flatten(1)

    @override
    def part(self, start: int, stop: int) -> SampledMoment:
        return FactoredMoment(self.D[start:stop], self.A[start:stop], self._by_position)

    @override
    def inner_products(self, others: SampledMoment) -> Tensor:
        """`<G_s, G_t> = sum (D_s D_tT) * (A_s A_tT)` over all pairs of positions."""
        if not (self._by_position and isinstance(others, FactoredMoment) and others._by_position):
            return super().inner_products(others)
        products = self._positions(self.D) @ self._positions(others.D).mT
        products *= self._positions(self.A) @ self._positions(others.A).mT
        pairs = products.view(self.count, self.positions, others.count, others.positions)
        return pairs.sum((1, 3))

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
