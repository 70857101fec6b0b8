"""The norms that optimizers take of lists: any shape, stride and dtype, summed in float64."""

from __future__ import annotations

import pytest
import torch
from helpers import normal
from torch import Tensor

from kronext.ops._norms import norms

# Vectors and rests of vectors, empty, 0-D, and one that several threads share.
SHAPES = [(), (0, 3), (1,), (7,), (33, 5), (4, 3, 2, 5), (300, 500)]


def exact(tensors: list[Tensor]) -> Tensor:
    return torch.stack([tensor.double().square().sum().sqrt() for tensor in tensors])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_norms_of_every_dtype(dtype: torch.dtype) -> None:
    tensors = [normal(1, *shape, seed=k)[0].to(dtype) for k, shape in enumerate(SHAPES)]
    result = norms(tensors)
    wide = dtype == torch.float64
    assert result.dtype == (torch.float64 if wide else torch.float32)
    torch.testing.assert_close(
        result.double(), exact(tensors), rtol=1e-14 if wide else 3e-7, atol=0
    )


def test_strides() -> None:
    x = normal(6, 8, 4, 4, seed=1)
    views = [
        x.to(memory_format=torch.channels_last),
        x.transpose(0, 3),
        x[:, ::2],
        x[0, 0].t(),
        x[:1, :1].expand(3, 5, 4, 4),
        x[:, 1:2],
    ]
    torch.testing.assert_close(norms(views).double(), exact(views), rtol=3e-7, atol=0)


@pytest.mark.cpu
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_squares_outside_float32_do_not_matter(scale: float) -> None:
    x = normal(50, 40, seed=2) * scale
    torch.testing.assert_close(norms([x]).double(), exact([x]), rtol=3e-7, atol=0)


def test_what_is_not_finite_shows() -> None:
    x = normal(9, 9, seed=3)
    infinite, undefined = x.clone(), x.clone()
    infinite[4, 4] = torch.inf
    undefined[8, 8] = torch.nan
    result = norms([infinite, undefined, x])
    assert result[0] == torch.inf
    assert result[1].isnan()
    assert result[2].isfinite()


@pytest.mark.cpu
def test_any_number_of_threads_gives_the_same_bits() -> None:
    tensors = [normal(700, 900, seed=4), normal(31, 17, seed=5)]
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            results.append(norms(tensors))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.cpu
def test_refusals() -> None:
    with pytest.raises(RuntimeError, match="norms: a tensor must be float64, float32"):
        norms([torch.ones(2, dtype=torch.int32)])
