"""The engine against the formulas of the paper, written out in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers import normal, relative_error
from torch import Tensor

from kronext.optim import KroneckerPreconditioner, Preconditioned, Shampoo

ESTIMATORS = ("shampoo", "shampoo2", "optimal")
UNDAMPED = {"relative_eps": 0.0, "start_step": 1, "update_interval": 1}


def power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values**exponent) @ vectors.mT


def unit(matrix: Tensor) -> Tensor:
    norm = torch.linalg.matrix_norm(matrix)
    size = matrix.shape[0]
    return matrix / norm if norm > 0 else torch.eye(size, dtype=matrix.dtype) / size**0.5


class Textbook:
    """`c^{-p} A^{-p} G B^{-p}` with plain sums, or averages corrected by `1 - beta^t`."""

    def __init__(self, estimator: str, exponent: float, beta: float | None) -> None:
        self.estimator, self.exponent, self.beta = estimator, exponent, beta
        self.step = 0
        self.left = self.right = torch.zeros(())

    def __call__(self, gradient: Tensor) -> Tensor:
        m, n = gradient.shape
        if self.step == 0:
            self.left, self.right = gradient.new_zeros(m, m), gradient.new_zeros(n, n)
        self.step += 1
        inner_left, inner_right = torch.eye(m).double(), torch.eye(n).double()
        if self.estimator == "optimal":
            inner_left, inner_right = unit(self.left), unit(self.right)
        decay, weight = (1.0, 1.0) if self.beta is None else (self.beta, 1 - self.beta)
        self.left = decay * self.left + weight * gradient @ inner_right @ gradient.mT
        self.right = decay * self.right + weight * gradient.mT @ inner_left @ gradient
        correction = 1.0 if self.beta is None else 1 - self.beta**self.step
        left, right = self.left / correction, self.right / correction
        p = self.exponent
        match self.estimator:
            case "shampoo":
                return power(left, -p / 2) @ gradient @ power(right, -p / 2)
            case "shampoo2":
                return left.trace() ** p * power(left, -p) @ gradient @ power(right, -p)
            case _:
                scale = (torch.linalg.matrix_norm(left) * torch.linalg.matrix_norm(right)) ** 0.5
                return scale**p * power(left, -p) @ gradient @ power(right, -p)


def regression(t: int, weight: Tensor) -> Tensor:
    """Loss of batch `t`: new inputs and targets at every step, so that factors have full rank."""
    x = normal(64, 6, seed=2 * t).to(weight.dtype)
    y = normal(64, 6, seed=2 * t + 1).to(weight.dtype)
    return (x @ weight.mT - y).square().sum() / 128


def wrapped_sgd(weight: Tensor, lr: float, **options: object) -> torch.optim.Optimizer:
    return Preconditioned(torch.optim.SGD([weight], lr=lr), graft=None, **options)


def ready_made(weight: Tensor, lr: float, **options: object) -> torch.optim.Optimizer:
    return Shampoo([weight], lr=lr, betas=(0.0, 0.0), graft=None, **options)


@pytest.mark.parametrize("make", [wrapped_sgd, ready_made])
@pytest.mark.parametrize("beta", [None, 0.9])
@pytest.mark.parametrize("exponent", [0.5, 0.25, 1.0])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_twenty_steps_follow_the_formula(
    estimator: str, exponent: float, beta: float | None, make: Callable[..., torch.optim.Optimizer]
) -> None:
    lr = 0.001 if exponent == 1 else 0.02
    # A full inverse passes the rounding of float32 factors on times their condition, squared.
    tolerance = 1e-4 if exponent == 1 else 1e-5
    weight = torch.nn.Parameter(normal(6, 6))
    expected = weight.detach().double()
    textbook = Textbook(estimator, exponent, beta)
    optimizer = make(
        weight, lr, estimator=estimator, exponent=exponent, beta=beta, eps=0.0, **UNDAMPED
    )
    for t in range(20):
        optimizer.zero_grad()
        regression(t, weight).backward()
        optimizer.step()
        leaf = expected.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(regression(t, leaf), leaf)
        expected = expected - lr * textbook(gradient)
        assert relative_error(weight.detach(), expected) < tolerance
    assert relative_error(weight.detach(), normal(6, 6)) > 1e-3, "the weight has hardly moved"


def test_beta_one_is_the_sum() -> None:
    results = []
    for beta in (None, 1.0):
        weight = torch.nn.Parameter(normal(6, 6))
        optimizer = wrapped_sgd(weight, 0.1, beta=beta)
        for t in range(12):
            optimizer.zero_grad()
            regression(t, weight).backward()
            optimizer.step()
        results.append(weight.detach())
    assert torch.equal(*results)


def directions(shape: tuple[int, ...], gradients: list[Tensor], **options: object) -> Tensor:
    """Return the last preconditioned gradient of one parameter that saw all of `gradients`."""
    engine = KroneckerPreconditioner([torch.zeros(shape)], **{"start_step": 1, **options})
    for gradient in gradients:
        usable = engine.update([gradient])
    (direction,) = engine.precondition(usable)
    assert direction is not None
    return direction


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_blocks_are_independent_problems(estimator: str) -> None:
    gradients = [normal(7, 10, seed=seed) for seed in range(5)]
    whole = directions((7, 10), gradients, estimator=estimator, block_size=4)
    for rows in torch.arange(7).tensor_split(2):
        for columns in torch.arange(10).tensor_split(3):
            parts = [gradient[rows][:, columns] for gradient in gradients]
            alone = directions(tuple(parts[0].shape), parts, estimator=estimator)
            assert torch.equal(whole[rows][:, columns], alone)


@pytest.mark.parametrize("shape", [(4, 3, 3, 2), (1, 4, 18), (4, 18, 1, 1), (4, 1, 3, 6)])
def test_more_dimensions_are_out_times_the_rest(shape: tuple[int, ...]) -> None:
    gradients = [normal(4, 18, seed=seed) for seed in range(3)]
    as_matrix = directions((4, 18), gradients, block_size=8)
    as_tensor = directions(shape, [gradient.view(shape) for gradient in gradients], block_size=8)
    assert as_tensor.shape == shape
    assert torch.equal(as_tensor.reshape(4, 18), as_matrix)


def test_channels_last_gradients_give_the_same() -> None:
    gradients = [normal(4, 3, 3, 2, seed=seed) for seed in range(3)]
    other_order = [gradient.to(memory_format=torch.channels_last) for gradient in gradients]
    shape = (4, 3, 3, 2)
    assert torch.equal(directions(shape, gradients), directions(shape, other_order))


def test_a_side_of_one_is_full_matrix_adagrad() -> None:
    gradients = [normal(1, 5, seed=seed) for seed in range(8)]
    direction = directions((1, 5), gradients, beta=None, relative_eps=0.0, update_interval=1)
    second_moment = sum(gradient.mT.double() @ gradient.double() for gradient in gradients)
    expected = gradients[-1].double() @ power(second_moment, -0.5)
    assert relative_error(direction, expected) < 1e-5


@pytest.mark.parametrize("shape", [(), (5,), (5, 1, 1), (0, 3), (1, 1, 5)])
def test_vectors_pass_through(shape: tuple[int, ...]) -> None:
    engine = KroneckerPreconditioner([torch.zeros(shape)], start_step=1)
    gradient = torch.ones(shape)
    usable = engine.update([gradient])
    assert engine.precondition(usable)[0] is usable[0]
    assert torch.equal(usable[0], gradient)
    assert engine.report().passed_through == 1


@pytest.mark.parametrize("estimator", ["shampoo2", "optimal"])
def test_the_default_is_indifferent_to_the_scale_of_the_loss(estimator: str) -> None:
    gradients = [normal(6, 9, seed=seed) for seed in range(5)]
    direction = directions((6, 9), gradients, estimator=estimator)
    for scale in (2.0**-20, 2.0**20):
        scaled = [gradient * scale for gradient in gradients]
        other = directions((6, 9), scaled, estimator=estimator)
        assert relative_error(other, direction.double()) < 1e-5


def test_absolute_damping_bounds_the_root() -> None:
    gradients = [1e-6 * normal(6, 6, seed=seed) for seed in range(3)]
    direction = directions(
        (6, 6), gradients, estimator="shampoo", eps=1.0, relative_eps=0.0, update_interval=1
    )
    assert relative_error(direction, gradients[-1].double()) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    gradients = [normal(6, 9, seed=seed).to(dtype) for seed in range(5)]
    engine = KroneckerPreconditioner([torch.zeros(6, 9, dtype=dtype)], start_step=1)
    for gradient in gradients:
        usable = engine.update([gradient])
    (direction,) = engine.precondition(usable)
    assert direction is not None
    expected_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    assert direction.dtype == expected_dtype
    state = engine.state_dict()[0]
    assert {tensor.dtype for name in ("left", "left_root") for tensor in state[name]} == {
        expected_dtype
    }
    exact = directions((6, 9), [gradient.double() for gradient in gradients])
    assert relative_error(direction, exact.double()) < 2 * torch.finfo(dtype).eps + 1e-5
