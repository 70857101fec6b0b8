"""Kronecker products that approximate `H = E[vec(G) vec(G)T]`, each from the same samples.

Samples are gradients `(S, m, n)`, a factored pair `(D, A)`, a dense `H` with its `shape=(m, n)`, or
a `SecondMoment`; see `second_moment`. The factors are float64 for float64 samples, else float32.
"""

from __future__ import annotations

import torch

from kronext.curvature.factors import KroneckerFactors
from kronext.curvature.moments import Samples, second_moment


@torch.no_grad()
def shampoo(samples: Samples, *, shape: tuple[int, int] | None = None) -> KroneckerFactors:
    """`H ~ E[G GT]^{1/2} (x) E[GT G]^{1/2}`.

    Args:
        samples: what `second_moment` accepts.
        shape: `(m, n)`, with a dense `H` only.

    Raises:
        ValueError: the samples have no form that `second_moment` knows.

    Source: Gupta et al. 2018; eq. 1 of Morwani et al. 2024, without the rank factor.
    """
    moment = second_moment(samples, shape=shape)
    return KroneckerFactors(*moment.matvec(*moment.identities())).power(0.5)


@torch.no_grad()
def shampoo2(samples: Samples, *, shape: tuple[int, int] | None = None) -> KroneckerFactors:
    """`H ~ E[G GT] (x) E[GT G] / Tr(E[G GT])`.

    One step of power iteration from the identity (Proposition 1), and exact where `H` is a
    Kronecker product (Corollary 2).

    Args:
        samples: what `second_moment` accepts.
        shape: `(m, n)`, with a dense `H` only.

    Raises:
        ValueError: the samples have no form that `second_moment` knows.

    Source: Morwani et al. 2024, Section 3; the direction also in Ren and Goldfarb 2021 (TNT).
    """
    moment = second_moment(samples, shape=shape)
    left, right = moment.matvec(*moment.identities())
    trace = float(left.double().trace())
    return KroneckerFactors(left, right, 1 / trace if trace else 0.0)


@torch.no_grad()
def optimal(
    samples: Samples,
    *,
    shape: tuple[int, int] | None = None,
    steps: int = 5,
    tol: float | None = None,
) -> KroneckerFactors:
    """`H ~ sigma_1 U_1 (x) V_1`, the nearest Kronecker product, by power iteration.

    `sigma_1, U_1, V_1` are the leading singular triple of the rearranged `Hhat` (Corollary 1). The
    paper takes five steps from the identity; more, or a `tol`, come closer to the optimum.

    Args:
        samples: what `second_moment` accepts.
        shape: `(m, n)`, with a dense `H` only.
        steps: steps of power iteration, at most where `tol` is given.
        tol: stop once no factor (of norm 1) moves by more than this in one step.

    Raises:
        ValueError: the samples have no form that `second_moment` knows.

    Source: Van Loan and Pitsianis 1993; Koroko et al. 2023; eq. 3 and 4 of Morwani et al. 2024.
    """
    pair = second_moment(samples, shape=shape).power_iteration(steps, tol)
    return KroneckerFactors(pair.left[0], pair.right[0], float(pair.sigma[0]))
