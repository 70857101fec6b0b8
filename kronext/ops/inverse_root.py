"""Eigendecompositions and inverse roots of symmetric matrices, batched and ragged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from kronext.ops import _library as lib


class Eigh(NamedTuple):
    """`A = vectors diag(values) vectorsT`, `values` ascending; `info` 0 where it holds."""

    values: Tensor
    vectors: Tensor
    info: Tensor


class InverseRoot(NamedTuple):
    """`root = basis diag(f(values)) basisT`; `info` 0 where it holds."""

    root: Tensor
    basis: Tensor
    values: Tensor
    info: Tensor


class InverseRootList(NamedTuple):
    """`InverseRoot` of a ragged list; `info` holds one entry a matrix, in the order of the list."""

    root: list[Tensor]
    basis: list[Tensor]
    values: list[Tensor]
    info: Tensor


# What float32 matrices are decomposed in.
Precision = Literal["mixed", "float32"]


def eigh(A: Tensor, *, basis: Tensor | None = None, precision: Precision = "mixed") -> Eigh:
    """`A = Q diag(values) QT` for symmetric `A`, eigenvalues ascending.

    float32 matrices are decomposed in mixed precision: what determines rotations and eigenvalues is
    carried in float64, what they are applied to in float32. On CUDA, float64 matrices and those of
    more than 2048 rows go through `torch.linalg.eigh`, which waits for the device and cannot be
    captured in a CUDA graph.

    Args:
        A: Shape `(..., n, n)`, float32 or float64; only the lower triangle is read.
        basis: Eigenvectors of a nearby matrix, the shape and dtype of `A`. A warm start: it may
            change the cost, never the result's accuracy, and is dropped where it is of no use. On
            the CPU that is everywhere: starting anew takes less time (`docs/numerics.md`).
        precision: Of float32 matrices. "mixed", or "float32": faster on the CPU, and as accurate as
            `torch.linalg.eigh` of float32. float64 matrices, and those on CUDA, are decomposed as
            without it.

    Returns:
        `Eigh(values (..., n), vectors (..., n, n) in columns, info (...) int32)`. `info` is 0 where
        the decomposition is done, 1 where `A` held a NaN or an infinity, 2 where no solver
        converged or a result does not fit the dtype; where it is not 0, values are 1 and vectors
        the identity. The op never reads it.

    Raises:
        ValueError: A shape or device does not fit.
        TypeError: A dtype or an argument type does not fit.

    Source: `docs/numerics.md`.
    """
    return Eigh(*lib.call(_eigh, _check_eigh, A, basis=basis, precision=precision))


def inverse_root(
    A: Tensor,
    root: float,
    *,
    eps: float = 0.0,
    relative_eps: float = 0.0,
    basis: Tensor | None = None,
    precision: Precision = "mixed",
) -> InverseRoot:
    """`A^(-1/root) = Q diag((max(values, 0) + eps + relative_eps max(values))^(-1/root)) QT`.

    Without damping, eigenvalues at or below `4 2^-24 max(values)` (float32; `max(4, n) 2^-53
    max(values)` for float64) count as 0 and the result is the root of the pseudo-inverse; a zero
    matrix gives zero. For float32 the result is within 1e-5 of the float64 root of the same matrix
    at condition 1e6. On CUDA, what `eigh` says of float64 and of large matrices holds here too.

    Args:
        A: Positive semi-definite, shape `(..., n, n)`, float32 or float64; only the lower triangle
            is read.
        root: Any number above 0; 4 gives `A^(-1/4)`.
        eps: Damping in the units of `A`, at least 0.
        relative_eps: Damping in units of the largest eigenvalue, at least 0.
        basis: A warm start, see `eigh`.
        precision: See `eigh`. With "float32" the error is about 5e-5 at condition 1e4 and 5e-3 at
            1e6 (at worst ten times that), damping included: enough with a `relative_eps` of 1e-3.

    Returns:
        `InverseRoot(root (..., n, n), basis (..., n, n), values (..., n), info (...) int32)`: the
        root, symmetric bit for bit, the undamped eigenvectors and eigenvalues, and the status as in
        `eigh`; where it is not 0, the root is the identity.

    Raises:
        ValueError: A shape, device or number does not fit.
        TypeError: A dtype or an argument type does not fit.

    Source: arXiv 2406.17748, Section 2 (`L^(-1/4) G R^(-1/4)` and its square).
    """
    options: dict[str, Any] = {"eps": eps, "relative_eps": relative_eps, "precision": precision}
    return InverseRoot(*lib.call(_root, _check_root, A, root, basis=basis, **options))


def inverse_root_list(
    As: Sequence[Tensor],
    root: float,
    *,
    eps: float = 0.0,
    relative_eps: float = 0.0,
    bases: Sequence[Tensor] | None = None,
    precision: Precision = "mixed",
) -> InverseRootList:
    """`A^(-1/root)` of a ragged list, in one call; see `inverse_root`.

    Args:
        As: Matrices of any sizes, each with batch dimensions of its own.
        root: Any number above 0.
        eps: Damping in the units of the matrices, at least 0.
        relative_eps: Damping in units of each largest eigenvalue, at least 0.
        bases: One warm start for each matrix, or None.
        precision: See `inverse_root`.

    Returns:
        `InverseRootList(root, basis, values, info)`: lists of tensors, and one int32 entry a
        matrix.

    Raises:
        ValueError: A shape, device, length or number does not fit.
        TypeError: A dtype or an argument type does not fit.
    """
    options: dict[str, Any] = {"eps": eps, "relative_eps": relative_eps, "precision": precision}
    options["bases"] = bases or []
    if not As:  # a compiled op finds its device by its tensors
        return InverseRootList(*_check_root_list(As, root, **options))
    return InverseRootList(*lib.call(_list, _check_root_list, As, root, **options))


def inverse_root_(
    out: Tensor,
    A: Tensor,
    root: float,
    *,
    eps: float = 0.0,
    relative_eps: float = 0.0,
    basis: Tensor | None = None,
    precision: Precision = "mixed",
) -> Tensor:
    """`out <- A^(-1/root)` where it succeeds; `out` keeps its old value where `info` is not 0.

    Args:
        out: The shape, dtype and device of `A`, dense in its last two dimensions, no two of its
            matrices on the same memory.
        A: See `inverse_root`.
        root: Any number above 0.
        eps: Damping in the units of `A`, at least 0.
        relative_eps: Damping in units of the largest eigenvalue, at least 0.
        basis: A warm start, see `eigh`.
        precision: See `inverse_root`.

    Returns:
        `info`, shape `(...)`, int32.

    Raises:
        ValueError: A shape, stride, device or number does not fit.
        TypeError: A dtype or an argument type does not fit.
    """
    options: dict[str, Any] = {"eps": eps, "relative_eps": relative_eps, "precision": precision}
    options["basis"] = basis
    info: Tensor = lib.call_in_place(_root_, _check_root_, (out,), out, A, root, **options)
    return info


def inverse_root_list_(
    outs: Sequence[Tensor],
    As: Sequence[Tensor],
    root: float,
    *,
    eps: float = 0.0,
    relative_eps: float = 0.0,
    bases: Sequence[Tensor] | None = None,
    precision: Precision = "mixed",
) -> Tensor:
    """`out <- A^(-1/root)` for a ragged list, in one call; failed ones keep their old value.

    Args:
        outs: One output for each matrix, see `inverse_root_`; none on the memory of another.
        As: Matrices of any sizes.
        root: Any number above 0.
        eps: Damping in the units of the matrices, at least 0.
        relative_eps: Damping in units of each largest eigenvalue, at least 0.
        bases: One warm start for each matrix, or None.
        precision: See `inverse_root`.

    Returns:
        `info`, one int32 entry a matrix, in the order of the list.

    Raises:
        ValueError: A shape, stride, device, length or number does not fit.
        TypeError: A dtype or an argument type does not fit.
    """
    options: dict[str, Any] = {"eps": eps, "relative_eps": relative_eps, "precision": precision}
    options["bases"] = bases or []
    if not As:
        return _check_root_list_(outs, As, root, **options)
    info: Tensor = lib.call_in_place(_list_, _check_root_list_, outs, outs, As, root, **options)
    return info


# ---- checks, which are the fake kernels too ------------------------------------------------------


def _check_input(op: str, A: Tensor, basis: Tensor | None) -> None:
    lib.check_square(op, "A", A)
    if basis is not None:
        _check_alike(op, "basis", lib.check_square(op, "basis", basis), A)


def _check_alike(op: str, name: str, tensor: Tensor, A: Tensor) -> None:
    lib.check_same_device(op, A=A, **{name: tensor})
    if tensor.dtype != A.dtype:
        dtypes = {f"{name}__dtype": tensor.dtype, "A__dtype": A.dtype}
        lib.refuse_type(op, f"{name} must have the dtype of A", **dtypes)
    if tensor.shape != A.shape:
        shapes = {f"{name}__shape": tuple(tensor.shape), "A__shape": tuple(A.shape)}
        lib.refuse(op, f"{name} must have the shape of A", **shapes)


def _check_numbers(op: str, root: float, eps: float, relative_eps: float) -> None:
    for name, value in (("root", root), ("eps", eps), ("relative_eps", relative_eps)):
        lib.check_number(op, name, value)
    if root <= 0:
        lib.refuse(op, "root must be a number above 0", root=root)
    if eps < 0:
        lib.refuse(op, "eps must be at least 0", eps=eps)
    if relative_eps < 0:
        lib.refuse(op, "relative_eps must be at least 0", relative_eps=relative_eps)


def _info(A: Tensor, shape: Sequence[int]) -> Tensor:
    return A.new_empty(shape, dtype=torch.int32)


def _dense(A: Tensor) -> Tensor:
    return A.new_empty(A.shape)


def _check_precision(op: str, precision: object) -> None:
    if not isinstance(precision, str):
        lib.refuse_type(op, "precision must be a string", precision=precision)
    if precision not in get_args(Precision):
        lib.refuse(op, "precision must be 'mixed' or 'float32'", precision=precision)


def _check_eigh(
    A: Tensor, *, basis: Tensor | None = None, precision: str = "mixed"
) -> tuple[Tensor, Tensor, Tensor]:
    _check_precision("eigh", precision)
    _check_input("eigh", A, basis)
    return A.new_empty(A.shape[:-1]), _dense(A), _info(A, A.shape[:-2])


def _check_root(
    A: Tensor,
    root: float,
    *,
    eps: float = 0.0,
    relative_eps: float = 0.0,
    basis: Tensor | None = None,
    precision: str = "mixed",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _check_input("inverse_root", A, basis)
    _check_numbers("inverse_root", root, eps, relative_eps)
    _check_precision("inverse_root", precision)
    return _dense(A), _dense(A), A.new_empty(A.shape[:-1]), _info(A, A.shape[:-2])


def _check_inputs(op: str, As: Sequence[Tensor], bases: Sequence[Tensor]) -> int:
    """Checks a list and counts its matrices."""
    if bases and len(bases) != len(As):
        expectation = "bases must be as long as As"
        lib.refuse(op, expectation, **{"len(bases)": len(bases), "len(As)": len(As)})
    for A, basis in zip(As, lib.or_none(bases, As), strict=True):
        _check_input(op, A, basis)
    return sum(A.shape[:-2].numel() for A in As)


def _check_root_list(
    As: Sequence[Tensor],
    root: float,
    *,
    bases: Sequence[Tensor],
    eps: float = 0.0,
    relative_eps: float = 0.0,
    precision: str = "mixed",
) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor]:
    _check_numbers("inverse_root_list", root, eps, relative_eps)
    _check_precision("inverse_root_list", precision)
    count = _check_inputs("inverse_root_list", As, bases)
    values = [A.new_empty(A.shape[:-1]) for A in As]
    info = torch.empty(count, dtype=torch.int32, device=As[0].device if As else None)
    return [_dense(A) for A in As], [_dense(A) for A in As], values, info


def _check_out(op: str, out: Tensor, A: Tensor) -> None:
    _check_alike(op, "out", lib.check_square(op, "out", out), A)
    lib.check_dense(op, "out", out)


def _check_root_(
    out: Tensor,
    A: Tensor,
    root: float,
    *,
    eps: float = 0.0,
    relative_eps: float = 0.0,
    basis: Tensor | None = None,
    precision: str = "mixed",
) -> Tensor:
    _check_input("inverse_root_", A, basis)
    _check_numbers("inverse_root_", root, eps, relative_eps)
    _check_precision("inverse_root_", precision)
    _check_out("inverse_root_", out, A)
    return _info(A, A.shape[:-2])


def _check_root_list_(
    outs: Sequence[Tensor],
    As: Sequence[Tensor],
    root: float,
    *,
    bases: Sequence[Tensor],
    eps: float = 0.0,
    relative_eps: float = 0.0,
    precision: str = "mixed",
) -> Tensor:
    op = "inverse_root_list_"
    _check_numbers(op, root, eps, relative_eps)
    _check_precision(op, precision)
    if len(outs) != len(As):
        got = {"len(outs)": len(outs), "len(As)": len(As)}
        lib.refuse(op, "outs must be as long as As", **got)
    count = _check_inputs(op, As, bases)
    for out, A in zip(outs, As, strict=True):
        _check_out(op, out, A)
    return torch.empty(count, dtype=torch.int32, device=As[0].device if As else None)


_eigh = torch.ops.kronext.eigh.default
_root = torch.ops.kronext.inverse_root.default
_list = torch.ops.kronext.inverse_root_list.default
_root_ = torch.ops.kronext.inverse_root_.default
_list_ = torch.ops.kronext.inverse_root_list_.default
torch.library.register_fake("kronext::eigh", _check_eigh)
torch.library.register_fake("kronext::inverse_root", _check_root)
torch.library.register_fake("kronext::inverse_root_list", _check_root_list)
torch.library.register_fake("kronext::inverse_root_", _check_root_)
torch.library.register_fake("kronext::inverse_root_list_", _check_root_list_)
