"""How near an approximation is to `H`, and why one step of power iteration comes so near."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kronext.curvature.approximation import Approximation
from kronext.curvature.forms import Samples, Truth, as_truth, second_moment
from kronext.curvature.moments import SecondMoment

# Beyond this many multiplications the leading triple comes from power iteration, not from an SVD.
_SVD_COST = 10**10
_ENTRIES = 2**24


def cosine_similarity(
    truth: Samples | Truth, factors: Approximation, *, shape: tuple[int, int] | None = None
) -> float:
    """`cos(H, M) = <H, M> / (||H||_F ||M||_F)`, exact for the given samples.

    From samples no `mn x mn` matrix is needed: `<H, A (x) B> = E[<G, A G BT>]` and
    `||H||_F^2 = (1/S^2) sum_{s,t} <G_s, G_t>^2`. NaN where either matrix is zero. The scale of the
    samples and of the approximation does not matter, however large or small.

    Args:
        truth: what `second_moment` accepts, another approximation, or anything with `norm()` and
            `inner(approximation)`, which is given approximations of norm 1 (as the estimate of
            `hutchinson`).
        factors: the approximation, of any kind.
        shape: `(m, n)`, with a dense `H` only.

    Raises:
        ValueError: the two belong to weights of different shapes, or the samples have no form that
            `second_moment` knows.
        TypeError: the truth is neither.

    Source: Section 2.2 and Appendix B of Morwani et al. 2024, without the sampling of Appendix B.
    """
    matrix = truth.unit() if isinstance(truth, Approximation) else as_truth(truth, shape)
    if isinstance(matrix, (SecondMoment, Approximation)) and matrix.shape != factors.shape:
        raise ValueError(
            "cosine_similarity: truth and factors must have the same (m, n) "
            f"(got truth={matrix.shape}, factors={factors.shape})"
        )
    norm = matrix.norm()
    return matrix.inner(factors.unit()) / norm if norm else float("nan")


class Alignment(NamedTuple):
    """Figure 2 of the paper: why one step from the identity is nearly the optimum.

    With `Hhat = sum_i sigma_i u_i v_iT`, `vec(I_n) = sum_i alpha_i v_i` and
    `vec(I_m) = sum_i beta_i u_i` (`alpha_i = Tr(V_i)`, `beta_i = Tr(U_i)`):

    Attributes:
        optimal: `sigma_1 / sqrt(sum sigma_i^2)`, the cosine similarity of the optimal product.
        left: `alpha_1 sigma_1 / sqrt(sum alpha_i^2 sigma_i^2)`, the cosine of `E[G GT]` and `U_1`.
        right: `beta_1 sigma_1 / sqrt(sum beta_i^2 sigma_i^2)`, the cosine of `E[GT G]` and `V_1`.

    All are NaN where `H` is zero.
    """

    optimal: float
    left: float
    right: float


@torch.no_grad()
def alignment(
    samples: Samples,
    *,
    shape: tuple[int, int] | None = None,
    steps: int = 1000,
    tol: float = 1e-6,
) -> Alignment:
    """The cosines of `Alignment`, which need no singular triple but the first.

    One step from the identity is `Hhat vec(I_n) = sum alpha_i sigma_i u_i = vec(E[G GT])`, so
    `sum alpha_i^2 sigma_i^2 = ||E[G GT]||_F^2`, and `sum sigma_i^2 = ||H||_F^2`. The first triple
    is taken from the SVD of `Hhat` for small layers, from power iteration for others.

    Args:
        samples: what `second_moment` accepts.
        shape: `(m, n)`, with a dense `H` only.
        steps: the most steps of power iteration.
        tol: power iteration ends once no factor (of norm 1) moves by more than this in one step.

    Raises:
        ValueError: the samples have no form that `second_moment` knows.
        RuntimeError: power iteration did not come to `tol`; two singular values are too near.

    Source: Section 3.1.1 and Figure 2 of Morwani et al. 2024.
    """
    moment = second_moment(samples, shape=shape).in_range
    U, V, sigma = _leading_triple(moment, steps, tol)
    left, right = moment.matvec(*moment.identities())
    norm = moment.norm()
    optimal = sigma / norm if norm else float("nan")
    return Alignment(optimal, matrix_cosine(U, left), matrix_cosine(V, right))


def _leading_triple(moment: SecondMoment, steps: int, tol: float) -> tuple[Tensor, Tensor, float]:
    m, n = moment.shape
    if (m * n) ** 2 * min(m, n) ** 2 <= _SVD_COST and (m * n) ** 2 <= _ENTRIES:
        U, singular_values, Vh = torch.linalg.svd(moment.rearranged(), full_matrices=False)
        return U[:, 0].view(m, m), Vh[0].view(n, n), float(singular_values[0])
    pair = moment.power_iteration(steps=steps, tol=tol)
    if pair.info:
        raise RuntimeError(
            f"alignment: power iteration must come to tol in the given steps (got tol={tol}, "
            f"steps={steps})"
        )
    return pair.left[0], pair.right[0], float(pair.sigma[0])


def matrix_cosine(a: Tensor, b: Tensor) -> float:
    """The cosine of two matrices, one of which is known up to its sign; NaN where one is zero."""
    inner = (a.double() * b.double()).sum().abs()
    norms = torch.linalg.matrix_norm(a.double()) * torch.linalg.matrix_norm(b.double())
    return float(inner / norms)
