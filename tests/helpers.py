"""What the op tests share: cases, oracles' distances, and the checks that every op must pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from shapes import SHAPES as SHAPES
from torch import Tensor

FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
FACTOR = (torch.float32, torch.float64)


def name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# ---- numbers: drawn on the CPU, so that every device gets the same -------------------------------


def draw_normal(
    generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64
) -> Tensor:
    numbers = torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu")
    return numbers.to(torch.get_default_device(), dtype)


def draw_integers(generator: torch.Generator, low: int, high: int, *shape: int) -> Tensor:
    numbers = torch.randint(low, high, shape, generator=generator, device="cpu")
    return numbers.to(torch.get_default_device())


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return draw_normal(torch.Generator().manual_seed(seed), *shape, dtype=dtype)


def integers(low: int, high: int, *shape: int, seed: int = 0) -> Tensor:
    return draw_integers(torch.Generator().manual_seed(seed), low, high, *shape)


def device_generator(seed: int = 0) -> torch.Generator:
    """For what draws on the device."""
    return torch.Generator(torch.get_default_device()).manual_seed(seed)


# ---- matrices ------------------------------------------------------------------------------------


def sliced(tensor: Tensor) -> Tensor:
    """The same values as a strided view into a larger buffer full of NaN."""
    if tensor.dim() < 2:
        return tensor
    *batch, rows, columns = tensor.shape
    buffer = tensor.new_full((*batch, rows + 3, 2 * columns + 5), float("nan"))
    view = buffer[..., 2 : rows + 2, 1 : 2 * columns + 1 : 2]
    view.copy_(tensor)
    return view


def transposed_memory(tensor: Tensor) -> Tensor:
    """The same values with the memory order of the last two dimensions exchanged."""
    return tensor.mT.contiguous().mT


def symmetric(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    x = normal(*shape, dtype=torch.float64, seed=seed)
    return (x @ x.mT / max(1, shape[-1])).to(dtype)


def with_condition(
    n: int,
    condition: float,
    *,
    batch: Sequence[int] = (),
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Tensor:
    """Symmetric positive definite matrices with a log-uniform spectrum from 1 to 1/condition."""
    q, _ = torch.linalg.qr(normal(*batch, n, n, dtype=torch.float64, seed=seed))
    values = torch.logspace(0, -torch.tensor(condition).log10().item(), n, dtype=torch.float64)
    a = (q * values) @ q.mT
    return ((a + a.mT) / 2).to(dtype)


def relative_error(result: Tensor, oracle: Tensor) -> float:
    """Frobenius, against float64."""
    oracle = oracle.double()
    if oracle.numel() == 0:
        return 0.0
    difference = torch.linalg.vector_norm(result.double() - oracle).item()
    norm = torch.linalg.vector_norm(oracle).item()
    return difference / norm if norm else difference


def assert_accurate(result: Tensor, oracle: Tensor, plain: Tensor, what: str = "result") -> None:
    """At most twice the error of the same computation in plain torch, plus a rounding floor."""
    assert result.shape == oracle.shape, f"{what}: shape {result.shape}, expected {oracle.shape}"
    unit = torch.finfo(result.dtype).eps
    # float64 results are held against an oracle that rounds as they do.
    bound = 2 * relative_error(plain, oracle) + (4 if result.dtype == torch.float64 else 1) * unit
    error = relative_error(result, oracle)
    assert error <= bound, f"{what}: relative error {error:.2e} > {bound:.2e}"


def assert_symmetric(matrix: Tensor, what: str = "result") -> None:
    """Symmetric bit for bit."""
    assert torch.equal(matrix, matrix.mT), f"{what} is not symmetric bit for bit"


def assert_autograd_notices(write: Callable[[Tensor], Any], tensor: Tensor) -> None:
    """An op that writes in place must invalidate what autograd saved."""
    x = torch.ones_like(tensor, requires_grad=True)
    saved = (x * tensor).sum()
    write(tensor)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        saved.backward()


def assert_refused(
    call: Callable[[], Any], error: type[Exception], message: str, untouched: Sequence[Tensor] = ()
) -> None:
    """The call raises `error` with `message` in it, and writes nothing."""
    before = [t.clone() for t in untouched]
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value), f"{message!r} is not in {str(caught.value)!r}"
    assert "(got " in str(caught.value), f"{str(caught.value)!r} does not say what it got"
    for old, now in zip(before, untouched, strict=True):
        assert torch.equal(old, now), "a refused call has written to its arguments"
