"""What happens when something goes wrong: NaN, failed roots, zeros, sparse, missing, reshaped."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import assert_refused, normal, relative_error
from torch import Tensor, nn

from kronext.optim import KroneckerPreconditioner, Preconditioned, Shampoo, lists

OPTIONS: dict[str, Any] = {"start_step": 1, "update_interval": 1}
MAKERS: dict[str, Callable[..., Any]] = {
    "base": lambda params, **o: Preconditioned(torch.optim.AdamW(params), **OPTIONS, **o),
    "grad": lambda params, **o: Preconditioned(
        torch.optim.SGD(params, lr=0.1, momentum=0.9), graft="grad", **OPTIONS, **o
    ),
    "None": lambda params, **o: Preconditioned(
        torch.optim.SGD(params, lr=0.1), graft=None, **OPTIONS, **o
    ),
    "Shampoo": lambda params, **o: Shampoo(params, **OPTIONS, **o),
    "Shampoo None": lambda params, **o: Shampoo(params, graft=None, **OPTIONS, **o),
}


def step(optimizer: Any, params: list[nn.Parameter], gradients: list[Tensor | None]) -> None:
    for parameter, gradient in zip(params, gradients, strict=True):
        parameter.grad = None if gradient is None else gradient.clone()
    optimizer.step()


def snapshot(optimizer: Any, params: list[nn.Parameter], index: int) -> list[Any]:
    return copy.deepcopy([params[index].detach(), optimizer.state_dict()["state"].get(index)])


def equal(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, (list, tuple)):
        return len(ours) == len(theirs) and all(map(equal, ours, theirs))
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(equal(ours[k], theirs[k]) for k in ours)
    return bool(ours == theirs)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("make", MAKERS)
def test_a_gradient_that_is_not_finite_leaves_its_parameter_alone(make: str, bad: float) -> None:
    """1e30 is finite but its square, which the factors hold, is not."""
    params = [nn.Parameter(normal(5, 7)), nn.Parameter(normal(6)), nn.Parameter(normal(4, 4))]
    optimizer = MAKERS[make](params)
    good = [normal(5, 7, seed=1), normal(6, seed=2), normal(4, 4, seed=3)]
    step(optimizer, params, good)
    poisoned = [tensor.clone() for tensor in good]
    poisoned[0][2, 3] = bad
    poisoned[1][0] = bad
    before = [snapshot(optimizer, params, index) for index in range(3)]
    step(optimizer, params, poisoned)
    if torch.get_default_device().type == "cpu":  # elsewhere the base gets zeros
        for index in range(3):
            assert equal(before[index], snapshot(optimizer, params, index)) == (index < 2)
    report = optimizer.report()
    assert (report.gradients_skipped, report.total_gradients_skipped) == (2, 2)
    assert params[0].grad is not None
    torch.testing.assert_close(params[0].grad, poisoned[0], equal_nan=True, rtol=0, atol=0)
    step(optimizer, params, good)
    report = optimizer.report()
    assert (report.gradients_skipped, report.total_gradients_skipped) == (0, 2)
    assert all(parameter.isfinite().all() for parameter in params)


@pytest.mark.parametrize("estimator", ["shampoo", "shampoo2", "optimal"])
@pytest.mark.parametrize("beta", [0.9, 0.0, None])
def test_without_a_look_from_the_host_factors_are_untouched_too(
    estimator: str, beta: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of accelerators, on the CPU."""
    monkeypatch.setattr(lists, "host_reads_for_free", lambda device: False)
    shapes = [(5, 7), (3, 4)]
    engine = KroneckerPreconditioner(
        [torch.zeros(shape) for shape in shapes], estimator=estimator, beta=beta, **OPTIONS
    )
    engine.update([normal(*shape, seed=1) for shape in shapes])
    before = copy.deepcopy(engine.state_dict())
    bad = normal(5, 7, seed=2)
    bad[0, 0], bad[1, 1] = float("nan"), float("-inf")
    usable = engine.update([bad, normal(3, 4, seed=2)])
    after = engine.state_dict()
    assert usable[0] is not None
    assert not usable[0].any()
    for name in ("left", "right", "left_root", "right_root"):
        assert equal(before[0][name], after[0][name])
        assert not equal(before[1][name], after[1][name])
    assert engine.report().gradients_skipped == 1
    # Good gradients give what they give on the other path, to rounding.
    monkeypatch.undo()
    twin = KroneckerPreconditioner([torch.zeros(3, 4)], estimator=estimator, beta=beta, **OPTIONS)
    for seed in (1, 2):
        twin.update([normal(3, 4, seed=seed)])
    for ours, theirs in zip(after[1]["left"], twin.state_dict()[0]["left"], strict=True):
        assert relative_error(ours, theirs.double()) < 1e-6


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("estimator", ["shampoo", "shampoo2", "optimal"])
def test_beta_zero_forgets_all_but_the_direction(
    estimator: str, capturable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the path of accelerators too, however much smaller the new gradient is."""
    gradients = [normal(5, 7, seed=1), 1e-12 * normal(5, 7, seed=2)]
    options = {**OPTIONS, "estimator": estimator, "beta": 0.0}
    usual = KroneckerPreconditioner([torch.zeros(5, 7)], **options)
    for gradient in gradients:
        usual.update([gradient])
    monkeypatch.setattr(lists, "host_reads_for_free", lambda device: False)
    engine = KroneckerPreconditioner([torch.zeros(5, 7)], capturable=capturable, **options)
    for gradient in gradients:
        engine.update([gradient])
    for name in ("left", "right"):
        (ours,), (theirs,) = engine.state_dict()[0][name], usual.state_dict()[0][name]
        assert relative_error(ours, theirs.double()) < 1e-6


@pytest.mark.parametrize("estimator", ["shampoo", "shampoo2", "optimal"])
def test_a_failed_root_keeps_the_old_one(estimator: str) -> None:
    engine = KroneckerPreconditioner([torch.zeros(5, 7)], estimator=estimator, **OPTIONS)
    engine.update([normal(5, 7, seed=1)])
    before = copy.deepcopy(engine.state_dict()[0])
    engine.state_dict()[0]["left"][0].fill_(float("nan"))
    usable = engine.update([normal(5, 7, seed=2)])
    after = engine.state_dict()[0]
    assert equal(before["left_root"], after["left_root"])
    report = engine.report()
    assert report.roots_refreshed == 2
    assert report.roots_failed == report.total_roots_failed >= 1
    (direction,) = engine.precondition(usable)
    assert direction is not None
    assert direction.isfinite().all()


def test_a_root_that_fails_at_first_is_the_identity() -> None:
    engine = KroneckerPreconditioner([torch.zeros(5, 7)], start_step=2, update_interval=1)
    engine.update([normal(5, 7, seed=1)])
    state = engine.state_dict()[0]
    for factor in (*state["left"], *state["right"]):
        factor.fill_(float("nan"))
    gradient = normal(5, 7, seed=2)
    (direction,) = engine.precondition(engine.update([gradient]))
    assert direction is not None
    assert torch.equal(direction, gradient)


def test_raise_on_failure() -> None:
    for make in MAKERS.values():
        params = [nn.Parameter(normal(5, 7))]
        optimizer = make(params, raise_on_failure=True)
        name = type(optimizer).__name__
        step(optimizer, params, [normal(5, 7, seed=1)])
        before = snapshot(optimizer, params, 0)
        with pytest.raises(RuntimeError, match=rf"{name}: gradients must be finite \(got 1"):
            step(optimizer, params, [torch.full((5, 7), float("nan"))])
        assert equal(before, snapshot(optimizer, params, 0))
        optimizer.state_dict()["state"][0]["kronecker"]["right"][0].fill_(float("nan"))
        weight = params[0].detach().clone()
        with pytest.raises(RuntimeError, match=rf"{name}: inverse roots must exist \(got 1"):
            step(optimizer, params, [normal(5, 7, seed=2)])
        assert torch.equal(params[0], weight)


@pytest.mark.parametrize("estimator", ["shampoo", "shampoo2", "optimal"])
@pytest.mark.parametrize("make", MAKERS)
def test_zero_gradients_at_first_give_no_nan(make: str, estimator: str) -> None:
    params = [nn.Parameter(normal(5, 7)), nn.Parameter(normal(3))]
    optimizer = MAKERS[make](params, estimator=estimator, relative_eps=0.0)
    zeros: list[Tensor | None] = [torch.zeros(5, 7), torch.zeros(3)]
    for _ in range(2):
        step(optimizer, params, zeros)
    decayed = 0.99999**2 if make == "base" else 1.0  # AdamW decays weights by default
    assert relative_error(params[0].detach(), decayed * normal(5, 7).double()) < 1e-6
    assert optimizer.report().roots_failed == 0
    before = params[0].detach().clone()
    step(optimizer, params, [normal(5, 7, seed=1), normal(3, seed=1)])
    assert params[0].isfinite().all()
    assert not torch.equal(params[0], before)


@pytest.mark.parametrize("make", MAKERS)
def test_low_rank_gradients_give_no_nan(make: str) -> None:
    params = [nn.Parameter(normal(8, 8))]
    optimizer = MAKERS[make](params, relative_eps=0.0)
    for seed in range(3):
        step(optimizer, params, [normal(8, 1, seed=seed) @ normal(1, 8, seed=seed + 9)])
        assert params[0].isfinite().all()
    assert optimizer.report().total_roots_failed == 0


@pytest.mark.parametrize("make", MAKERS)
def test_a_parameter_without_a_gradient_is_skipped(make: str) -> None:
    params = [nn.Parameter(normal(5, 7)), nn.Parameter(normal(5, 7, seed=1))]
    optimizer = MAKERS[make](params)
    step(optimizer, params, [normal(5, 7, seed=1), None])
    step(optimizer, params, [normal(5, 7, seed=2), normal(5, 7, seed=2)])
    before = [snapshot(optimizer, params, index) for index in range(2)]
    step(optimizer, params, [None, normal(5, 7, seed=3)])
    assert equal(before[0], snapshot(optimizer, params, 0))
    assert not equal(before[1], snapshot(optimizer, params, 1))
    assert optimizer.report().parameters == 1
    steps = [entry["kronecker"]["step"] for entry in optimizer.state_dict()["state"].values()]
    assert steps == [2, 2], "each parameter counts its own gradients"


def test_a_late_parameter_starts_like_an_early_one() -> None:
    engine = KroneckerPreconditioner([torch.zeros(4, 4), torch.zeros(4, 4)], **OPTIONS)
    for seed in range(3):
        engine.update([normal(4, 4, seed=seed), None])
    engine.update([None, normal(4, 4, seed=5)])
    alone = KroneckerPreconditioner([torch.zeros(4, 4)], **OPTIONS)
    alone.update([normal(4, 4, seed=5)])
    assert equal(engine.state_dict()[1], alone.state_dict()[0])


@pytest.mark.parametrize("make", MAKERS)
def test_sparse_gradients_are_refused(make: str) -> None:
    params = [nn.Parameter(normal(4, 4)), nn.Parameter(normal(5, 7))]
    optimizer = MAKERS[make](params)
    params[0].grad = normal(4, 4, seed=1)
    params[1].grad = normal(5, 7, seed=1).to_sparse()
    name = type(optimizer).__name__
    assert_refused(optimizer.step, ValueError, f"{name}: gradient 1 must be dense", params)
    assert not optimizer.state_dict()["state"]


def test_shampoo_refuses_sparse_gradients_of_parameters_that_pass_through() -> None:
    params = [nn.Parameter(normal(4, 4)), nn.Parameter(normal(5, 7))]
    optimizer = Shampoo([{"params": params, "preconditioner": None}], lr=0.1)
    params[0].grad = normal(4, 4, seed=1)
    params[1].grad = normal(5, 7, seed=1).to_sparse()
    assert_refused(optimizer.step, ValueError, "Shampoo: gradient 1 must be dense", params)
    assert not optimizer.state_dict()["state"]


@pytest.mark.parametrize("shape", [(5, 7), (5,)], ids=["matrix", "vector"])
@pytest.mark.parametrize("make", MAKERS)
def test_a_changed_shape_is_refused(make: str, shape: tuple[int, ...]) -> None:
    params = [nn.Parameter(normal(*shape))]
    optimizer = MAKERS[make](params)
    params[0].grad = normal(*shape, seed=1)
    optimizer.step()
    params[0].data = normal(*shape[:-1], 3)
    params[0].grad = normal(*shape[:-1], 3)
    before = copy.deepcopy(optimizer.state_dict()["state"])
    name = type(optimizer).__name__
    message = f"{name}: parameter 0 and its gradient must keep the shape {shape}"
    assert_refused(optimizer.step, ValueError, message, params)
    assert equal(optimizer.state_dict()["state"], before)


@pytest.mark.parametrize("make", MAKERS)
def test_complex_parameters_are_refused(make: str) -> None:
    params = [nn.Parameter(torch.zeros(3, 3, dtype=torch.complex64))]
    assert_refused(lambda: MAKERS[make](params), TypeError, "parameters must be float64")


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int32])
def test_gradients_of_other_dtypes_are_refused(dtype: torch.dtype) -> None:
    engine = KroneckerPreconditioner([torch.zeros(3, 4), torch.zeros(3)], **OPTIONS)
    for gradients in ([torch.ones(3, 4, dtype=dtype), None], [None, torch.ones(3, dtype=dtype)]):
        index = 0 if gradients[0] is not None else 1
        with pytest.raises(
            TypeError, match=rf"gradient {index} must be float64.*got dtype={dtype}"
        ):
            engine.update(gradients)
    assert engine.steps == [0, 0]


@pytest.mark.parametrize("estimator", ["shampoo2", "optimal"])
@pytest.mark.parametrize("exponent", [0.75, 1.0])
@pytest.mark.parametrize("graft", ["base", "grad", None])
def test_directions_beyond_float16_give_no_nan(graft: Any, exponent: float, estimator: Any) -> None:
    """Gradients of 1e-4 have an inverse of up to 1e7, float16 ends at 65504."""
    weight = nn.Parameter(normal(6, 8).half())
    optimizer = Preconditioned(
        torch.optim.SGD([weight], lr=1e-4),
        graft=graft,
        exponent=exponent,
        estimator=estimator,
        **OPTIONS,
    )
    for seed in range(3):
        step(optimizer, [weight], [(1e-4 * normal(6, 8, seed=seed)).half()])
        assert weight.isfinite().all()


def test_a_direction_beyond_float16_still_turns_the_step() -> None:
    """The same gradients in float32 say where a float16 parameter goes, and how far."""
    steps = []
    for dtype in (torch.float16, torch.float32):
        weight = nn.Parameter(torch.zeros(6, 8, dtype=dtype))
        optimizer = Preconditioned(torch.optim.SGD([weight], lr=1.0), exponent=1.0, **OPTIONS)
        gradient = (1e-4 * normal(6, 8, seed=1)).half()
        step(optimizer, [weight], [gradient.to(dtype)])
        steps.append(weight.detach().double())
    assert relative_error(*steps) < 2e-3


def test_reports_read_well() -> None:
    params = [nn.Parameter(normal(5, 7)), nn.Parameter(normal(3))]
    optimizer = MAKERS["Shampoo"](params, block_size=4)
    assert str(optimizer.report()).startswith("step 0: 0 parameters in 0 blocks")
    step(optimizer, params, [normal(5, 7), normal(3)])
    assert str(optimizer.report()) == (
        "step 1: 1 parameters in 4 blocks, 1 passed through; 8 roots refreshed, 0 failed "
        "(total 0); 0 gradients skipped (total 0)"
    )
