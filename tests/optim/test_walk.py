"""Directions are walked block by block, and where there is none the grafted step is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import normal, relative_error
from torch import nn

from kronext.optim import KroneckerPreconditioner, Preconditioned, Shampoo, lists

MAKERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "Shampoo": lambda params, **o: Shampoo(params, lr=0.1, betas=(0.0, 0.95), **o),
    "base": lambda params, **o: Preconditioned(torch.optim.SGD(params, lr=0.1), **o),
    "grad": lambda params, **o: Preconditioned(torch.optim.SGD(params, lr=0.1), graft="grad", **o),
}


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("block_size", [5, 64])
@pytest.mark.parametrize(
    "shape", [(7, 11), (6, 4, 3, 3), (1, 13, 9)], ids=["matrix", "convolution", "embedding"]
)
def test_a_step_has_the_direction_of_the_engine(
    shape: tuple[int, ...], block_size: int, make: str
) -> None:
    """Whatever the shape, the blocks and the order of the weight in memory."""
    options: dict[str, Any] = {"block_size": block_size, "start_step": 1}
    start = normal(*shape)
    orders = [start.clone(), start.mT.contiguous().mT]
    if len(shape) == 4:
        orders.append(start.to(memory_format=torch.channels_last))
    for order in orders:
        weight = nn.Parameter(order)
        weight.grad = normal(*shape, seed=1)
        MAKERS[make]([weight], **options).step()
        engine = KroneckerPreconditioner([start], **options)
        (direction,) = engine.precondition(engine.update([weight.grad]))
        step = (start - weight.detach()).double()
        assert direction is not None
        assert relative_error(step / step.norm(), direction.double() / direction.norm()) < 1e-5


@pytest.mark.parametrize("host_looks", [True, False])
@pytest.mark.parametrize("graft", ["adam", "adagrad", "rmsprop", "sgd", "grad"])
def test_without_a_direction_shampoo_takes_the_grafted_step(
    graft: Any, host_looks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "host_reads_for_free", lambda device: host_looks)
    turned, plain = nn.Parameter(torch.zeros(4, 6)), nn.Parameter(torch.zeros(4, 6))
    groups = [{"params": [turned]}, {"params": [plain], "preconditioner": None}]
    optimizer = Shampoo(groups, lr=0.1, betas=(0.0, 0.9), graft=graft, **NO_DIRECTION)
    steps = _second_steps(optimizer, [turned, plain])
    assert steps[0].any()
    assert torch.equal(*steps)


@pytest.mark.parametrize("host_looks", [True, False])
@pytest.mark.parametrize("make", ["base", "grad"])
def test_without_a_direction_the_base_takes_its_step(
    make: str, host_looks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "host_reads_for_free", lambda device: host_looks)
    weight = nn.Parameter(torch.zeros(4, 6))
    (step,) = _second_steps(MAKERS[make]([weight], **NO_DIRECTION), [weight])
    assert relative_error(step, -0.1 * _row(1).double()) < 1e-6


# Roots of the first gradient for good, with nothing in the directions that it has not got.
NO_DIRECTION: dict[str, Any] = {"relative_eps": 0.0, "start_step": 1, "update_interval": 100}


def _row(index: int) -> torch.Tensor:
    gradient = torch.zeros(4, 6)
    gradient[index] = normal(6, seed=index)
    return gradient


def _second_steps(
    optimizer: torch.optim.Optimizer, params: list[nn.Parameter]
) -> list[torch.Tensor]:
    for index in range(2):
        before = [parameter.detach().clone() for parameter in params]
        for parameter in params:
            parameter.grad = _row(index)
        optimizer.step()
    return [p.detach() - old for p, old in zip(params, before, strict=True)]


MEMORY_ORDERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "channels last": lambda t: t.to(memory_format=torch.channels_last),
    "transposed": lambda t: t.mT.contiguous().mT,
    "gaps": lambda t: torch.stack([t, torch.full_like(t, float("nan"))], -1)[..., 0],
    "expanded": lambda t: t[..., :1].expand_as(t),
}


@pytest.mark.parametrize("order", MEMORY_ORDERS)
@pytest.mark.parametrize("graft", ["adam", "adagrad", "rmsprop", "sgd", "grad"])
def test_steps_do_not_depend_on_the_memory_of_gradients(graft: Any, order: str) -> None:
    weights = [nn.Parameter(normal(6, 4, 3, 5, dtype=torch.float64)) for _ in range(2)]
    options: dict[str, Any] = {"betas": (0.9, 0.95), "start_step": 2, "update_interval": 1}
    optimizers = [Shampoo([weight], lr=0.1, graft=graft, **options) for weight in weights]
    for seed in range(4):
        arrange = MEMORY_ORDERS[order] if seed != 1 else torch.clone  # orders come and go
        gradient = arrange(normal(6, 4, 3, 5, seed=seed, dtype=torch.float64))
        weights[0].grad, weights[1].grad = gradient, gradient.contiguous()
        for optimizer in optimizers:
            optimizer.step()
        assert relative_error(weights[0], weights[1].detach()) < 1e-12, f"step {seed}"
