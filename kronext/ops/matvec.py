"""Products with the rearranged matrix of `H = E[vec(G) vec(G)T]`, from samples or a dense `H`.

`Hhat[(i,i'),(j,j')] = H[(i,j),(i',j')]` is `m^2 x n^2`, and `H ~ L (x) R` the same as
`Hhat ~ vec(L) vec(R)T`. Its products are matrices again, `Hhat vec(R) = vec(E[G R GT])`, and need
neither `H` nor `Hhat`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kronext.ops import _library as lib


def kron_matvec(
    G: Tensor, L: Tensor, R: Tensor, *, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`(mean_s G_s R G_sT, mean_s G_sT L G_s)`: `Hhat vec(R)` and `HhatT vec(L)` from samples.

    One pass over the samples makes both. Where `R` (`L`) is symmetric bit for bit half of the left
    (right) result is computed and the other half is its mirror; where it is a multiple of the
    identity, the product with it costs nothing. The workspace is the packed `L` and `R` and, for
    each thread, about 1 MB of packed samples and float64 sums of both results; where a single
    sample is work for all threads, they share one. On CUDA it is about 64 MB, and those sums.

    On CUDA the precision of float32 products is `torch.get_float32_matmul_precision()` when the op
    runs; on the CPU it is always "highest".

    Args:
        G: Samples `(..., S, m, n)`, float64, float32, bfloat16 or float16, any strides. 16-bit
            values are multiplied exactly and accumulated in float32; sums over samples are float64.
        L: `(..., m, m)`, float32 or float64, need not be symmetric.
        R: `(..., n, n)`, likewise, of the dtype of `L`. All batch dimensions broadcast; an expanded
            `G` is never copied.
        weights: `(..., S)`, float32 or float64; given, they stand in place of `1/S`:
            `sum_s weights_s G_s R G_sT`.

    Returns:
        New tensors `(..., m, m)` and `(..., n, n)`, float64 where `G`, `L` or `R` is, else float32.
        Without samples they are zero.

    Raises:
        ValueError: A shape or device does not fit.
        TypeError: A dtype or an argument type does not fit.

    Source: arXiv 2406.17748, eq. 3 and 4.
    """
    left, right = lib.call(_kron_matvec, _check_matvec, G, L, R, weights=weights)
    return left, right


def kron_matvec_factored(
    D: Tensor, A: Tensor, L: Tensor, R: Tensor, *, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`(mean_s G_s R G_sT, mean_s G_sT L G_s)` for `G_s = D_sT A_s`.

    `G_s R G_sT = D_sT (A_s R A_sT) D_s`: with few positions `T` no `G_s` is ever formed. Whether
    that or forming them takes fewer operations is decided from the sizes, call by call.

    Args:
        D: `(..., S, T, m)`, float64, float32, bfloat16 or float16, any strides: the gradients of a
            linear layer's outputs at `T` positions.
        A: `(..., S, T, n)`, of the dtype of `D`: the layer's inputs.
        L: `(..., m, m)`, see `kron_matvec`.
        R: `(..., n, n)`, likewise.
        weights: `(..., S)`, likewise.

    Returns:
        See `kron_matvec`.

    Raises:
        ValueError: A shape or device does not fit.
        TypeError: A dtype or an argument type does not fit.

    Source: arXiv 2406.17748, eq. 3 and 4, for the gradient of a linear layer.
    """
    left, right = lib.call(_kron_matvec_factored, _check_factored, D, A, L, R, weights=weights)
    return left, right


def rearranged_matvec(H: Tensor, L: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
    """`(Hhat vec(R), HhatT vec(L))` as matrices, in one pass over a dense `H`.

    With `H4 = H.view(m, n, m, n)`: `left[i,i'] = sum_jj' H4[i,j,i',j'] R[j,j']` and
    `right[j,j'] = sum_ii' H4[i,j,i',j'] L[i,i']`. Where `R` (`L`) is symmetric bit for bit, so is
    the left (right) result: its symmetric part is returned, and only the symmetric part of `H`
    counts.

    Args:
        H: `(..., mn, mn)`, float64, float32, bfloat16 or float16; rows next to each other in memory
            are read fastest.
        L: `(..., m, m)`, float32 or float64.
        R: `(..., n, n)`, of the dtype of `L`. All batch dimensions broadcast.

    Returns:
        New tensors `(..., m, m)` and `(..., n, n)`, float64 where an argument is, else float32.

    Raises:
        ValueError: A shape or device does not fit.
        TypeError: A dtype or an argument type does not fit.

    Source: Van Loan and Pitsianis 1993; arXiv 2406.17748, Section 2.1 and eq. 3.
    """
    left, right = lib.call(_rearranged_matvec, _check_rearranged, H, L, R)
    return left, right


def check_samples(op: str, G: object, name: str = "G") -> tuple[torch.Size, int, int]:
    """Samples `(..., S, m, n)`: their batch dimensions, `m` and `n`."""
    tensor = lib.check_matrices(op, name, G)
    if tensor.dim() < 3:
        expectation = f"{name} must have at least 3 dimensions"
        lib.refuse(op, expectation, **{f"{name}__shape": tuple(tensor.shape)})
    return tensor.shape[:-3], tensor.shape[-2], tensor.shape[-1]


def check_factors(op: str, D: Tensor, A: Tensor) -> tuple[torch.Size, int, int]:
    """Factored samples: their batch dimensions, `m` and `n`."""
    d_batch, _, m = check_samples(op, D, "D")
    a_batch, _, n = check_samples(op, A, "A")
    if D.dtype != A.dtype:
        lib.refuse_type(op, "D and A must have one dtype", D__dtype=D.dtype, A__dtype=A.dtype)
    lib.check_same_device(op, D=D, A=A)
    shapes = {"D__shape": tuple(D.shape), "A__shape": tuple(A.shape)}
    if D.shape[-3:-1] != A.shape[-3:-1]:
        lib.refuse(op, "D and A must have the same samples and positions", **shapes)
    return broadcast(op, shapes, d_batch, a_batch), m, n


def check_dense_h(op: str, H: object, m: int, n: int) -> torch.Size:
    """A dense `H` `(..., mn, mn)`: its batch dimensions."""
    dense = lib.check_matrices(op, "H", H)
    if tuple(dense.shape[-2:]) != (m * n, m * n):
        lib.refuse(op, f"H must be {m * n} x {m * n}", H__shape=tuple(dense.shape))
    return dense.shape[:-2]


def broadcast(op: str, shapes: Mapping[str, object], *batches: torch.Size) -> torch.Size:
    """The broadcast of batch dimensions; the shapes are for the message."""
    try:
        shape: torch.Size = torch.broadcast_shapes(*batches)
        return shape
    except RuntimeError:
        lib.refuse(op, "batch dimensions must broadcast", **shapes)


def _results(
    op: str,
    like: Tensor,
    batch: torch.Size,
    L: Tensor,
    m: int,
    R: Tensor,
    n: int,
    weights: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Checks what multiplies the samples, and makes tensors like both products."""
    lib.check_square(op, "L", L, m)
    lib.check_square(op, "R", R, n)
    if L.dtype != R.dtype:
        lib.refuse_type(op, "L and R must have one dtype", L__dtype=L.dtype, R__dtype=R.dtype)
    lib.check_same_device(op, samples=like, L=L, R=R, weights=weights)
    given = {"samples": like, "L": L, "R": R}
    batches = [batch, L.shape[:-2], R.shape[:-2]]
    if weights is not None:
        count = like.shape[-3]
        if not isinstance(weights, Tensor) or weights.dtype not in lib.FACTOR:
            kind = weights.dtype if isinstance(weights, Tensor) else type(weights).__name__
            lib.refuse_type(op, "weights must be a float32 or float64 tensor", weights=kind)
        if weights.dim() < 1 or weights.shape[-1] != count:
            got = {"weights__shape": tuple(weights.shape)}
            lib.refuse(op, f"weights must have shape (..., {count})", **got)
        batches.append(weights.shape[:-1])
        given["weights"] = weights
    out = broadcast(op, {f"{name}__shape": tuple(t.shape) for name, t in given.items()}, *batches)
    dtype = torch.float64 if torch.float64 in (like.dtype, L.dtype) else torch.float32
    return like.new_empty((*out, m, m), dtype=dtype), like.new_empty((*out, n, n), dtype=dtype)


def _check_matvec(
    G: Tensor, L: Tensor, R: Tensor, *, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    batch, m, n = check_samples("kron_matvec", G)
    return _results("kron_matvec", G, batch, L, m, R, n, weights)


def _check_factored(
    D: Tensor, A: Tensor, L: Tensor, R: Tensor, *, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    batch, m, n = check_factors("kron_matvec_factored", D, A)
    return _results("kron_matvec_factored", D, batch, L, m, R, n, weights)


def _check_rearranged(H: Tensor, L: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
    op = "rearranged_matvec"
    m = lib.check_square(op, "L", L).shape[-1]
    n = lib.check_square(op, "R", R).shape[-1]
    return _results(op, H, check_dense_h(op, H, m, n), L, m, R, n, None)


_kron_matvec = torch.ops.kronext.kron_matvec.default
_kron_matvec_factored = torch.ops.kronext.kron_matvec_factored.default
_rearranged_matvec = torch.ops.kronext.rearranged_matvec.default
torch.library.register_fake("kronext::kron_matvec", _check_matvec)
torch.library.register_fake("kronext::kron_matvec_factored", _check_factored)
torch.library.register_fake("kronext::rearranged_matvec", _check_rearranged)
