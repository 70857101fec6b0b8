"""A step is a handful of list calls, however many parameters there are."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from allocations import peak_bytes
from helpers import normal
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from kronext.optim import Preconditioned, Shampoo, lists

OPTIONS: dict[str, Any] = {"start_step": 1, "update_interval": 1}
MAKERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "base": lambda params, **o: Preconditioned(
        torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.1, foreach=True),
        **{**OPTIONS, **o},
    ),
    "grad": lambda params, **o: Preconditioned(
        torch.optim.SGD(params, lr=0.1, foreach=True), graft="grad", **{**OPTIONS, **o}
    ),
    "optimal": lambda params, **o: Preconditioned(
        torch.optim.SGD(params, lr=0.1, foreach=True),
        graft=None,
        estimator="optimal",
        **{**OPTIONS, **o},
    ),
    "Shampoo adam": lambda params, **o: Shampoo(params, **{**OPTIONS, **o}),
    "Shampoo adagrad": lambda params, **o: Shampoo(params, graft="adagrad", **{**OPTIONS, **o}),
    "Shampoo grad": lambda params, **o: Shampoo(params, graft="grad", **{**OPTIONS, **o}),
}


class OpCounter(TorchDispatchMode):
    """Counts ops by name, but for those that only make views."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        returns = func._schema.returns
        is_view = bool(returns) and all(
            value.alias_info is not None and not value.alias_info.is_write for value in returns
        )
        if not is_view:
            self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))


def calls_of_a_step(make: str, count: int, dtype: torch.dtype, block_size: int) -> Counter[str]:
    params = [nn.Parameter(normal(5 + k % 3, 7, seed=k, dtype=dtype)) for k in range(count)]
    params += [nn.Parameter(normal(4, seed=k, dtype=dtype)) for k in range(count)]
    optimizer = MAKERS[make](params, block_size=block_size)
    counter = OpCounter()
    for seed in range(2):
        for parameter in params:
            parameter.grad = normal(*parameter.shape, seed=seed, dtype=dtype)
        if seed == 0:
            optimizer.step()
    with counter:
        optimizer.step()
    return counter.calls


def calls_of_matrix_ops(calls: Counter[str]) -> int:
    """Outer products, roots and products; norms are taken for each count of steps."""
    assert calls["kronext.norms.default"] >= 1, "this name is not that of the op"
    ours = {name: count for name, count in calls.items() if name.startswith("kronext.")}
    return sum(ours.values()) - ours["kronext.norms.default"]


@pytest.mark.parametrize("block_size", [1024, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", MAKERS)
def test_calls_do_not_grow_with_the_parameters(
    make: str, dtype: torch.dtype, block_size: int
) -> None:
    few = calls_of_a_step(make, 3, dtype, block_size)
    many = calls_of_a_step(make, 50, dtype, block_size)
    assert few == many
    assert calls_of_matrix_ops(many) <= 3
    # Where the host does not look, gradients are screened on the device.
    assert many.total() <= (60 if torch.get_default_device().type == "cpu" else 85)


@pytest.mark.parametrize("make", MAKERS)
def test_parameters_of_different_step_counts_share_the_ops(make: str) -> None:
    """As experts of a mixture do, some parameters see fewer gradients than others."""
    params = [nn.Parameter(normal(5, 7, seed=k)) for k in range(6)]
    optimizer = MAKERS[make](params)
    for step in range(4):
        for k, parameter in enumerate(params):
            parameter.grad = normal(5, 7, seed=step) if k <= step or step == 3 else None
        with OpCounter() as counter:
            optimizer.step()
    engine = optimizer.engine  # type: ignore[attr-defined]
    assert len(set(engine.steps)) > 1, "this test is about different step counts"
    assert calls_of_matrix_ops(counter.calls) <= 3


@pytest.mark.parametrize("make", MAKERS)
def test_the_host_reads_nothing_where_that_would_wait(
    make: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of accelerators, on the CPU."""
    monkeypatch.setattr(lists, "host_reads_for_free", lambda device: False)
    calls = calls_of_a_step(make, 3, torch.float32, 1024)
    assert calls["aten.nan_to_num_.default"] >= 1, "this is not the path of accelerators"
    assert calls["aten._local_scalar_dense.default"] == 0
    assert calls == calls_of_a_step(make, 50, torch.float32, 1024)


def python_calls_of_a_step(make: str, count: int) -> tuple[int, int]:
    """Calls of Python functions by or of kronext in a step, and of built-in ones by it."""
    params = [nn.Parameter(normal(5, 7, seed=k)) for k in range(count)]
    optimizer = MAKERS[make](params)
    python, built_in = 0, 0

    def count_call(frame: Any, event: str, _: Any) -> None:
        nonlocal python, built_in
        ours = "/kronext/" in frame.f_code.co_filename
        called_by_us = frame.f_back is not None and "/kronext/" in frame.f_back.f_code.co_filename
        python += event == "call" and (ours or called_by_us)
        built_in += event == "c_call" and ours

    for seed in range(3):
        for parameter in params:
            parameter.grad = normal(5, 7, seed=seed)
        if seed == 2:
            sys.setprofile(count_call)
        try:
            optimizer.step()
        finally:
            sys.setprofile(None)
    return python, built_in


@pytest.mark.real
@pytest.mark.parametrize("make", MAKERS)
def test_no_python_function_is_called_once_a_parameter(make: str) -> None:
    """What is left for each parameter are loops over attributes and a few built-in calls."""
    few, many = (python_calls_of_a_step(make, count) for count in (10, 60))
    assert many[0] == few[0]
    assert (many[1] - few[1]) / 50 <= 12


@pytest.mark.cpu
@pytest.mark.parametrize(
    ("make", "copies"), [("Shampoo adam", 1), ("Shampoo grad", 1), ("grad", 2), ("base", 4)]
)
@pytest.mark.parametrize("block_size", [64, 1024])
def test_memory_of_a_step(make: str, copies: int, block_size: int) -> None:
    """The directions; with a base, copies of gradients and weights, and one by torch's SGD."""
    params = [nn.Parameter(normal(128, 192, seed=k)) for k in range(20)]
    for parameter in params:
        parameter.grad = normal(128, 192, seed=1)
    # Roots are not due again: their workspace is that of inverse_root_list_.
    optimizer = MAKERS[make](params, block_size=block_size, update_interval=10**6)
    optimizer.step()
    size = sum(parameter.nbytes for parameter in params)
    peak = peak_bytes(optimizer.step)
    assert peak <= copies * size + 2**20, f"a step holds {peak / size:.2f} copies of the weights"
