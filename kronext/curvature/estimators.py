"""Approximations of `H = E[vec(G) vec(G)T]`, each from the same samples.

Samples are gradients `(S, m, n)`, a factored pair `(D, A)`, a stream of either, a dense `H` with
its `shape=(m, n)`, or a `SecondMoment`; see `second_moment`. The factors are float64 for float64
samples, else float32.
"""

from __future__ import annotations

import torch

from kronext.curvature.approximation import Diagonal, KroneckerFactors, KroneckerSum
from kronext.curvature.forms import Samples, second_moment


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
    init: KroneckerFactors | None = None,
) -> KroneckerFactors:
    """`H ~ sigma_1 U_1 (x) V_1`, the nearest Kronecker product, by power iteration.

    `sigma_1, U_1, V_1` are the leading singular triple of the rearranged `Hhat` (Corollary 1). The
    paper takes five steps from the identity; more, or a `tol`, come closer to the optimum.

    Args:
        samples: what `second_moment` accepts.
        shape: `(m, n)`, with a dense `H` only.
        steps: steps of power iteration, at most where `tol` is given.
        tol: stop once no factor (of norm 1) moves by more than this in one step.
        init: factors to start from in place of the identities, as those of an earlier call.

    Raises:
        ValueError: the samples have no form that `second_moment` knows.

    Source: Van Loan and Pitsianis 1993; Koroko et al. 2023; eq. 3 and 4 of Morwani et al. 2024.
    """
    start = None if init is None else (init.left, init.right)
    moment = second_moment(samples, shape=shape)
    pair = moment.power_iteration(steps=steps, tol=tol, init=start)
    return KroneckerFactors(pair.left[0], pair.right[0], float(pair.sigma[0]))


@torch.no_grad()
def kronecker_sum(
    samples: Samples,
    rank: int,
    *,
    shape: tuple[int, int] | None = None,
    steps: int = 20,
    tol: float | None = 1e-4,
) -> KroneckerSum:
    """`H ~ sum_k sigma_k U_k (x) V_k`, the nearest sum of `rank` Kronecker products.

    The leading singular triples of `Hhat`, by block power iteration.

    Args:
        samples: what `second_moment` accepts.
        rank: number of terms, at most `min(m, n)^2`.
        shape: `(m, n)`, with a dense `H` only.
        steps: steps of power iteration, at most where `tol` is given.
        tol: stop once the spans of the factors turn by no more than this in one step.

    Raises:
        ValueError: the samples have no form that `second_moment` knows, or `rank` is out of range.

    Source: Van Loan and Pitsianis 1993; Koroko et al. 2023.
    """
    moment = second_moment(samples, shape=shape)
    pairs = moment.power_iteration(steps=steps, tol=tol, rank=rank)
    return KroneckerSum(pairs.left, pairs.right, pairs.sigma)


@torch.no_grad()
def diagonal(
    samples: Samples,
    *,
    shape: tuple[int, int] | None = None,
    basis: KroneckerFactors | None = None,
) -> Diagonal:
    """`H ~ Q diag(E[(QLT G QR)^2]) QT`, the nearest matrix that is diagonal in `Q = QL (x) QR`.

    In the basis of the entries this is what Adam keeps. In the eigenbasis of a Kronecker product it
    is EKFAC's for `kfac` and SOAP's for `shampoo2`, and never farther from `H` than that product.

    Args:
        samples: what `second_moment` accepts.
        shape: `(m, n)`, with a dense `H` only.
        basis: the Kronecker product whose eigenvectors are `QL` and `QR`; None for the identities.

    Raises:
        ValueError: the samples have no form that `second_moment` knows.

    Source: George et al. 2018 (EKFAC); Vyas et al. 2024 (SOAP).
    """
    moment = second_moment(samples, shape=shape)
    if basis is None:
        return Diagonal(moment.squares())
    left, right = (torch.linalg.eigh(side.double())[1] for side in (basis.left, basis.right))
    left, right = left.to(moment.dtype), right.to(moment.dtype)
    return Diagonal(moment.squares(left, right), left, right)
