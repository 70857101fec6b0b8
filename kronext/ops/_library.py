"""Loads the compiled ops, and what every wrapper shares: checks, errors and calls."""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
FACTOR = (torch.float32, torch.float64)


_PACKAGE = Path(__file__).parents[1]


def _load_cpu(path: Path) -> None:
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        raise ImportError(
            f"kronext: the compiled ops must be built and fit this torch (got {error}); build them "
            "with: pip install --no-build-isolation ."
        ) from error


def _load_cuda() -> str:
    """Loads the ops on CUDA where torch has it; says why not, or nothing."""
    path = _PACKAGE / "_C_cuda.so"
    if not path.exists():
        return "this build has no CUDA module: it was made without nvcc, or with KRONEXT_CUDA=OFF"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        return f"the CUDA module does not load: {error.__cause__ or error}"
    return ""


_load_cpu(_PACKAGE / "_C_cpu.so")
WHY_NO_CUDA = _load_cuda()


def call(op: Callable[..., Any], check: Callable[..., object], *args: Any, **kwargs: Any) -> Any:
    """Calls a compiled op without recording a graph.

    The op checks its arguments before any write. When it refuses them, or while torch.compile
    traces, `check` says the same with a ValueError or a TypeError that names the argument.
    """
    if torch.compiler.is_compiling():
        check(*args, **kwargs)
        with torch.no_grad():
            return op(*args, **kwargs)
    try:
        with torch.no_grad():
            return op(*args, **kwargs)
    except RuntimeError as error:
        check(*args, **kwargs)
        if re.match(r"[a-z_]+: .*\(got ", str(error)):
            raise ValueError(str(error)) from None
        raise


def call_in_place(
    op: Callable[..., Any],
    check: Callable[..., object],
    written: Sequence[Tensor],
    *args: Any,
    **kwargs: Any,
) -> Any:
    """`call` for an op that writes to `written`: autograd then knows that saved values are gone."""
    result = call(op, check, *args, **kwargs)
    if not torch.compiler.is_compiling():
        try:
            torch.autograd.graph.increment_version(written)
        except RuntimeError:  # inference tensors have no version
            changed = [t for t in written if not t.is_inference()]
            torch.autograd.graph.increment_version(changed)
    return result


def refuse(op: str, expectation: str, **got: object) -> NoReturn:
    """Raises ValueError `op: expectation (got name=value)`."""
    raise ValueError(_message(op, expectation, got))


def refuse_type(op: str, expectation: str, **got: object) -> NoReturn:
    """Raises TypeError `op: expectation (got name=value)`."""
    raise TypeError(_message(op, expectation, got))


def _message(op: str, expectation: str, got: dict[str, object]) -> str:
    values = ", ".join(f"{name.replace('__', '.')}={value}" for name, value in got.items())
    return f"{op}: {expectation} (got {values})"


def check_matrices(
    op: str, name: str, tensor: object, dtypes: Sequence[torch.dtype] = FLOATING
) -> Tensor:
    """A floating tensor whose last two dimensions are matrices."""
    if not isinstance(tensor, Tensor):
        refuse_type(op, f"{name} must be a tensor", **{name: type(tensor).__name__})
    if tensor.layout != torch.strided:
        refuse_type(op, f"{name} must be dense", **{f"{name}__layout": tensor.layout})
    if tensor.dtype not in dtypes:
        wanted = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        refuse_type(op, f"{name} must have dtype {wanted}", **{f"{name}__dtype": tensor.dtype})
    if tensor.dim() < 2:
        expectation = f"{name} must have at least 2 dimensions"
        refuse(op, expectation, **{f"{name}__shape": tuple(tensor.shape)})
    return tensor


def check_square(
    op: str,
    name: str,
    tensor: object,
    size: int | None = None,
    dtypes: Sequence[torch.dtype] = FACTOR,
) -> Tensor:
    """A tensor of square matrices, of a given size where one is wanted."""
    matrix = check_matrices(op, name, tensor, dtypes)
    rows, columns = matrix.shape[-2:]
    if rows != columns or (size is not None and rows != size):
        wanted = "square" if size is None else f"{size} x {size}"
        refuse(op, f"{name} must be {wanted}", **{f"{name}__shape": tuple(matrix.shape)})
    return matrix


def check_dense(op: str, name: str, tensor: Tensor) -> None:
    """A buffer that is written in place: dense matrices, none on another's memory."""
    rows, columns = tensor.shape[-2:]
    row_stride, column_stride = tensor.stride()[-2:]
    dense = (columns <= 1 or column_stride == 1) and (rows <= 1 or row_stride == columns)
    if tensor.numel() and not dense:
        expectation = f"{name} must be dense in its last two dimensions"
        refuse(op, expectation, **{f"{name}__stride()": tensor.stride()})
    batch = zip(tensor.shape[:-2], tensor.stride()[:-2], strict=True)
    if any(size > 1 and stride == 0 for size, stride in batch):
        expectation = f"{name} must not be an expanded view, it is written in place"
        refuse(op, expectation, **{f"{name}__stride()": tensor.stride()})


def check_same_device(op: str, **tensors: Tensor | None) -> None:
    """Every tensor on one device."""
    devices = {name: t.device for name, t in tensors.items() if t is not None}
    if len(set(devices.values())) > 1:
        got = {f"{name}__device": device for name, device in devices.items()}
        refuse(op, "tensors must be on one device", **got)


def check_batch(op: str, **tensors: Tensor) -> torch.Size:
    """The broadcast of the leading batch dimensions."""
    try:
        return torch.Size(torch.broadcast_shapes(*(t.shape[:-2] for t in tensors.values())))
    except RuntimeError:
        got = {f"{name}__shape": tuple(t.shape) for name, t in tensors.items()}
        refuse(op, "batch dimensions must broadcast", **got)


def check_list(op: str, name: str, values: Sequence[Any] | None, reference: Sequence[Any]) -> None:
    """A list as long as the gradients that it belongs to, or None."""
    if values is not None and len(values) != len(reference):
        got = {f"len({name})": len(values), "len(Gs)": len(reference)}
        refuse(op, f"{name} must be as long as Gs", **got)


def scalars(value: float | Sequence[float]) -> list[float]:
    """One number for a whole list, or one for each entry, as the compiled list ops take them."""
    return list(value) if isinstance(value, Sequence) else [value]


def check_scalars(op: str, name: str, values: Sequence[float], reference: Sequence[Any]) -> None:
    """One finite number, or one for each entry of `reference`."""
    if len(values) not in (1, len(reference)):
        got = {f"len({name})": len(values), "len(Gs)": len(reference)}
        refuse(op, f"{name} must be one number, or one for each gradient", **got)
    for value in values:
        check_number(op, name, value)


def or_none(values: Sequence[Any] | None, reference: Sequence[Any]) -> Sequence[Any]:
    """`values`, or None for each entry where a side that no entry has came as an empty list."""
    return values or [None] * len(reference)


class Group(NamedTuple):
    """Entries of a list that have the same sides; a side that they lack is an empty list."""

    indices: Sequence[int]
    lefts: Sequence[Any]
    rights: Sequence[Any]
    Gs: Sequence[Tensor]


def group_by_side(
    lefts: Sequence[Tensor | None] | None,
    rights: Sequence[Tensor | None] | None,
    Gs: Sequence[Tensor],
) -> list[Group]:
    """Groups for compiled list ops that take a side for every entry or for none."""
    if not (_has_none(lefts) or _has_none(rights)):  # most lists: passed on as they are
        return [Group(range(len(Gs)), lefts or [], rights or [], Gs)] if Gs else []
    indices: dict[tuple[bool, bool], list[int]] = {}
    for i in range(len(Gs)):
        key = (
            lefts is not None and lefts[i] is not None,
            rights is not None and rights[i] is not None,
        )
        indices.setdefault(key, []).append(i)

    def pick(values: Sequence[Any] | None, of: list[int]) -> list[Tensor]:
        return [] if values is None or values[of[0]] is None else [values[i] for i in of]

    return [Group(of, pick(lefts, of), pick(rights, of), pick(Gs, of)) for of in indices.values()]


def _has_none(values: Sequence[Any] | None) -> bool:
    return values is not None and any(map(operator.is_, values, itertools.repeat(None)))


def check_number(op: str, name: str, value: object) -> None:
    """A finite Python number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        refuse_type(op, f"{name} must be a number", **{name: value})
    if value != value or value in (float("inf"), float("-inf")):
        refuse(op, f"{name} must be finite", **{name: value})
