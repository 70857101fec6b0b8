"""Checkpoints: a run that is saved and resumed is the run that was not, bit for bit."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from helpers import normal
from optimizer_problems import make_problem, train, values_of
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from kronext.optim import KroneckerPreconditioner, Preconditioned, Shampoo

Make = Callable[[Iterable[Tensor]], Any]
OPTIONS: dict[str, Any] = {"start_step": 3, "update_interval": 4, "block_size": 8}
MAKERS: dict[str, Make] = {
    "AdamW": lambda params: Preconditioned(torch.optim.AdamW(params, lr=0.01), **OPTIONS),
    "SGD": lambda params: Preconditioned(
        torch.optim.SGD(params, lr=0.05, momentum=0.9, weight_decay=0.1), **OPTIONS
    ),
    "Adagrad fed": lambda params: Preconditioned(
        torch.optim.Adagrad(params, lr=0.01), graft="grad", estimator="optimal", **OPTIONS
    ),
    **{
        f"Shampoo {graft}": lambda params, graft=graft: Shampoo(
            params, lr=0.001, graft=graft, weight_decay=0.1, **OPTIONS
        )
        for graft in ("adam", "rmsprop", "sgd", None)
    },
}


def through_a_file(state_dict: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def assert_equal_states(ours: Any, theirs: Any) -> None:
    if isinstance(ours, Tensor):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert_equal_states(value, theirs[key])
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for value, other in zip(ours, theirs, strict=True):
            assert_equal_states(value, other)
    else:
        assert ours == theirs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("stop", [1, 2, 5])
@pytest.mark.parametrize("make", MAKERS)
def test_resumed_runs_are_the_same_bit_for_bit(make: str, stop: int, dtype: torch.dtype) -> None:
    """`stop`: before the roots exist, just before they do, and between two refreshes."""
    net, loss = make_problem(dtype=dtype)
    optimizer = MAKERS[make](net.parameters())
    train(optimizer, loss, 0, stop)
    saved = through_a_file(optimizer.state_dict())
    other, other_loss = make_problem(seed=1, dtype=dtype)
    other.load_state_dict(net.state_dict())
    resumed = MAKERS[make](other.parameters())
    resumed.load_state_dict(saved)
    assert_equal_states(resumed.state_dict(), optimizer.state_dict())
    assert_equal_states(saved, optimizer.state_dict())
    train(optimizer, loss, stop, stop + 7)
    train(resumed, other_loss, stop, stop + 7)
    assert_equal_states(resumed.state_dict(), optimizer.state_dict())
    for ours, theirs in zip(values_of(net), values_of(other), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("make", ["AdamW", "Shampoo adam"])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_copies_of_net_and_optimizer_go_on_alike(make: str, duplicate: Callable[..., Any]) -> None:
    weight = nn.Parameter(normal(9, 7))
    optimizer = MAKERS[make]([weight])
    for seed in range(5):
        weight.grad = normal(9, 7, seed=seed)
        optimizer.step()
    other, other_optimizer = duplicate((weight, optimizer))
    for seed in range(5):
        weight.grad, other.grad = normal(9, 7, seed=seed), normal(9, 7, seed=seed)
        optimizer.step()
        other_optimizer.step()
    assert torch.equal(weight, other)
    other_optimizer.load_state_dict(optimizer.state_dict())
    assert_equal_states(other_optimizer.state_dict(), optimizer.state_dict())


def test_state_is_plain_and_keyed_by_parameter() -> None:
    def check(value: Any) -> None:
        if isinstance(value, dict):
            for entry in value.values():
                check(entry)
        elif isinstance(value, (list, tuple)):
            for entry in value:
                check(entry)
        else:
            assert value is None or isinstance(value, (Tensor, int, float, bool, str))

    for make in MAKERS.values():
        net, loss = make_problem()
        optimizer = make(net.parameters())
        train(optimizer, loss, 0, 4)
        state_dict = optimizer.state_dict()
        check(state_dict)
        assert set(state_dict["state"]) == set(range(6))
        kronecker = state_dict["state"][0]["kronecker"]
        assert kronecker["step"] == 4
        assert len(kronecker["left"]) == len(kronecker["right_root"]) == 3
        assert set(state_dict["state"][1]["kronecker"]) == {"step"}, "a bias has no factors"


def test_loading_copies() -> None:
    net, loss = make_problem()
    optimizer = MAKERS["Shampoo adam"](net.parameters())
    train(optimizer, loss, 0, 4)
    saved = optimizer.state_dict()
    kept = copy.deepcopy(saved)
    other, other_loss = make_problem()
    resumed = MAKERS["Shampoo adam"](other.parameters())
    resumed.load_state_dict(saved)
    train(resumed, other_loss, 4, 8)
    assert_equal_states(saved, kept)


@pytest.mark.parametrize("make", ["AdamW", "Shampoo adam"])
def test_other_blocks_are_refused_before_anything_is_written(make: str) -> None:
    weight = nn.Parameter(normal(9, 7))
    optimizer = MAKERS[make]([weight])
    weight.grad = normal(9, 7)
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["kronecker"]["left"].pop()
    saved["param_groups"][0]["lr"] = 123.0
    before = copy.deepcopy(optimizer.state_dict())
    name = type(optimizer).__name__
    with pytest.raises(ValueError, match=rf"{name}: state 0 must have one left per block.*\(got"):
        optimizer.load_state_dict(saved)
    assert_equal_states(optimizer.state_dict(), before)


def break_step(entry: dict[str, Any]) -> None:
    del entry["kronecker"]["step"]


def break_estimator(entry: dict[str, Any]) -> None:
    entry["kronecker"]["estimator"] = "optimal"


def break_momentum(entry: dict[str, Any]) -> None:
    (entry["kronecker"] if "momentum" in entry["kronecker"] else entry)["momentum"] = normal(7, 9)


@pytest.mark.parametrize("make", ["AdamW", "Shampoo adam"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_step, "state 0 must have a step, an int >= 0 .got step=None"),
        (break_estimator, "state 0 must be of estimator 'shampoo2'.*got estimator='optimal'"),
        (break_momentum, r"state 0 must have a momentum of shape \(9, 7\).*got momentum=\(7, 9\)"),
    ],
)
def test_other_states_are_refused_before_anything_is_written(
    damage: Callable[[dict[str, Any]], None], message: str, make: str
) -> None:
    weight = nn.Parameter(normal(9, 7))
    optimizer = MAKERS[make]([weight])
    weight.grad = normal(9, 7)
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    damage(saved["state"][0])
    saved["param_groups"][0]["lr"] = 123.0
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=f"{type(optimizer).__name__}: {message}"):
        optimizer.load_state_dict(saved)
    assert_equal_states(optimizer.state_dict(), before)


# Adagrad has its state from the start, so torch does not fill in the target's by a step and cannot
# put a full state dict of anything that its own state lacks into it.
@pytest.mark.parametrize(
    ("make", "full_state_dict"),
    [(make, full) for make in MAKERS for full in (False, True) if not (full and "fed" in make)],
)
def test_states_keyed_by_name_resume_bit_for_bit(make: str, full_state_dict: bool) -> None:
    """torch.distributed.checkpoint calls parameters by name."""
    choice = StateDictOptions(full_state_dict=full_state_dict)
    net, loss = make_problem()
    optimizer = MAKERS[make](net.parameters())
    train(optimizer, loss, 0, 5)
    # A copy: torch's optimizers, as wrapped here, take over the very tensors that they are given.
    saved = copy.deepcopy(get_optimizer_state_dict(net, optimizer, options=choice))
    assert "0.weight" in saved["state"]
    other, other_loss = make_problem(seed=1)
    other.load_state_dict(net.state_dict())
    resumed = MAKERS[make](other.parameters())
    set_optimizer_state_dict(other, resumed, saved, options=choice)
    assert_equal_states(resumed.state_dict(), optimizer.state_dict())
    train(optimizer, loss, 5, 9)
    train(resumed, other_loss, 5, 9)
    for ours, theirs in zip(values_of(net), values_of(other), strict=True):
        assert torch.equal(ours, theirs)


def test_the_state_of_an_unwrapped_base_can_be_taken_over() -> None:
    net, loss = make_problem()
    base = torch.optim.AdamW(net.parameters(), lr=0.01)
    train(base, loss, 0, 3)
    saved = copy.deepcopy(base.state_dict())
    optimizer = Preconditioned(torch.optim.AdamW(net.parameters(), lr=0.5), **OPTIONS)
    optimizer.load_state_dict(saved)
    assert_equal_states(optimizer.state_dict(), saved)
    train(optimizer, loss, 3, 7)
    assert optimizer.report().step == 4


def test_the_engine_alone_resumes_bit_for_bit() -> None:
    engines = [KroneckerPreconditioner([torch.zeros(9, 7)], **OPTIONS) for _ in range(2)]
    for seed in range(5):
        engines[0].update([normal(9, 7, seed=seed)])
    engines[1].load_state_dict(copy.deepcopy(engines[0].state_dict()))
    results = []
    for engine in engines:
        for seed in range(5, 10):
            usable = engine.update([normal(9, 7, seed=seed)])
        results.append(engine.precondition(usable)[0])
    assert_equal_states(*results)


def test_the_state_of_one_parameter_can_be_reset() -> None:
    weights = [nn.Parameter(normal(5, 7)) for _ in range(2)]
    reset, fresh = (Shampoo([weight], lr=0.1) for weight in weights)
    weights[0].grad = normal(5, 7, seed=1)
    reset.step()
    reset.state[weights[0]] = {}
    weights[0].grad = normal(5, 7, seed=2)
    reset.step()
    weights[1].grad = normal(5, 7, seed=2)
    fresh.step()
    ours, theirs = (optimizer.state_dict()["state"][0] for optimizer in (reset, fresh))
    assert ours["momentum"].any()
    # The weight of the second gradient goes by the step count, which the engine keeps.
    share = (1 - 0.9) / (1 - 0.9**2)
    assert torch.allclose(ours["momentum"], share * theirs["momentum"], rtol=1e-5)
