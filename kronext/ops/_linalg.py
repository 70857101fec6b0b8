"""Inverse roots by `torch.linalg.eigh`: what the CUDA ops leave to cuSOLVER.

The kernels of csrc/cuda take float32 matrices of up to 2048 rows. Larger ones and float64 come
here, whole batches at a time. It waits for the device and cannot be captured in a CUDA graph, and
says so in its tag.
"""

from __future__ import annotations

import torch
from torch import Tensor

NAME = "kronext::inverse_root_by_linalg"
_SCHEMA = (
    "(Tensor A, float root, float eps, float relative_eps, Tensor? kept) -> "
    "(Tensor root, Tensor vectors, Tensor values, Tensor info)"
)


def inverse_root_by_linalg(
    A: Tensor, root: float, eps: float, relative_eps: float, kept: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `kronext.ops.inverse_root` gives, on any device, computed in float64.

    Args:
        A: `(..., n, n)`, float32 or float64; only the lower triangle is read.
        root: The exponent is `-1/root`.
        eps: Added to the eigenvalues, which count as 0 where they are negative.
        relative_eps: Likewise, times the largest one.
        kept: Stands in for the roots of matrices that fail; the identity where it is None.
    """
    lower, identity = A.tril(), torch.eye(A.shape[-1], dtype=torch.float64, device=A.device)
    finite = lower.isfinite().flatten(-2).all(-1)
    wide = torch.where(finite[..., None, None], lower.double(), identity)
    values, vectors = torch.linalg.eigh(wide, UPLO="L")
    largest = values[..., -1:].clamp(min=0)
    damped = values.clamp(min=0) + eps + relative_eps * largest
    if eps == relative_eps == 0:
        roundoffs = 4 if A.dtype == torch.float32 else max(4, A.shape[-1])
        cutoff = roundoffs * torch.finfo(A.dtype).eps / 2 * largest
        damped = torch.where(values > cutoff, damped, 0.0)
    powers = torch.where(damped > 0, damped ** (-1 / root), 0.0)
    X = ((vectors * powers.unsqueeze(-2)) @ vectors.mT).tril()
    X = (X + X.tril(-1).mT).to(A.dtype)
    narrow = values.to(A.dtype)
    fits = X.isfinite().flatten(-2).all(-1) & narrow.isfinite().all(-1)
    info = torch.where(finite, torch.where(fits, 0, 2), 1).to(torch.int32)
    done = (info == 0)[..., None, None]
    eye = identity.to(A.dtype)
    return (
        torch.where(done, X, eye if kept is None else kept),
        torch.where(done, vectors.to(A.dtype), eye).contiguous(),
        torch.where(done.squeeze(-1), narrow, 1.0),
        info,
    )


def _like(
    A: Tensor, root: float, eps: float, relative_eps: float, kept: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    values = A.new_empty(A.shape[:-1])
    return A.new_empty(A.shape), A.new_empty(A.shape), values, values.new_empty(A.shape[:-2]).int()


torch.library.define(NAME, _SCHEMA, tags=(torch.Tag.cudagraph_unsafe,))
torch.library.impl(NAME, ("cpu", "cuda"), inverse_root_by_linalg)
torch.library.register_fake(NAME, _like)
