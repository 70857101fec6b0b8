"""A Kronecker product as a value: `H ~ scale * left (x) right`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class KroneckerFactors:
    """`H ~ scale * left (x) right`, with `H[(i,j),(i',j')] ~ scale left[i,i'] right[j,j']`.

    The `mn x mn` product itself is formed by `dense` alone; everything else works on the factors.

    Attributes:
        left: `(m, m)`, symmetric PSD.
        right: `(n, n)`, symmetric PSD.
        scale: not negative.
    """

    left: Tensor
    right: Tensor
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """`(m, n)`, the shape of the weight."""
        return self.left.shape[-1], self.right.shape[-1]

    def dense(self) -> Tensor:
        """`scale * left (x) right` as an `(mn, mn)` matrix, for `vec(G) = G.flatten()`."""
        return self.scale * torch.kron(self.left, self.right)

    def norm(self) -> float:
        """`||scale * left (x) right||_F = scale ||left||_F ||right||_F`."""
        return self.scale * _norm(self.left) * _norm(self.right)

    def inner(self, other: KroneckerFactors) -> float:
        """`<A (x) B, C (x) D> = <A, C> <B, D>`, times both scales."""
        left = float((self.left.double() * other.left.double()).sum())
        right = float((self.right.double() * other.right.double()).sum())
        return self.scale * other.scale * left * right

    def matvec(self, V: Tensor) -> Tensor:
        """`scale * left V rightT`, the product with `vec(V)`: `(..., m, n) -> (..., m, n)`."""
        return self.scale * (self.left @ V @ self.right.mT)

    def power(self, exponent: float) -> KroneckerFactors:
        """`scale^p left^p (x) right^p`; a negative power is that of the pseudo-inverse.

        Eigenvalues at or below `4 u lambda_max` count as zero, as in `ops.inverse_root`.
        """
        return KroneckerFactors(
            _symmetric_power(self.left, exponent),
            _symmetric_power(self.right, exponent),
            self.scale**exponent if self.scale else 0.0,
        )

    def condition_number(self) -> float:
        """`lambda_max / lambda_min` of the product; infinite where a factor is singular."""
        condition = 1.0
        for factor in (self.left, self.right):
            values = torch.linalg.eigvalsh(factor.double())
            smallest, largest = float(values[0]), float(values[-1])
            condition *= largest / smallest if smallest > 0 else float("inf")
        return condition


def _norm(factor: Tensor) -> float:
    return float(torch.linalg.matrix_norm(factor.double()))


def _symmetric_power(factor: Tensor, exponent: float) -> Tensor:
    # In float64 because the small eigenvalues, which negative powers enlarge, must be right.
    values, vectors = torch.linalg.eigh(factor.double())
    cutoff = 2 * torch.finfo(factor.dtype).eps * values[-1:].clamp(min=0)
    powers = torch.where(values > cutoff, values.clamp(min=0).pow(exponent), 0.0)
    power: Tensor = (vectors * powers) @ vectors.mT
    return ((power + power.mT) / 2).to(factor.dtype)
