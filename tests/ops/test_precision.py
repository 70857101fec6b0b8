"""torch's float32 matmul precision: what the ops read of it, and what the CPU makes of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from helpers import normal, symmetric

from kronext import ops

LEVELS = {"highest": 0, "high": 1, "medium": 2}
read = torch.ops.kronext.float32_matmul_precision


@pytest.fixture(autouse=True)
def default_afterwards() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("precision", LEVELS)
def test_ops_read_the_precision_of_now(precision: str) -> None:
    torch.set_float32_matmul_precision(precision)
    assert read() == LEVELS[precision]


@pytest.mark.parametrize(("backend", "level"), [("cuda", "high"), ("mkldnn", "highest")])
def test_where_torch_does_not_say_what_is_set_for_cuda_holds(backend: str, level: str) -> None:
    getattr(torch.backends, backend).matmul.fp32_precision = "tf32"
    with pytest.raises(RuntimeError):
        torch.get_float32_matmul_precision()
    assert read() == LEVELS[level]


@pytest.mark.cpu
def test_the_cpu_makes_products_at_highest_whatever_is_allowed() -> None:
    G, L, R = normal(3, 17, 33), symmetric(17, 17), symmetric(33, 33)

    def results() -> list[torch.Tensor]:
        left, right = L.clone(), R.clone()
        ops.outer_update_(left, right, G[0], decay=0.5, weight=0.5)
        products = ops.precondition(G, L, R), *ops.kron_matvec(G, L, R)
        return [left, right, *products, *ops.power_iteration(G)]

    expected = results()
    torch.set_float32_matmul_precision("medium")
    for result, same in zip(results(), expected, strict=True):
        assert torch.equal(result, same)
