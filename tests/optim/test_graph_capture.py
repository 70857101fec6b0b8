"""A captured step, replayed, is the step that would have been taken, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerator import capture, no_waiting, warm_up
from helpers import normal, relative_error
from torch import Tensor, nn

from kronext.optim import KroneckerPreconditioner, Preconditioned, Shampoo, graphs

SHAPES = [(33, 20), (6, 5, 3), (7,)]
SOON: dict[str, Any] = {"start_step": 2, "update_interval": 1, "block_size": 24}
Params = list[nn.Parameter]
MAKERS: dict[str, Callable[..., Preconditioned]] = {
    "AdamW": lambda params, **o: Preconditioned(
        torch.optim.AdamW(params, lr=0.01, weight_decay=0.1, capturable=True), **SOON | o
    ),
    "SGD": lambda params, **o: Preconditioned(
        torch.optim.SGD(params, lr=0.1, momentum=0.9), capturable=True, **SOON | o
    ),
    "SGD L2": lambda params, **o: Preconditioned(
        torch.optim.SGD(params, lr=0.1, weight_decay=0.1), capturable=True, **SOON | o
    ),
    "grad": lambda params, **o: Preconditioned(
        torch.optim.SGD(params, lr=0.1), graft="grad", capturable=True, **SOON | o
    ),
    "None": lambda params, **o: Preconditioned(
        torch.optim.SGD(params, lr=0.1), graft=None, capturable=True, **SOON | o
    ),
}


def make_params(dtype: torch.dtype = torch.float32) -> Params:
    params = [nn.Parameter(normal(*shape, dtype=dtype)) for shape in SHAPES]
    for parameter in params:
        parameter.grad = torch.zeros_like(parameter)
    return params


def set_gradients(params: Params, t: int) -> None:
    for parameter in params:
        assert parameter.grad is not None
        parameter.grad.copy_(normal(*parameter.shape, seed=100 + t))


def poison(params: Params) -> None:
    assert params[0].grad is not None
    params[0].grad[1, 1].fill_(float("nan"))


def assert_same_bits(ours: Any, theirs: Any) -> None:
    if isinstance(ours, Tensor):
        assert torch.equal(ours, theirs)
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_same_bits(ours[key], theirs[key])
    elif isinstance(ours, (list, tuple)):
        for one, other in zip(ours, theirs, strict=True):
            assert_same_bits(one, other)
    else:
        assert ours == theirs


@pytest.mark.accelerator
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("estimator", ["shampoo", "shampoo2", "optimal"])
@pytest.mark.parametrize("make", MAKERS)
def test_a_replayed_step_is_the_next_one(make: str, estimator: str, dtype: torch.dtype) -> None:
    """The average's weights and the base's go on, a gradient that is not finite is left out."""
    runs = []
    for captured in (False, True):
        params = make_params(dtype)
        optimizer = MAKERS[make](params, estimator=estimator)
        step: Callable[[], object] = optimizer.step
        for t in range(8):
            if captured and t == 3:
                graph, _ = capture(optimizer.step)
                step = graph.replay
            set_gradients(params, t)
            if t == 5:
                poison(params)
            warm_up(step) if t < 3 else step()
        runs.append(([p.detach() for p in params], optimizer.state_dict(), optimizer.report()))
    (eager, eager_state, eager_report), (replayed, state, report) = runs
    assert_same_bits(replayed, eager)
    assert_same_bits(state["state"], eager_state["state"])
    assert state["state"][0]["kronecker"]["step"] == 8
    assert report == eager_report
    assert report.total_gradients_skipped == 1
    assert report.gradients_skipped == 0


@pytest.mark.accelerator
@pytest.mark.parametrize("beta", [0.9, None])
def test_the_engine_alone(beta: float | None) -> None:
    runs = []
    for captured in (False, True):
        params = make_params()
        engine = KroneckerPreconditioner(params, capturable=True, beta=beta, **SOON)

        def call(engine=engine) -> list[Tensor]:
            return engine.precondition(engine.update())

        for t in range(3):
            set_gradients(params, t)
            warm_up(call)
        if captured:
            graph, directions = capture(call)
        for t in range(3, 6):
            set_gradients(params, t)
            if captured:
                graph.replay()
            else:
                directions = call()
        runs.append((directions, engine.state_dict()))
    assert_same_bits(*runs)


@pytest.mark.accelerator
def test_a_graph_may_hold_all_steps_of_an_update_interval() -> None:
    runs = []
    for captured in (False, True):
        params = make_params()
        optimizer = MAKERS["AdamW"](params, update_interval=3)
        set_gradients(params, 0)

        def interval(optimizer=optimizer) -> None:
            for _ in range(3):
                optimizer.step()

        warm_up(interval)
        replay: Callable[[], object] = capture(interval)[0].replay if captured else interval
        replay()
        replay()
        runs.append([p.detach() for p in params])
    assert_same_bits(*runs)


@pytest.mark.accelerator
@pytest.mark.parametrize("make", MAKERS)
def test_the_host_does_not_wait(make: str) -> None:
    params = make_params()
    optimizer = MAKERS[make](params)
    for t in range(5):
        set_gradients(params, t)
        if t < 2:  # state and what is known of the shapes are made
            optimizer.step()
        else:
            with no_waiting():
                optimizer.step()


@pytest.mark.parametrize("beta", [0.9, 0.5, 0.0, 1.0])
@pytest.mark.parametrize("estimator", ["shampoo", "shampoo2", "optimal"])
def test_counting_on_the_device_changes_rounding_alone(estimator: str, beta: float) -> None:
    engines = [
        KroneckerPreconditioner(
            [torch.zeros(9, 6)], capturable=capturable, estimator=estimator, beta=beta, **SOON
        )
        for capturable in (False, True)
    ]
    for t in range(4):
        (usual,), (counted,) = (
            engine.precondition(engine.update([normal(9, 6, seed=t)])) for engine in engines
        )
        assert relative_error(counted, usual) < 1e-5, f"step {t}"
    assert engines[0].steps == engines[1].steps == [4]


def test_a_state_moves_between_counts_on_host_and_device() -> None:
    gradients = [normal(9, 6, seed=t) for t in range(6)]
    through = KroneckerPreconditioner([torch.zeros(9, 6)], capturable=True, **SOON)
    for capturable in (False, True, False):
        engine = KroneckerPreconditioner([torch.zeros(9, 6)], capturable=capturable, **SOON)
        engine.load_state_dict(through.state_dict())
        for gradient in gradients[engine.steps[0] : engine.steps[0] + 2]:
            engine.update([gradient])
        through = engine
    assert through.steps == [6]
    straight = KroneckerPreconditioner([torch.zeros(9, 6)], **SOON)
    for gradient in gradients:
        straight.update([gradient])
    ours, theirs = through.state_dict()[0], straight.state_dict()[0]
    assert relative_error(ours["left"][0], theirs["left"][0]) < 1e-6


def test_captures_that_cannot_be_replayed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = nn.Parameter(torch.zeros(4, 4))
    weight.grad = normal(4, 4)
    base = torch.optim.SGD([weight], lr=0.1)
    usual, capturable = (Preconditioned(base, capturable=c, **SOON) for c in (False, True))
    shampoo = Shampoo([weight])
    monkeypatch.setattr(graphs, "is_capturing", lambda: True)
    with pytest.raises(RuntimeError, match=r"Preconditioned: capturable must be True.*\(got"):
        usual.step()
    with pytest.raises(RuntimeError, match=r"Shampoo: a step must not be captured.*\(got"):
        shampoo.step()
    with pytest.raises(RuntimeError, match=r"factors must exist .*\(got parameter=0, step=0\)"):
        capturable.step()
    monkeypatch.setattr(graphs, "is_capturing", lambda: False)
    capturable.step()
    monkeypatch.setattr(graphs, "is_capturing", lambda: True)
    with pytest.raises(RuntimeError, match=r"roots must exist .*\(got parameter=0, step=1\)"):
        capturable.step()
    assert capturable.engine.steps == [1]
    assert usual.engine.steps == [0]


def test_what_is_not_looked_at_cannot_raise() -> None:
    with pytest.raises(ValueError, match=r"raise_on_failure must be False .*\(got raise"):
        KroneckerPreconditioner([torch.zeros(3, 3)], raise_on_failure=True, capturable=True)
