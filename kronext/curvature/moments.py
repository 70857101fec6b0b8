"""The matrix that is approximated, `H = E[vec(G) vec(G)T]`, in the forms in which one has it.

Samples of `G` stand for `H` without an `mn x mn` matrix: its products with Kronecker factors need
the samples only, and its norm their inner products.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor
from typing_extensions import override

from kronext import ops

Samples: TypeAlias = "Tensor | tuple[Tensor, Tensor] | SecondMoment"

# No temporary, and no dense matrix formed on the way to a norm, has more entries than this.
_MEMORY_ENTRIES = 2**24


@runtime_checkable
class Truth(Protocol):
    """What a comparison needs of `H`: its norm, and its inner product with a Kronecker product."""

    def norm(self) -> float:
        """`||H||_F`."""
        ...

    def inner(self, left: Tensor, right: Tensor) -> float:
        """`<H, left (x) right>`, for factors of norm 1."""
        ...


class SecondMoment(ABC):
    """`H = E[vec(G) vec(G)T]` of an `m x n` gradient, exactly as its samples say.

    Attributes:
        shape: `(m, n)`.
        dtype: of the Kronecker factors of `H`: float64 for float64 samples, float32 for others.
        device: of the samples.
    """

    def __init__(self, shape: tuple[int, int], like: Tensor) -> None:
        self.shape = shape
        self.dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        self.device = like.device
        self._norm: float | None = None

    @abstractmethod
    def matvec(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """`(Hhat vec(right), HhatT vec(left))` as matrices: `(E[G right GT], E[GT left G])`."""

    @abstractmethod
    def power_iteration(self, steps: int, tol: float | None) -> ops.KroneckerSum:
        """The leading singular triple of `Hhat`, by `ops.power_iteration` from the identity."""

    @abstractmethod
    def dense(self) -> Tensor:
        """`H` itself, `(mn, mn)`."""

    @cached_property
    @abstractmethod
    def in_range(self) -> SecondMoment:
        """`H` times a number, so that no product leaves the range of the dtype; mostly `H`."""

    @abstractmethod
    def frobenius_norm(self) -> float:
        """`||H||_F`, computed anew."""

    def norm(self) -> float:
        """`||H||_F`, computed once: several approximations are compared with the same `H`."""
        if self._norm is None:
            self._norm = self.frobenius_norm()
        return self._norm

    def inner(self, left: Tensor, right: Tensor) -> float:
        """`<H, left (x) right> = <left, E[G right GT]>`."""
        product, _ = self.matvec(left, right)
        return float((left.double() * product.double()).sum())

    def identities(self) -> tuple[Tensor, Tensor]:
        """`I_m` and `I_n`, in the dtype and on the device of the Kronecker factors."""
        m, n = self.shape
        return (
            torch.eye(m, dtype=self.dtype, device=self.device),
            torch.eye(n, dtype=self.dtype, device=self.device),
        )

    def rearranged(self) -> Tensor:
        """`Hhat[(i,i'),(j,j')] = H[(i,j),(i',j')]`, `(m^2, n^2)`."""
        m, n = self.shape
        return self.dense().view(m, n, m, n).transpose(1, 2).reshape(m * m, n * n)


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

    @abstractmethod
    def gradients(self, start: int, stop: int) -> Tensor:
        """`G_s` of these samples, `(stop - start, m, n)`."""

    @abstractmethod
    def inner_products(self, start: int, stop: int) -> Tensor:
        """`<G_s, G_t>` for `s` in the range and all `t >= start`: `(stop - start, S - start)`."""

    @override
    def dense(self) -> Tensor:
        m, n = self.shape
        H = torch.zeros(m * n, m * n, dtype=self.dtype, device=self.device)
        for start, stop in self._chunks(m * n):
            g = self.gradients(start, stop).flatten(1)
            H.addmm_(g.mT, g)
        return H.div_(self.count)

    @override
    def frobenius_norm(self) -> float:
        """`||H||_F^2 = (1/S^2) sum_{s,t} <G_s, G_t>^2`, or from the entries where that is less."""
        m, n = self.shape
        entries = (m * n) ** 2
        if entries <= min(self.count * self.product_cost // 2, _MEMORY_ENTRIES):
            return float(torch.linalg.matrix_norm(self.dense().double()))
        squares = 0.0
        for start, stop in self._chunks(self.count * self.positions**2):
            products = self.inner_products(start, stop).double().square_()
            # The products with later samples stand for their mirror images too.
            squares += float(2 * products.sum() - products[:, : stop - start].sum())
        return math.sqrt(squares) / self.count

    def _chunks(self, entries_per_sample: int) -> Iterator[tuple[int, int]]:
        size = max(1, _MEMORY_ENTRIES // max(1, entries_per_sample))
        for start in range(0, self.count, size):
            yield start, min(start + size, self.count)


class GradientMoment(SampledMoment):
    """`H` from gradients `G` `(S, m, n)`."""

    def __init__(self, G: Tensor) -> None:
        self.count, m, n = G.shape
        super().__init__((m, n), G)
        self.positions, self.product_cost = 1, m * n
        self.G = G

    @override
    def matvec(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        return ops.kron_matvec(self.G, left, right)

    @override
    def power_iteration(self, steps: int, tol: float | None) -> ops.KroneckerSum:
        return ops.power_iteration(self.G, steps=steps, tol=tol)

    @cached_property
    @override
    def in_range(self) -> SecondMoment:
        G = _into_range(self.G)
        return self if G is self.G else GradientMoment(G)

    @override
    def gradients(self, start: int, stop: int) -> Tensor:
        return self.G[start:stop].to(self.dtype)

    @override
    def inner_products(self, start: int, stop: int) -> Tensor:
        g = self.G[start:].flatten(1).to(self.dtype)
        return g[: stop - start] @ g.mT


class FactoredMoment(SampledMoment):
    """`H` from `G_s = D_sT A_s`, with `D` `(S, T, m)` and `A` `(S, T, n)`."""

    def __init__(self, D: Tensor, A: Tensor) -> None:
        self.count, self.positions, m = D.shape
        n = A.shape[2]
        self.product_cost = self.positions**2 * (m + n)
        # Under autocast the two may differ in dtype, and the ops take one.
        dtype = torch.promote_types(D.dtype, A.dtype)
        self.D, self.A = D.to(dtype), A.to(dtype)
        super().__init__((m, n), self.D)

    @override
    def matvec(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        return ops.kron_matvec_factored(self.D, self.A, left, right)

    @override
    def power_iteration(self, steps: int, tol: float | None) -> ops.KroneckerSum:
        return ops.power_iteration((self.D, self.A), steps=steps, tol=tol)

    @cached_property
    @override
    def in_range(self) -> SecondMoment:
        D, A = _into_range(self.D), _into_range(self.A)
        return self if D is self.D and A is self.A else FactoredMoment(D, A)

    @override
    def gradients(self, start: int, stop: int) -> Tensor:
        return self.D[start:stop].mT.to(self.dtype) @ self.A[start:stop].to(self.dtype)

    @override
    def inner_products(self, start: int, stop: int) -> Tensor:
        """`<G_s, G_t> = sum (D_s D_tT) * (A_s A_tT)` over all pairs of positions."""
        D = self.D[start:].flatten(0, 1).to(self.dtype)
        A = self.A[start:].flatten(0, 1).to(self.dtype)
        rows = (stop - start) * self.positions
        products = (D[:rows] @ D.mT) * (A[:rows] @ A.mT)
        return products.view(stop - start, self.positions, -1, self.positions).sum((1, 3))


class DenseMoment(SecondMoment):
    """`H` given as a matrix `(mn, mn)`."""

    def __init__(self, H: Tensor, shape: tuple[int, int]) -> None:
        super().__init__(shape, H)
        self.H = H.to(self.dtype)

    @override
    def matvec(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        return ops.rearranged_matvec(self.H, left, right)

    @override
    def power_iteration(self, steps: int, tol: float | None) -> ops.KroneckerSum:
        return ops.power_iteration(self.H, shape=self.shape, steps=steps, tol=tol)

    @override
    def dense(self) -> Tensor:
        return self.H

    @cached_property
    @override
    def in_range(self) -> SecondMoment:
        H = _into_range(self.H)
        return self if H is self.H else DenseMoment(H, self.shape)

    @override
    def frobenius_norm(self) -> float:
        return float(torch.linalg.matrix_norm(self.H.double()))


def second_moment(samples: Samples, *, shape: tuple[int, int] | None = None) -> SecondMoment:
    """`H = E[vec(G) vec(G)T]` from whatever form one has of it.

    Args:
        samples: gradients `(S, m, n)`; a factored pair `(D, A)` of `(S, T, m)` and `(S, T, n)` for
            `G_s = D_sT A_s`; a dense `H` `(mn, mn)`; or a `SecondMoment`, returned as it is.
        shape: `(m, n)`, with a dense `H` only.

    Raises:
        ValueError: the samples have none of these forms, or there are none.
        TypeError: the samples are not tensors.
    """
    if isinstance(samples, SecondMoment):
        return samples
    if isinstance(samples, Tensor):
        return _moment_of_tensor(samples.detach(), shape)
    pair = isinstance(samples, (tuple, list)) and len(samples) == 2
    if not pair or not all(isinstance(part, Tensor) for part in samples):
        raise TypeError(
            "second_moment: samples must be a tensor, a pair of tensors (D, A) or a SecondMoment "
            f"(got samples={type(samples).__name__})"
        )
    D, A = samples
    if D.dim() != 3 or A.dim() != 3 or D.shape[:2] != A.shape[:2] or not D.shape[0]:
        raise ValueError(
            "second_moment: a factored pair must be D (S, T, m) and A (S, T, n) with S > 0 "
            f"(got D={tuple(D.shape)}, A={tuple(A.shape)})"
        )
    return FactoredMoment(D.detach(), A.detach())


def _into_range(samples: Tensor) -> Tensor:
    """The samples, divided by the largest where the sum of their fourth powers is at risk."""
    if not samples.numel():
        return samples
    dtype = torch.promote_types(samples.dtype, torch.float32)
    largest = max(abs(float(extreme)) for extreme in samples.aminmax())
    # A fifth of the exponents leaves room for the lesser samples and for the number of terms.
    bound = torch.finfo(dtype).tiny ** -0.2
    if 1 / bound <= largest <= bound or not 0 < largest < math.inf:
        return samples
    return samples.to(dtype) / largest


def _moment_of_tensor(samples: Tensor, shape: tuple[int, int] | None) -> SecondMoment:
    if shape is not None:
        m, n = shape
        if samples.shape != (m * n, m * n):
            raise ValueError(
                f"second_moment: a dense H must be (mn, mn) for shape=(m, n) (got shape={shape}, "
                f"H={tuple(samples.shape)})"
            )
        return DenseMoment(samples, (m, n))
    if samples.dim() != 3 or not samples.shape[0]:
        raise ValueError(
            "second_moment: samples must be (S, m, n) with S > 0, or a dense H with shape=(m, n) "
            f"(got samples={tuple(samples.shape)})"
        )
    return GradientMoment(samples)
