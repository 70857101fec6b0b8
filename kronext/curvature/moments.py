"""The matrix that is approximated, `H = E[vec(G) vec(G)T]`: what every form of it can do."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from typing_extensions import override

from kronext import ops

if TYPE_CHECKING:
    from kronext.curvature.approximation import Approximation

# No temporary, and no dense matrix formed on the way to a norm, has more entries than this.
MEMORY_ENTRIES = 2**24


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
    def images(self, V: Tensor) -> Tensor:
        """`H vec(v) = E[<G, v> vec(G)]` for each `v` of `(p, m, n)`, in the same shape."""

    @abstractmethod
    def squares(self, left: Tensor | None = None, right: Tensor | None = None) -> Tensor:
        """`E[(leftT G right)^2]` entry by entry, `(m, n)`: the diagonal of `H` in a basis.

        Args:
            left: `(m, m)`; None stands for the identity.
            right: `(n, n)`, likewise.
        """

    @abstractmethod
    def power_iteration(
        self,
        *,
        steps: int,
        tol: float | None = None,
        init: tuple[Tensor, Tensor] | None = None,
        rank: int = 1,
    ) -> ops.KroneckerSum:
        """The leading singular triples of `Hhat`, by `ops.power_iteration`."""

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

    def inner(self, approximation: Approximation) -> float:
        """`<H, M>` for an approximation `M`."""
        return approximation.inner(self)

    def kronecker_inner(self, left: Tensor, right: Tensor) -> float:
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


class DenseMoment(SecondMoment):
    """`H` given as a matrix `(mn, mn)`."""

    def __init__(self, H: Tensor, shape: tuple[int, int]) -> None:
        super().__init__(shape, H)
        self.H = H.to(self.dtype)

    @override
    def matvec(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        return ops.rearranged_matvec(self.H, left, right)

    @override
    def images(self, V: Tensor) -> Tensor:
        return (V.flatten(1).to(self.dtype) @ self.H.mT).view_as(V)

    @override
    def squares(self, left: Tensor | None = None, right: Tensor | None = None) -> Tensor:
        H = self.H.view(*self.shape, *self.shape)
        if left is None:
            H = H.diagonal(dim1=0, dim2=2).movedim(-1, 0)
        else:
            left = left.to(self.dtype)
            H = torch.einsum("ijkl,ia,ka->ajl", H, left, left)
        if right is None:
            return H.diagonal(dim1=1, dim2=2)
        right = right.to(self.dtype)
        return torch.einsum("ajl,jb,lb->ab", H, right, right)

    @override
    def power_iteration(
        self,
        *,
        steps: int,
        tol: float | None = None,
        init: tuple[Tensor, Tensor] | None = None,
        rank: int = 1,
    ) -> ops.KroneckerSum:
        return ops.power_iteration(
            self.H, shape=self.shape, steps=steps, tol=tol, init=init, rank=rank
        )

    @override
    def dense(self) -> Tensor:
        return self.H

    @cached_property
    @override
    def in_range(self) -> SecondMoment:
        divisor = scale_into_range(largest_entry(self.H), self.dtype)
        return self if divisor == 1 else DenseMoment(self.H / divisor, self.shape)

    @override
    def frobenius_norm(self) -> float:
        return float(torch.linalg.matrix_norm(self.H.double()))


def largest_entry(samples: Tensor) -> float:
    """The largest absolute value, 0 where there is none."""
    if not samples.numel():
        return 0.0
    return max(abs(float(extreme)) for extreme in samples.aminmax())


def scale_into_range(largest: float, dtype: torch.dtype) -> float:
    """What to divide samples by: 1 unless the sum of their fourth powers is at risk."""
    # A fifth of the exponents leaves room for the lesser samples and for the number of terms.
    bound = torch.finfo(dtype).tiny ** -0.2
    if 1 / bound <= largest <= bound or not 0 < largest < math.inf:
        return 1.0
    return largest
