"""`Shampoo`: each graft has the step length of the torch optimizer it is named after."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers import normal, relative_error
from optimizer_problems import make_problem, train, values_of
from torch import nn

from kronext.optim import KroneckerPreconditioner, Preconditioned, Shampoo

# At learning rate 0.01, as `Shampoo` is asked to in the tests below.
TORCH_TWINS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": lambda params: torch.optim.Adam(params, lr=0.01, betas=(0.9, 0.95), eps=1e-8),
    "adagrad": lambda params: torch.optim.Adagrad(params, lr=0.01, eps=1e-8),
    "rmsprop": lambda params: torch.optim.RMSprop(params, lr=0.01, alpha=0.95, eps=1e-8),
}


@pytest.mark.parametrize("graft", TORCH_TWINS)
def test_grafted_lengths_and_vector_steps_are_those_of_torch(graft: str) -> None:
    """On given gradients: a vector steps as under torch, a matrix as far as under torch."""
    shapes = [(5, 7), (9,), ()]
    ours = [nn.Parameter(torch.ones(shape)) for shape in shapes]
    theirs = [nn.Parameter(torch.ones(shape)) for shape in shapes]
    shampoo = Shampoo(ours, lr=0.01, betas=(0.9, 0.95), graft=graft, start_step=3)
    twin = TORCH_TWINS[graft](theirs)
    for t in range(8):
        before = [parameter.detach().double() for parameter in ours]
        twin_before = [parameter.detach().double() for parameter in theirs]
        for k, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            mine.grad = normal(35, seed=10 * t + k)[: mine.numel()].view(shapes[k])
            other.grad = mine.grad.clone()
        shampoo.step()
        twin.step()
        for k in range(3):
            step = ours[k].detach().double() - before[k]
            twin_step = theirs[k].detach().double() - twin_before[k]
            assert abs(step.norm() / twin_step.norm() - 1) < 1e-4
            is_turned = k == 0 and t >= 2
            assert (relative_error(step, twin_step) > 1e-2) == is_turned


@pytest.mark.parametrize("graft", ["sgd", "grad", None])
def test_grafts_without_a_second_moment(graft: str | None) -> None:
    weight = nn.Parameter(torch.zeros(5, 7))
    shampoo = Shampoo([weight], lr=0.1, betas=(0.8, 0.9), graft=graft, start_step=1)
    engine = KroneckerPreconditioner([torch.zeros(5, 7)], start_step=1)
    average = torch.zeros(5, 7)
    for t in range(4):
        gradient, before = normal(5, 7, seed=t), weight.detach().clone()
        weight.grad = gradient.clone()
        shampoo.step()
        engine.update([gradient])
        average = 0.8 * average + 0.2 * gradient
        momentum = average / (1 - 0.8 ** (t + 1))
        (direction,) = engine.precondition([momentum])
        assert direction is not None
        if graft is not None:
            length = momentum.norm() if graft == "sgd" else gradient.norm()
            direction = direction * (length / direction.norm())
        assert relative_error(before - weight.detach(), 0.1 * direction.double()) < 1e-5
        assert torch.equal(weight.grad, gradient)


@pytest.mark.parametrize("estimator", ["shampoo", "shampoo2", "optimal"])
def test_adam_grafting_is_preconditioned_adamw(estimator: str) -> None:
    options = {"estimator": estimator, "start_step": 3, "update_interval": 2, "block_size": 8}
    (net, loss), (other, other_loss) = make_problem(), make_problem()
    train(
        Shampoo(net.parameters(), lr=0.01, weight_decay=0.1, graft="adam", **options), loss, 0, 12
    )
    base = torch.optim.AdamW(other.parameters(), lr=0.01, weight_decay=0.1)
    train(Preconditioned(base, **options), other_loss, 0, 12)
    for ours, theirs in zip(values_of(net), values_of(other), strict=True):
        assert relative_error(ours, theirs.double()) < 1e-4


def test_weight_decay_is_decoupled() -> None:
    moved = []
    for weight_decay in (0.0, 0.5):
        weight, vector = nn.Parameter(normal(4, 4)), nn.Parameter(normal(4))
        shampoo = Shampoo([weight, vector], lr=0.1, weight_decay=weight_decay, start_step=1)
        weight.grad, vector.grad = normal(4, 4, seed=1), normal(4, seed=2)
        shampoo.step()
        moved.append([weight.detach(), vector.detach()])
    for plain, decayed, start in zip(*moved, [normal(4, 4), normal(4)], strict=True):
        assert relative_error(plain - decayed, 0.05 * start.double()) < 1e-5


def test_groups_have_their_own_scalars() -> None:
    still, moving = nn.Parameter(normal(4, 4)), nn.Parameter(normal(4, 4))
    shampoo = Shampoo(
        [{"params": [still], "lr": 0.0}, {"params": [moving], "preconditioner": {"block_size": 2}}],
        lr=0.1,
        start_step=1,
    )
    still.grad, moving.grad = normal(4, 4, seed=1), normal(4, 4, seed=1)
    shampoo.step()
    assert torch.equal(still, normal(4, 4))
    assert not torch.equal(moving, normal(4, 4))
    assert shampoo.report().blocks == 5


def test_schedulers_and_closures() -> None:
    net, loss = make_problem()
    shampoo = Shampoo(net.parameters(), lr=1.0, start_step=2)
    scheduler = torch.optim.lr_scheduler.LambdaLR(shampoo, lambda t: 0.0 if t else 0.01)
    for t in range(3):
        before = values_of(net)

        def closure(t: int = t) -> torch.Tensor:
            shampoo.zero_grad()
            value = loss(t)
            value.backward()
            return value

        assert isinstance(shampoo.step(closure), torch.Tensor)
        moved = any(not torch.equal(a, b) for a, b in zip(before, values_of(net), strict=True))
        assert moved == (t == 0)
        scheduler.step()


@pytest.mark.parametrize("graft", ["adam", "adagrad", "rmsprop", "sgd", "grad"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_state_of_other_dtypes(dtype: torch.dtype, graft: str) -> None:
    weight, exact = nn.Parameter(normal(5, 7, dtype=dtype)), nn.Parameter(normal(5, 7).double())
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    ours, theirs = (Shampoo([p], lr=0.1, graft=graft, start_step=2) for p in (weight, exact))
    for t in range(3):
        weight.grad = normal(5, 7, seed=t).to(dtype)
        exact.grad = weight.grad.double()
        ours.step()
        theirs.step()
    assert {tensor.dtype for tensor in ours.state[weight].values()} == {wide}
    assert relative_error(weight.detach(), exact.detach()) < 4 * torch.finfo(dtype).eps + 1e-6


@pytest.mark.parametrize("graft", ["adam", None])
def test_the_learning_rate_may_be_a_tensor(graft: str | None) -> None:
    """With graft=None and no roots yet the step is the momentum itself, which must last."""
    results = []
    for lr in (0.5, torch.tensor(0.5)):
        weight = nn.Parameter(normal(5, 7))
        shampoo = Shampoo([weight], lr=lr, weight_decay=0.1, graft=graft, start_step=3)
        for t in range(5):
            weight.grad = normal(5, 7, seed=t)
            shampoo.step()
        results.append(weight.detach())
    assert relative_error(results[1], results[0].double()) < 1e-6
