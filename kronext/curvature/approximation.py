"""What stands for `H`, as a value: Kronecker products, their sums, diagonals, dense matrices.

Every kind is a symmetric `mn x mn` matrix `M` that acts on an `m x n` weight; `dense` alone forms
it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from kronext.curvature.forms import Samples, Truth, as_truth
from kronext.curvature.moments import DenseMoment, SecondMoment


class Approximation(ABC):
    """A symmetric matrix `M ~ H`, `M[(i,j),(i',j')]` for a weight of `shape` `(m, n)`."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """`(m, n)`, the shape of the weight."""

    @abstractmethod
    def dense(self) -> Tensor:
        """`M` as an `(mn, mn)` matrix, for `vec(G) = G.flatten()`."""

    @abstractmethod
    def norm(self) -> float:
        """`||M||_F`."""

    @abstractmethod
    def unit(self) -> Approximation:
        """`M / ||M||_F`, however large or small its entries are; NaN where `M` is zero."""

    @abstractmethod
    def matvec(self, V: Tensor) -> Tensor:
        """`M vec(V)`: `(..., m, n) -> (..., m, n)`."""

    @abstractmethod
    def power(self, exponent: float) -> Approximation:
        """`M^p`; a negative power is that of the pseudo-inverse.

        Eigenvalues at or below `4 u lambda_max` count as zero, as in `ops.inverse_root`.
        """

    @abstractmethod
    def condition_number(self) -> float:
        """`lambda_max / lambda_min`; infinite unless all eigenvalues are positive."""

    @abstractmethod
    def kronecker_inner(self, left: Tensor, right: Tensor) -> float:
        """`<M, left (x) right>`."""

    @abstractmethod
    def squares(self, left: Tensor | None = None, right: Tensor | None = None) -> Tensor:
        """The diagonal of `M` in the basis `left (x) right`, `(m, n)`; see `SecondMoment`."""

    @abstractmethod
    def _inner(self, matrix: Approximation | SecondMoment) -> float:
        """`<M, matrix>`."""

    def inner(
        self,
        other: Approximation | Samples | Truth,
        *,
        shape: tuple[int, int] | None = None,
    ) -> float:
        """`<M, H> = Tr(M HT)`.

        Args:
            other: another approximation, or what `cosine_similarity` takes as truth.
            shape: `(m, n)`, with a dense `H` only.

        Raises:
            ValueError: the two belong to weights of different shapes, or the samples have no form
                that `second_moment` knows.
            TypeError: `other` is neither.
        """
        if not isinstance(other, (Approximation, SecondMoment)):
            other = as_truth(other, shape)
        if not isinstance(other, (Approximation, SecondMoment)):
            return other.inner(self)
        if other.shape != self.shape:
            raise ValueError(
                "inner: both must be for weights of one shape (m, n) "
                f"(got {self.shape} and {other.shape})"
            )
        return self._inner(other)


@dataclass(frozen=True, eq=False)
class KroneckerFactors(Approximation):
    """`H ~ scale * left (x) right`, with `H[(i,j),(i',j')] ~ scale left[i,i'] right[j,j']`.

    Attributes:
        left: `(m, m)`, symmetric PSD.
        right: `(n, n)`, symmetric PSD.
        scale: not negative.
    """

    left: Tensor
    right: Tensor
    scale: float = 1.0

    @property
    @override
    def shape(self) -> tuple[int, int]:
        return self.left.shape[-1], self.right.shape[-1]

    @override
    def dense(self) -> Tensor:
        """`scale * left (x) right` as an `(mn, mn)` matrix, for `vec(G) = G.flatten()`."""
        return self.scale * torch.kron(self.left, self.right)

    @override
    def norm(self) -> float:
        """`scale ||left||_F ||right||_F`."""
        return self.scale * _norm(self.left) * _norm(self.right)

    @override
    def unit(self) -> KroneckerFactors:
        scale = 1.0 if self.scale else math.nan
        return KroneckerFactors(_unit(self.left), _unit(self.right), scale)

    @override
    def matvec(self, V: Tensor) -> Tensor:
        """`scale * left V rightT`."""
        return self.scale * (self.left @ V.to(self.left.dtype) @ self.right.mT)

    @override
    def power(self, exponent: float) -> KroneckerFactors:
        """`scale^p left^p (x) right^p`, with a cutoff for each factor."""
        return KroneckerFactors(
            _symmetric_power(self.left, exponent),
            _symmetric_power(self.right, exponent),
            self.scale**exponent if self.scale else 0.0,
        )

    @override
    def condition_number(self) -> float:
        return _condition(_eigenvalues(self.left)) * _condition(_eigenvalues(self.right))

    @override
    def kronecker_inner(self, left: Tensor, right: Tensor) -> float:
        """`<A (x) B, C (x) D> = <A, C> <B, D>`."""
        return self.scale * _dot(self.left, left) * _dot(self.right, right)

    @override
    def squares(self, left: Tensor | None = None, right: Tensor | None = None) -> Tensor:
        rows, columns = _diagonal(self.left, left), _diagonal(self.right, right)
        return self.scale * torch.outer(rows, columns)

    @override
    def _inner(self, matrix: Approximation | SecondMoment) -> float:
        return self.scale * matrix.kronecker_inner(self.left, self.right)


@dataclass(frozen=True, eq=False)
class KroneckerSum(Approximation):
    """`H ~ sum_k sigma_k left_k (x) right_k`.

    Attributes:
        left: `(r, m, m)`, of norm 1; all but the first may be antisymmetric, or indefinite.
        right: `(r, n, n)`, likewise.
        sigma: `(r,)`, not negative.
    """

    left: Tensor
    right: Tensor
    sigma: Tensor

    @property
    def terms(self) -> list[KroneckerFactors]:
        """The Kronecker products whose sum this is."""
        terms = zip(self.left, self.right, self.sigma.tolist(), strict=True)
        return [KroneckerFactors(*term) for term in terms]

    @property
    @override
    def shape(self) -> tuple[int, int]:
        return self.left.shape[-1], self.right.shape[-1]

    @override
    def dense(self) -> Tensor:
        return torch.stack([term.dense() for term in self.terms]).sum(0)

    @override
    def norm(self) -> float:
        """`||M||^2 = sum_kl sigma_k sigma_l <left_k, left_l> <right_k, right_l>`."""
        return math.sqrt(max(self._inner(self), 0.0))

    @override
    def unit(self) -> KroneckerSum:
        sigma = self.sigma.double() / self.sigma.double().max()
        norm = KroneckerSum(self.left, self.right, sigma).norm()
        return KroneckerSum(self.left, self.right, sigma / (norm or math.nan))

    @override
    def matvec(self, V: Tensor) -> Tensor:
        return torch.stack([term.matvec(V) for term in self.terms]).sum(0)

    @override
    def power(self, exponent: float) -> Dense:
        """`M^p` from the eigenvalues of the dense matrix: a power of a sum is no such sum."""
        return Dense(self.dense(), *self.shape).power(exponent)

    @override
    def condition_number(self) -> float:
        return Dense(self.dense(), *self.shape).condition_number()

    @override
    def kronecker_inner(self, left: Tensor, right: Tensor) -> float:
        return sum(term.kronecker_inner(left, right) for term in self.terms)

    @override
    def squares(self, left: Tensor | None = None, right: Tensor | None = None) -> Tensor:
        return torch.stack([term.squares(left, right) for term in self.terms]).sum(0)

    @override
    def _inner(self, matrix: Approximation | SecondMoment) -> float:
        return sum(term._inner(matrix) for term in self.terms)


@dataclass(frozen=True, eq=False)
class Diagonal(Approximation):
    """`H ~ Q diag(values) QT`, `Q = left (x) right`: a diagonal in a Kronecker-factored basis.

    Attributes:
        values: `(m, n)`, the eigenvalues, not negative.
        left: orthogonal `(m, m)`; None stands for the identity.
        right: orthogonal `(n, n)`, likewise.
    """

    values: Tensor
    left: Tensor | None = None
    right: Tensor | None = None

    @property
    @override
    def shape(self) -> tuple[int, int]:
        return self.values.shape[-2], self.values.shape[-1]

    @override
    def dense(self) -> Tensor:
        m, n = self.shape
        units = torch.eye(m * n, dtype=self.values.dtype, device=self.values.device)
        return self.matvec(units.view(-1, m, n)).flatten(1)

    @override
    def norm(self) -> float:
        return _norm(self.values)

    @override
    def unit(self) -> Diagonal:
        return Diagonal(_unit(self.values), self.left, self.right)

    @override
    def matvec(self, V: Tensor) -> Tensor:
        """`left (values * (leftT V right)) rightT`."""
        V = V.to(self.values.dtype)
        V = V if self.left is None else self.left.mT @ V
        V = self.values * (V if self.right is None else V @ self.right)
        V = V if self.left is None else self.left @ V
        return V if self.right is None else V @ self.right.mT

    @override
    def power(self, exponent: float) -> Diagonal:
        powers = _powers(self.values.double(), exponent, self.values.dtype)
        return Diagonal(powers.to(self.values.dtype), self.left, self.right)

    @override
    def condition_number(self) -> float:
        return _condition(self.values.double())

    @override
    def kronecker_inner(self, left: Tensor, right: Tensor) -> float:
        rows, columns = _diagonal(left, self.left), _diagonal(right, self.right)
        return _dot(self.values, torch.outer(rows, columns))

    @override
    def squares(self, left: Tensor | None = None, right: Tensor | None = None) -> Tensor:
        values = self.values
        if (rotation := _rotation(self.left, left)) is not None:
            values = rotation.square() @ values
        if (rotation := _rotation(self.right, right)) is not None:
            values = values @ rotation.square().mT
        return values

    @override
    def _inner(self, matrix: Approximation | SecondMoment) -> float:
        return _dot(self.values, matrix.squares(self.left, self.right))


@dataclass(frozen=True, eq=False)
class Dense(Approximation):
    """`H` itself, or a power of it, as a matrix.

    Attributes:
        H: `(mn, mn)`, symmetric.
        m: rows of the weight.
        n: its columns.
    """

    H: Tensor
    m: int
    n: int

    @property
    @override
    def shape(self) -> tuple[int, int]:
        return self.m, self.n

    @override
    def dense(self) -> Tensor:
        return self.H

    @override
    def norm(self) -> float:
        return _norm(self.H)

    @override
    def unit(self) -> Dense:
        return Dense(_unit(self.H), self.m, self.n)

    @override
    def matvec(self, V: Tensor) -> Tensor:
        return (V.flatten(-2).to(self.H.dtype) @ self.H).view(V.shape)

    @override
    def power(self, exponent: float) -> Dense:
        return Dense(_symmetric_power(self.H, exponent), self.m, self.n)

    @override
    def condition_number(self) -> float:
        return _condition(_eigenvalues(self.H))

    @override
    def kronecker_inner(self, left: Tensor, right: Tensor) -> float:
        return DenseMoment(self.H, self.shape).kronecker_inner(left, right)

    @override
    def squares(self, left: Tensor | None = None, right: Tensor | None = None) -> Tensor:
        return DenseMoment(self.H, self.shape).squares(left, right)

    @override
    def _inner(self, matrix: Approximation | SecondMoment) -> float:
        return _dot(self.H, matrix.dense())


def _norm(matrix: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix.double()))


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a.double() * b.double()).sum())


def _unit(matrix: Tensor) -> Tensor:
    """The matrix scaled to norm 1, NaN where it is zero."""
    # By the largest entry first, because the norm sums squares.
    wide = matrix.double()
    wide = wide / wide.abs().max()
    unit: Tensor = wide / torch.linalg.matrix_norm(wide)
    return unit.to(matrix.dtype)


def _diagonal(matrix: Tensor, basis: Tensor | None) -> Tensor:
    """The diagonal of `basisT matrix basis`."""
    if basis is None:
        return matrix.diagonal()
    basis = basis.to(matrix.dtype)
    return (basis * (matrix @ basis)).sum(-2)


def _rotation(basis: Tensor | None, other: Tensor | None) -> Tensor | None:
    """`otherT basis`, None where both are the identity."""
    if other is None:
        return basis
    return other.mT if basis is None else other.mT.to(basis.dtype) @ basis


def _eigenvalues(matrix: Tensor) -> Tensor:
    values: Tensor = torch.linalg.eigvalsh(matrix.double())
    return values


def _condition(values: Tensor) -> float:
    smallest, largest = (float(extreme) for extreme in values.aminmax())
    return largest / smallest if smallest > 0 else math.inf


def _powers(values: Tensor, exponent: float, dtype: torch.dtype) -> Tensor:
    """Powers of the eigenvalues of a matrix that was rounded to `dtype`."""
    cutoff = 2 * torch.finfo(dtype).eps * values.max().clamp(min=0)
    return torch.where(values > cutoff, values.clamp(min=0).pow(exponent), 0.0)


def _symmetric_power(matrix: Tensor, exponent: float) -> Tensor:
    # In float64 because the small eigenvalues, which negative powers enlarge, must be right.
    values, vectors = torch.linalg.eigh(matrix.double())
    power: Tensor = (vectors * _powers(values, exponent, matrix.dtype)) @ vectors.mT
    return ((power + power.mT) / 2).to(matrix.dtype)
