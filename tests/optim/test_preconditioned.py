"""`Preconditioned` around torch's optimizers: lengths, directions, decay, torch's protocol."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from helpers import normal, relative_error
from optimizer_problems import Problem, make_problem, train, values_of
from torch import Tensor, nn

from kronext.optim import KroneckerPreconditioner, Preconditioned, lists

SOON = {"start_step": 3, "update_interval": 2}
BASES: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9),
    "SGD L2": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9, weight_decay=0.1),
    "AdamW": lambda params: torch.optim.AdamW(params, lr=0.01, weight_decay=0.3),
    "Adam L2": lambda params: torch.optim.Adam(params, lr=0.01, weight_decay=0.1),
    "Adagrad": lambda params: torch.optim.Adagrad(params, lr=0.02),
    "RMSprop": lambda params: torch.optim.RMSprop(params, lr=0.002),
    "Adafactor": lambda params: torch.optim.Adafactor(params, lr=0.01, weight_decay=0.2),
}


@pytest.fixture
def problem() -> Problem:
    return make_problem()


@pytest.mark.parametrize("graft", ["base", "grad"])
@pytest.mark.parametrize("base", BASES)
def test_every_base_trains(base: str, graft: str) -> None:
    net, loss = make_problem()
    optimizer = Preconditioned(BASES[base](net.parameters()), graft=graft, **SOON)
    with torch.no_grad():
        before = sum(loss(t).item() for t in range(8))
    for _ in range(4):
        train(optimizer, loss, 0, 8)
    with torch.no_grad():
        after = sum(loss(t).item() for t in range(8))
    assert after < before
    assert optimizer.report().total_gradients_skipped == 0


@pytest.mark.parametrize("host_looks", [True, False])
@pytest.mark.parametrize("base", BASES)
def test_the_base_runs_alone_before_the_start_step(
    base: str, host_looks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its own sign and penalty, which the gradients of the engine have already."""
    monkeypatch.setattr(lists, "host_reads_for_free", lambda device: host_looks)
    (net, loss), (other, other_loss) = make_problem(), make_problem()
    train(Preconditioned(BASES[base](net.parameters()), start_step=6), loss, 0, 5)
    train(BASES[base](other.parameters()), other_loss, 0, 5)
    for ours, theirs in zip(values_of(net), values_of(other), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("base", BASES)
def test_steps_have_the_length_of_the_base_and_the_preconditioned_direction(base: str) -> None:
    """Weight decay apart: what decoupled decay does to the weights is in neither of the two."""
    net, loss = make_problem()
    optimizer = Preconditioned(BASES[base](net.parameters()), momentum=0.0, **SOON)
    train(optimizer, loss, 0, 4)
    twin = copy.deepcopy(optimizer)
    twin_parameters = [p for group in twin.param_groups for p in group["params"]]
    optimizer.zero_grad()
    loss(4).backward()
    for parameter, twin_parameter in zip(net.parameters(), twin_parameters, strict=True):
        assert torch.equal(parameter, twin_parameter)
        assert parameter.grad is not None
        twin_parameter.grad = parameter.grad.clone()
    before = values_of(net)
    group = optimizer.param_groups[0]
    is_decoupled = base in ("AdamW", "Adafactor")
    decay = group["lr"] * group.get("weight_decay", 0.0) if is_decoupled else 0.0
    penalty = 0.0 if is_decoupled else group.get("weight_decay", 0.0)
    gradients = [parameter.grad + penalty * parameter.detach() for parameter in net.parameters()]
    engine = copy.deepcopy(optimizer.engine)
    usable = engine.update(gradients)
    directions = engine.precondition(usable)
    optimizer.step()
    twin.base.step()
    pairs = zip(net.parameters(), twin_parameters, before, usable, directions, strict=True)
    for ours, base_alone, start, gradient, direction in pairs:
        start = start.double() * (1 - decay)
        step, base_step = ours.double() - start, base_alone.double() - start
        if direction is gradient:
            assert torch.equal(ours, base_alone)
            continue
        assert abs(step.norm() / base_step.norm() - 1) < 1e-3
        assert relative_error(-step / step.norm(), (direction / direction.norm()).double()) < 1e-3


def test_the_direction_takes_the_momentum_of_the_base() -> None:
    gradients = [normal(5, 7, seed=seed) for seed in range(4)]
    weight = nn.Parameter(torch.zeros(5, 7))
    base = torch.optim.AdamW([weight], lr=0.1, betas=(0.8, 0.99), weight_decay=0.0)
    optimizer = Preconditioned(base, start_step=4)
    engine = KroneckerPreconditioner([torch.zeros(5, 7)], start_step=4)
    average = torch.zeros(5, 7)
    for gradient in gradients:
        before = weight.detach().clone()
        weight.grad = gradient.clone()
        optimizer.step()
        engine.update([gradient])
        average = 0.8 * average + 0.2 * gradient
    (direction,) = engine.precondition([average])
    assert direction is not None
    step = before - weight.detach()
    assert relative_error(step / step.norm(), (direction / direction.norm()).double()) < 1e-5


@pytest.mark.parametrize("graft", ["grad", None])
def test_the_base_is_fed_the_preconditioned_gradient(graft: str | None) -> None:
    gradients = [normal(5, 7, seed=seed) for seed in range(3)]
    weight = nn.Parameter(torch.zeros(5, 7))
    optimizer = Preconditioned(
        torch.optim.SGD([weight], lr=1.0), graft=graft, start_step=1, update_interval=2
    )
    engine = KroneckerPreconditioner([torch.zeros(5, 7)], start_step=1, update_interval=2)
    for gradient in gradients:
        before = weight.detach().clone()
        weight.grad = gradient.clone()
        optimizer.step()
        assert torch.equal(weight.grad, gradient), "the raw gradient was not put back"
        (direction,) = engine.precondition(engine.update([gradient]))
        assert direction is not None
        if graft == "grad":
            direction *= gradient.norm() / direction.norm()
        assert relative_error(before - weight.detach(), direction.double()) < 1e-5


@pytest.mark.parametrize("graft", ["base", "grad", None])
def test_gradients_are_put_back_when_the_base_raises(graft: str | None) -> None:
    class Failing(torch.optim.SGD):
        def step(self, closure: object = None) -> None:
            raise RuntimeError("out of luck")

    weight, vector = nn.Parameter(normal(5, 7)), nn.Parameter(normal(3))
    gradient = normal(5, 7, seed=1)
    weight.grad, vector.grad = gradient.clone(), torch.full((3,), float("nan"))
    optimizer = Preconditioned(Failing([weight, vector], lr=1.0), graft=graft, start_step=1)
    with pytest.raises(RuntimeError, match="out of luck"):
        optimizer.step()
    assert torch.equal(weight.grad, gradient)
    assert vector.grad is not None


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_maximize_descends_the_negated_loss(maximize: bool, weight_decay: float) -> None:
    results = []
    for sign in (1.0, -1.0):
        weight = nn.Parameter(normal(5, 7))
        base = torch.optim.SGD(
            [weight],
            lr=0.1,
            momentum=0.9,
            weight_decay=weight_decay,
            maximize=maximize if sign > 0 else not maximize,
        )
        optimizer = Preconditioned(base, start_step=2)
        for seed in range(5):
            weight.grad = sign * normal(5, 7, seed=seed)
            optimizer.step()
        results.append(weight.detach())
    assert torch.equal(*results)


def test_an_unknown_base_must_say_how_it_decays() -> None:
    class Foreign(torch.optim.SGD):
        pass

    Foreign.__module__ = "elsewhere"
    weight = nn.Parameter(normal(3, 3))
    base = Foreign([weight], lr=0.1, weight_decay=0.1)
    with pytest.raises(ValueError, match=r"decoupled_weight_decay must .*\(got base=Foreign"):
        Preconditioned(base)
    Preconditioned(base, decoupled_weight_decay=False)
    Preconditioned(base, graft=None)
    Preconditioned(Foreign([weight], lr=0.1))


def test_groups_override_options_or_pass_through() -> None:
    cut, whole, left_out = (nn.Parameter(normal(6, 6, seed=seed)) for seed in range(3))
    base = torch.optim.SGD(
        [
            {"params": [cut], "preconditioner": {"block_size": 3, "update_interval": 1}},
            {"params": [whole], "lr": 0.2},
            {"params": [left_out], "preconditioner": None},
        ],
        lr=0.1,
    )
    optimizer = Preconditioned(base, **SOON)
    for _ in range(4):
        for parameter in (cut, whole, left_out):
            parameter.grad = normal(6, 6, seed=7)
        optimizer.step()
    report = optimizer.report()
    assert (report.parameters, report.blocks, report.passed_through) == (2, 5, 1)
    assert report.roots_refreshed == 8, "only the four blocks with an interval of 1 were due"
    expected = normal(6, 6, seed=2) - 4 * 0.1 * normal(6, 6, seed=7)
    assert relative_error(left_out.detach(), expected.double()) < 1e-6


def test_groups_and_state_are_those_of_the_base(problem: Problem) -> None:
    net, loss = problem
    base = torch.optim.AdamW(net.parameters(), lr=0.01)
    optimizer = Preconditioned(base, **SOON)
    train(optimizer, loss, 0, 4)
    assert optimizer.param_groups is base.param_groups
    assert optimizer.state is base.state
    base.load_state_dict(base.state_dict())
    assert optimizer.param_groups is base.param_groups
    assert optimizer.state is base.state


def test_add_param_group() -> None:
    first, second = nn.Parameter(normal(4, 4)), nn.Parameter(normal(5, 3))
    optimizer = Preconditioned(torch.optim.SGD([first], lr=0.1), **SOON)
    with pytest.raises(ValueError, match="block_size"):
        optimizer.add_param_group({"params": [second], "preconditioner": {"block_size": 0}})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": [second], "lr": 0.5})
    assert len(optimizer.base.param_groups) == 2
    for _ in range(4):
        first.grad, second.grad = normal(4, 4, seed=1), normal(5, 3, seed=2)
        optimizer.step()
    assert optimizer.report().parameters == 2


def test_learning_rate_schedulers_drive_the_base(problem: Problem) -> None:
    net, loss = problem
    optimizer = Preconditioned(torch.optim.AdamW(net.parameters(), lr=1.0), **SOON)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.0 if t > 4 else 0.01)
    for t in range(8):
        before = values_of(net)
        train(optimizer, loss, t, t + 1)
        moved = any(not torch.equal(a, b) for a, b in zip(before, values_of(net), strict=True))
        assert moved == (t <= 4)
        scheduler.step()


def test_one_cycle_moves_the_momentum_of_the_direction(problem: Problem) -> None:
    net, loss = problem
    optimizer = Preconditioned(torch.optim.AdamW(net.parameters(), lr=0.01), **SOON)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=10)
    for t in range(8):
        train(optimizer, loss, t, t + 1)
        scheduler.step()
    assert optimizer.base.param_groups[0]["betas"][0] != 0.9


def test_grad_scaler_unscales_and_skips(problem: Problem) -> None:
    net, loss = problem
    other, other_loss = make_problem()
    optimizer = Preconditioned(torch.optim.SGD(net.parameters(), lr=0.1), **SOON)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for t in range(5):
        optimizer.zero_grad()
        scaler.scale(loss(t)).backward()
        scaler.step(optimizer)
        scaler.update()
    train(Preconditioned(torch.optim.SGD(other.parameters(), lr=0.1), **SOON), other_loss, 0, 5)
    for ours, theirs in zip(values_of(net), values_of(other), strict=True):
        assert relative_error(ours, theirs.double()) < 1e-5
    before = values_of(net)
    optimizer.zero_grad()
    scaler.scale(loss(5) * float("inf")).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**9
    assert all(torch.equal(a, b) for a, b in zip(before, values_of(net), strict=True))


def test_clipping_reaches_the_factors() -> None:
    weight = nn.Parameter(normal(5, 5))
    optimizer = Preconditioned(torch.optim.SGD([weight], lr=0.1), start_step=1)
    weight.grad = 100 * normal(5, 5, seed=1)
    nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
    optimizer.step()
    (left,) = optimizer.engine.state_dict()[0]["left"]
    assert abs(left.trace().item() - 1) < 1e-4


def test_closures_are_called_once_with_gradients_enabled(problem: Problem) -> None:
    net, loss = problem
    other, other_loss = make_problem()
    optimizer = Preconditioned(torch.optim.AdamW(net.parameters()), **SOON)
    calls = 0

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        optimizer.zero_grad()
        value = loss(calls - 1)
        value.backward()
        return value

    returned = [optimizer.step(closure) for _ in range(5)]
    assert calls == 5
    train(Preconditioned(torch.optim.AdamW(other.parameters()), **SOON), other_loss, 0, 5)
    assert all(torch.equal(a, b) for a, b in zip(values_of(net), values_of(other), strict=True))
    assert torch.equal(returned[0], make_problem()[1](0))


def test_step_hooks_run_on_both_optimizers(problem: Problem) -> None:
    net, loss = problem
    optimizer = Preconditioned(torch.optim.SGD(net.parameters(), lr=0.1), **SOON)
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    optimizer.base.register_step_post_hook(lambda *_: calls.append("base"))
    train(optimizer, loss, 0, 2)
    assert calls == ["before", "base", "after"] * 2


def test_state_dict_hooks_run_on_the_wrapper(problem: Problem) -> None:
    net, loss = problem
    optimizer = Preconditioned(torch.optim.SGD(net.parameters(), lr=0.1), **SOON)
    train(optimizer, loss, 0, 4)
    calls: list[str] = []
    seen: list[object] = []

    def mark(_: object, state_dict: dict[str, object]) -> dict[str, object]:
        seen.append(state_dict["state"])
        return {**state_dict, "mark": "saved"}

    def unmark(_: object, state_dict: dict[str, object]) -> None:
        calls.append(str(state_dict.pop("mark")))

    optimizer.register_state_dict_pre_hook(lambda _: calls.append("before"))
    optimizer.register_state_dict_post_hook(mark)
    optimizer.register_load_state_dict_pre_hook(unmark)
    optimizer.register_load_state_dict_post_hook(lambda it: calls.append(type(it).__name__))
    saved = optimizer.state_dict()
    assert saved["mark"] == "saved"
    assert "kronecker" in seen[0][0]  # type: ignore[index]
    optimizer.load_state_dict(saved)
    assert calls == ["before", "saved", "Preconditioned"]
    assert saved["mark"] == "saved", "a hook may change its copy only"


def test_a_base_without_momentum_may_say_none() -> None:
    results = []
    for momentum in (None, 0.0):
        weight = nn.Parameter(normal(5, 7))
        base = torch.optim.SGD([{"params": [weight]}], lr=0.1)
        base.param_groups[0]["momentum"] = momentum
        optimizer = Preconditioned(base, start_step=1)
        base.step = lambda w=weight: w.data.sub_(0.1 * w.grad)  # type: ignore[method-assign]
        weight.grad = normal(5, 7, seed=1)
        optimizer.step()
        results.append(weight.detach())
    assert torch.equal(*results)


def test_zero_grad_clears_the_gradients(problem: Problem) -> None:
    net, loss = problem
    optimizer = Preconditioned(torch.optim.SGD(net.parameters(), lr=0.1), **SOON)
    loss(0).backward()
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters())


def test_bfloat16_parameters_train() -> None:
    net, loss = make_problem(dtype=torch.bfloat16)
    optimizer = Preconditioned(torch.optim.AdamW(net.parameters(), lr=0.02), **SOON)
    with torch.no_grad():
        before = sum(loss(t).item() for t in range(4))
    for _ in range(10):
        train(optimizer, loss, 0, 4)
    with torch.no_grad():
        assert sum(loss(t).item() for t in range(4)) < 0.8 * before
