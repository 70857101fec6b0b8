"""Every op of `kronext.ops` in plain float64 torch: the tests' oracle and the reader's explanation.

`G` is the `m x n` gradient of a weight, `H = E[vec(G) vec(G)T]` the `mn x mn` matrix that a
preconditioner approximates, and `L (x) R` a Kronecker product with `L` `m x m` and `R` `n x n`.
Rows and columns of `H` are addressed by pairs, `H[(i,j),(i',j')] = E[G[i,j] G[i',j']]`, which is
`G.flatten()` in torch's row-major order.

Each function here is one formula. Nothing is written in place, inputs are on any one device and may
have leading batch dimensions, and every result is float64 on that device. Equations and sections
are those of Morwani et al., "A New Perspective on Shampoo's Preconditioner" (arXiv 2406.17748).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

Samples: TypeAlias = "Tensor | tuple[Tensor, Tensor]"
Matvec: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class KroneckerSum(NamedTuple):
    """`H ~ sum_k sigma_k left_k (x) right_k`, the leading `r` singular triples of `Hhat`.

    Attributes:
        left: `(..., r, m, m)`, each of Frobenius norm 1; the first is PSD and symmetric.
        right: `(..., r, n, n)`, likewise.
        sigma: `(..., r)`, not negative, descending once the iteration has converged.
        info: int32 `(...)`: 0 done, 1 the input had a NaN or Inf, 2 `tol` was not reached.
    """

    left: Tensor
    right: Tensor
    sigma: Tensor
    info: Tensor


def kron(left: Tensor, right: Tensor) -> Tensor:
    """`(A (x) B)[(i,j),(i',j')] = A[i,i'] B[j,j']`: `(..., m, m), (..., n, n) -> (..., mn, mn)`."""
    product = torch.einsum("...ik,...jl->...ijkl", left.double(), right.double())
    return _matrix(product)


def rearrange(H: Tensor, m: int, n: int) -> Tensor:
    """`Hhat[(i,i'),(j,j')] = H[(i,j),(i',j')]`: `(..., mn, mn) -> (..., m^2, n^2)`.

    `H = A (x) B` if and only if `Hhat = vec(A) vec(B)T`, so the Kronecker products nearest to `H`
    are the rank-one matrices nearest to `Hhat` (Lemma 4, Van Loan and Pitsianis 1993).
    """
    pairs = H.double().unflatten(-1, (m, n)).unflatten(-3, (m, n))
    return _matrix(pairs.transpose(-3, -2))


def rearrange_inverse(Hhat: Tensor, m: int, n: int) -> Tensor:
    """`H[(i,j),(i',j')] = Hhat[(i,i'),(j,j')]`: `(..., m^2, n^2) -> (..., mn, mn)`."""
    pairs = Hhat.double().unflatten(-1, (n, n)).unflatten(-3, (m, m))
    return _matrix(pairs.transpose(-3, -2))


def factored_gradients(D: Tensor, A: Tensor) -> Tensor:
    """`G_s = D_sT A_s`: `(..., S, T, m), (..., S, T, n) -> (..., S, m, n)`.

    The gradient of a linear layer's weight for an example with `T` positions, from the gradients
    `D` of the layer's outputs and its inputs `A`.
    """
    return D.double().mT @ A.double()


def second_moment(samples: Samples) -> Tensor:
    """`H = (1/S) sum_s vec(G_s) vec(G_s)T`: samples `(..., S, m, n) -> (..., mn, mn)`."""
    g = _gradients(samples).flatten(-2)
    return g.mT @ g / g.shape[-2]


def outer_update(
    L: Tensor | None, R: Tensor | None, G: Tensor, *, decay: float, weight: float
) -> tuple[Tensor | None, Tensor | None]:
    """`L <- decay L + weight G GT`, `R <- decay R + weight GT G`; a side that is None stays None.

    Sums (`decay = weight = 1`) are the Adagrad view of Section 2.1.1, exponential averages
    (`weight = 1 - decay`) the Hessian view of Section 2.1.2.
    """
    G = G.double()
    return (
        None if L is None else decay * L.double() + weight * (G @ G.mT),
        None if R is None else decay * R.double() + weight * (G.mT @ G),
    )


def eigh(A: Tensor) -> tuple[Tensor, Tensor]:
    """`A = Q diag(values) QT`, values ascending: `(..., n, n) -> (..., n), (..., n, n)`.

    A matrix with a NaN or Inf gives the identity's decomposition.
    """
    values, vectors = torch.linalg.eigh(_finite_or_identity(A))
    return values, vectors


def inverse_root(A: Tensor, root: float, *, eps: float = 0.0, relative_eps: float = 0.0) -> Tensor:
    """`X = Q diag((max(lambda, 0) + eps + relative_eps lambda_max)^(-1/root)) QT`.

    With no damping and a singular `A`, `X` is the root of the pseudo-inverse: eigenvalues at or
    below `k u lambda_max` count as zero, with `k = 4` and `u = 2^-24` for float32 `A`, and
    `k = max(4, n)` and `u = 2^-53` for float64, where the solver itself errs by as much. A zero
    matrix gives zero, and one with a NaN or Inf the identity.
    """
    values, vectors = eigh(A)
    values = values.clamp(min=0)
    largest = values[..., -1:]
    damping = eps + relative_eps * largest
    roundoffs = 4 if A.dtype == torch.float32 else max(4, A.shape[-1])
    cutoff = roundoffs * torch.finfo(A.dtype).eps / 2 * largest
    cutoff = torch.where(damping > 0, 0.0, cutoff)
    powers = torch.where(values + damping > cutoff, (values + damping) ** (-1 / root), 0.0)
    X = (vectors * powers.unsqueeze(-2)) @ vectors.mT
    finite = A.isfinite().all(-1).all(-1)[..., None, None]
    return torch.where(finite, (X + X.mT) / 2, _eye(A.shape[-1], A.device))


def precondition(G: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """`left G right`, where a side that is None stands for the identity."""
    G = G.double()
    if left is not None:
        G = left.double() @ G
    return G if right is None else G @ right.double()


def kron_matvec(
    G: Tensor, L: Tensor, R: Tensor, *, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`(mean_s G_s R G_sT, mean_s G_sT L G_s)`: `Hhat vec(R)` and `HhatT vec(L)` as matrices.

    Both products of one step of power iteration (eq. 4), without forming `H` or `Hhat`.

    Args:
        G: `(..., S, m, n)` samples of the gradient.
        L: `(..., m, m)`.
        R: `(..., n, n)`.
        weights: `(..., S)`; given, they stand in place of `1/S`: `sum_s weights_s G_s R G_sT`.
    """
    G, L, R = G.double(), L.double(), R.double()
    samples = G.shape[-3]
    if weights is None:
        weights = G.new_full((samples,), 1 / max(samples, 1))
    weighted = weights.double()[..., None, None] * G
    return (
        torch.einsum("...sij,...skj->...ik", weighted @ R.unsqueeze(-3), G),
        torch.einsum("...sji,...sjk->...ik", weighted, L.unsqueeze(-3) @ G),
    )


def kron_matvec_factored(
    D: Tensor, A: Tensor, L: Tensor, R: Tensor, *, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`kron_matvec` of `G_s = D_sT A_s`, for `D` `(..., S, T, m)` and `A` `(..., S, T, n)`.

    `G_s R G_sT = D_sT (A_s R A_sT) D_s` needs only `T x T` products where `T` is small; here the
    gradients are simply formed.
    """
    return kron_matvec(factored_gradients(D, A), L, R, weights=weights)


def rearranged_matvec(H: Tensor, L: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
    """`(Hhat vec(R), HhatT vec(L))` as matrices, for a dense `H` `(..., mn, mn)`."""
    m, n = L.shape[-1], R.shape[-1]
    Hhat = rearrange(H, m, n)
    left = Hhat @ R.double().flatten(-2).unsqueeze(-1)
    right = Hhat.mT @ L.double().flatten(-2).unsqueeze(-1)
    return left.squeeze(-1).unflatten(-1, (m, m)), right.squeeze(-1).unflatten(-1, (n, n))


def best_kronecker(H: Tensor, m: int, n: int, rank: int = 1) -> KroneckerSum:
    """The Kronecker sum nearest to `H` in Frobenius norm, by the SVD of `Hhat` (Corollary 1).

    The leading pair is PSD where `H` is (Lemma 5); its sign is chosen so that its trace is not
    negative.
    """
    U, sigma, Vh = torch.linalg.svd(rearrange(H, m, n), full_matrices=False)
    left = U.mT[..., :rank, :].unflatten(-1, (m, m))
    right = Vh[..., :rank, :].unflatten(-1, (n, n))
    sign = torch.where(_trace(right) < 0, -1.0, 1.0)[..., None, None]
    left, right = sign * left, sign * right
    return KroneckerSum(
        torch.cat([_symmetrised(left[..., :1, :, :]), left[..., 1:, :, :]], -3),
        torch.cat([_symmetrised(right[..., :1, :, :]), right[..., 1:, :, :]], -3),
        sigma[..., :rank],
        torch.zeros(H.shape[:-2], dtype=torch.int32, device=H.device),
    )


def power_iteration(
    samples: Samples,
    shape: tuple[int, int] | None = None,
    steps: int = 5,
    init: tuple[Tensor, Tensor] | None = None,
    tol: float | None = None,
    rank: int = 1,
) -> KroneckerSum:
    """`L_k = E[G R_{k-1} GT]`, `R_k = E[GT L_{k-1} G]` (eq. 3 and 4), each scaled to norm 1.

    Both sides come from the previous pair and start from the identity, where one step is the
    square of Shampoo's approximation (Proposition 1) and the paper's optimum is five steps.
    `sigma = <L, Hhat vec(R)>` is the best scale for the final pair. Further pairs come from the
    same iteration on what the earlier pairs leave of `Hhat`.

    Args:
        samples: gradients `(..., S, m, n)`, a factored pair `(D, A)`, or with `shape` a dense `H`.
        shape: `(m, n)` of a dense `H`.
        steps: how many steps, at most where `tol` is given.
        init: `(L_0, R_0)` of the first pair; the identity if None.
        tol: stop once neither side of a pair moves by more than this in one step.
        rank: how many pairs.
    """
    matvec, m, n, finite = _matvec_of(samples, shape)
    device = finite.device
    noise = torch.Generator().manual_seed(0)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    info = torch.where(finite, 0, 1).int()
    L, R = init or (_eye(m, device), _eye(n, device))
    for index in range(rank):
        L, R, sigma, converged = _leading_pair(matvec, L, R, pairs, steps, tol)
        if index == 0:
            L, R = _symmetrised(L), _symmetrised(R)
        pairs.append((L, R, torch.where(finite, sigma, 0.0)))
        info = torch.where((info == 0) & ~converged, 2, info).int()
        # Later pairs may be antisymmetric, so the next start must not be symmetric.
        L, R = (_normal(size, noise).to(device) for size in (m, n))
    lefts, rights, sigmas = zip(*pairs, strict=True)
    return KroneckerSum(
        torch.stack(lefts, -3), torch.stack(rights, -3), torch.stack(sigmas, -1), info
    )


def power_iteration_update(
    L: Tensor, R: Tensor, G: Tensor, *, decay: float, weight: float
) -> tuple[Tensor, Tensor]:
    """`L <- decay L + weight G R' GT`, `R <- decay R + weight GT L' G`: one online step of eq. 4.

    `L' = L / ||L||_F` and `R' = R / ||R||_F` are the factors before the update, and where a factor
    is still zero the identity of norm 1. The running averages then follow the optimal pair at the
    price of two more products a step than Shampoo's own update.
    """
    G = G.double()
    left, right = _direction(L.double()), _direction(R.double())
    return (
        decay * L.double() + weight * (G @ right @ G.mT),
        decay * R.double() + weight * (G.mT @ left @ G),
    )


def _leading_pair(
    matvec: Matvec,
    L: Tensor,
    R: Tensor,
    found: list[tuple[Tensor, Tensor, Tensor]],
    steps: int,
    tol: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Power iteration on `Hhat - sum_k sigma_k vec(L_k) vec(R_k)T` over the pairs found so far."""

    def deflated(L: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
        left, right = matvec(L, R)
        for U, V, sigma in found:
            left = left - (sigma * _inner(V, R))[..., None, None] * U
            right = right - (sigma * _inner(U, L))[..., None, None] * V
        return left, right

    L, R = _direction(L.double()), _direction(R.double())
    converged = torch.tensor(tol is None, device=L.device)
    for _ in range(steps):
        before = L, R
        L, R = (_direction(factor) for factor in deflated(L, R))
        if tol is not None:
            moved = torch.maximum(_norm(L - before[0]), _norm(R - before[1]))
            converged = moved <= tol
            if converged.all():
                break
    sigma = _inner(L, deflated(L, R)[0])
    # Singular values are not negative: the sign goes to one side.
    L = torch.where((sigma < 0)[..., None, None], -L, L)
    return L, R.expand(*sigma.shape, *R.shape[-2:]), sigma.abs(), converged.expand_as(sigma)


def _matvec_of(samples: Samples, shape: tuple[int, int] | None) -> tuple[Matvec, int, int, Tensor]:
    if isinstance(samples, Tensor) and shape is not None:
        H, (m, n) = samples, shape
        return lambda L, R: rearranged_matvec(H, L, R), m, n, H.isfinite().all(-1).all(-1)
    G = _gradients(samples)
    finite = G.isfinite().all(-1).all(-1).all(-1)
    return lambda L, R: kron_matvec(G, L, R), G.shape[-2], G.shape[-1], finite


def _gradients(samples: Samples) -> Tensor:
    return samples.double() if isinstance(samples, Tensor) else factored_gradients(*samples)


def _finite_or_identity(A: Tensor) -> Tensor:
    finite = A.isfinite().all(-1).all(-1)[..., None, None]
    return torch.where(finite, A.double(), _eye(A.shape[-1], A.device))


def _direction(A: Tensor) -> Tensor:
    """`A / ||A||_F`; the identity of norm 1 where `A` is zero or not finite."""
    norm = _norm(A)[..., None, None]
    eye = _eye(A.shape[-1], A.device) / max(A.shape[-1], 1) ** 0.5
    return torch.where((norm > 0) & norm.isfinite(), A / norm, eye)


def _eye(n: int, device: torch.device) -> Tensor:
    return torch.eye(n, dtype=torch.float64, device=device)


def _normal(n: int, generator: torch.Generator) -> Tensor:
    """On the CPU, so that every device starts from the same numbers."""
    return torch.randn(n, n, generator=generator, dtype=torch.float64, device="cpu")


def _matrix(pairs: Tensor) -> Tensor:
    """`(..., a, b, c, d) -> (..., ab, cd)`."""
    return pairs.flatten(-4, -3).flatten(-2, -1)


def _inner(A: Tensor, B: Tensor) -> Tensor:
    return (A * B).sum((-2, -1))


def _norm(A: Tensor) -> Tensor:
    return _inner(A, A).sqrt()


def _trace(A: Tensor) -> Tensor:
    return torch.einsum("...ii->...", A)


def _symmetrised(A: Tensor) -> Tensor:
    return (A + A.mT) / 2
