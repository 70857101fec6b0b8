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


@pytest.mark.parametrize("cuda", [False, True])
@pytest.mark.parametrize("precision", LEVELS)
def test_ops_read_the_precision_of_now(precision: str, cuda: bool) -> None:
    torch.set_float32_matmul_precision(precision)
    assert read(cuda) == LEVELS[precision]


@pytest.mark.parametrize(
    ("backend", "setting", "on_cpu", "on_cuda"),
    [
        ("cuda", "tf32", "highest", "high"),
        ("mkldnn", "tf32", "high", "highest"),
        ("mkldnn", "bf16", "medium", "highest"),
    ],
)
def test_where_torch_does_not_say_what_is_set_for_the_backend_holds(
    backend: str, setting: str, on_cpu: str, on_cuda: str
) -> None:
    getattr(torch.backends, backend).matmul.fp32_precision = setting
    with pytest.raises(RuntimeError):
        torch.get_float32_matmul_precision()
    assert read(False) == LEVELS[on_cpu]
    assert read(True) == LEVELS[on_cuda]


@pytest.mark.cpu
def test_the_cpu_rounds_no_products_but_those_of_outer_update_and_precondition() -> None:
    G, L, R = normal(3, 120, 130), symmetric(120, 120), symmetric(130, 130)

    def results() -> list[torch.Tensor]:
        others = *ops.power_iteration(G), *ops.eigh(L), ops.inverse_root(L, 4).root
        return [*ops.kron_matvec(G, L, R), *others]

    expected = results()
    torch.set_float32_matmul_precision("medium")
    for result, same in zip(results(), expected, strict=True):
        assert torch.equal(result, same)
