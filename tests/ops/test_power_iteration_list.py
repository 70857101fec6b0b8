"""power_iteration_list_: one online step of power iteration for each gradient of a list."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers import (
    FACTOR,
    FLOATING,
    SHAPES,
    assert_refused,
    name,
    normal,
    symmetric,
)
from power_iteration_cases import DECAY, WEIGHT, check_online_steps, zeros
from torch import Tensor
from torch.library import opcheck

from kronext import ops, reference


@pytest.mark.parametrize("factor_dtype", FACTOR, ids=name)
@pytest.mark.parametrize("dtype", FLOATING, ids=name)
def test_online_steps_follow_the_reference(dtype: torch.dtype, factor_dtype: torch.dtype) -> None:
    check_online_steps(ops.power_iteration_list_, dtype, factor_dtype, SHAPES)


def test_list_equals_single_calls_bit_for_bit() -> None:
    shapes = [(4, 4), (33, 20), (0, 5), (128, 64), (7, 300), (65, 65), (400, 500)]
    Gs = [normal(*shape) for shape in shapes]
    listed, single = ([zeros(*shape) for shape in shapes] for _ in range(2))
    for _ in range(2):
        Ls, Rs = ([pair[side] for pair in listed] for side in (0, 1))
        ops.power_iteration_list_(Ls, Rs, Gs, decay=DECAY, weight=WEIGHT)
        for (L, R), G in zip(single, Gs, strict=True):
            ops.power_iteration_list_([L], [R], [G], decay=DECAY, weight=WEIGHT)
    for pair, other in zip(listed, single, strict=True):
        assert torch.equal(pair[0], other[0])
        assert torch.equal(pair[1], other[1])
    ops.power_iteration_list_([], [], [], decay=DECAY, weight=WEIGHT)


def test_online_numbers_for_each_gradient() -> None:
    Gs = [normal(4, 5), normal(33, 20, seed=1)]
    listed = [[torch.eye(len(G)) for G in Gs], [torch.eye(G.shape[1]) for G in Gs]]
    single = [[factor.clone() for factor in side] for side in listed]
    ops.power_iteration_list_(*listed, Gs, decay=[0.5, 0.9], weight=[1.0, 2.0])
    for i, numbers in enumerate([{"decay": 0.5, "weight": 1.0}, {"decay": 0.9, "weight": 2.0}]):
        ops.power_iteration_list_([single[0][i]], [single[1][i]], [Gs[i]], **numbers)
        assert torch.equal(listed[0][i], single[0][i])
        assert torch.equal(listed[1][i], single[1][i])


def test_online_batches_zero_decay_and_other_scales() -> None:
    L, R = zeros(5, 6, 3)
    G = normal(5, 6)
    ops.power_iteration_list_([L], [R], [G], decay=DECAY, weight=WEIGHT)
    expected = WEIGHT * G @ G.mT / 6**0.5
    torch.testing.assert_close(L, expected.expand(3, 5, 5), rtol=1e-5, atol=1e-6)
    garbage = torch.full((5, 5), float("nan"))
    ops.power_iteration_list_([garbage], [zeros(5, 6)[1]], [G], decay=0.0, weight=WEIGHT)
    torch.testing.assert_close(garbage, expected, rtol=1e-5, atol=1e-6)
    for scale in (1e-150, 1e150):
        L, R = (scale * symmetric(k, k, dtype=torch.float64) for k in (5, 6))
        result = [L.clone(), R.clone()]
        ops.power_iteration_list_(result[:1], result[1:], [G], decay=0.0, weight=WEIGHT)
        unit = reference.power_iteration_update(L / scale, R / scale, G, decay=0.0, weight=WEIGHT)
        torch.testing.assert_close(result[0], unit[0])


def test_running_averages_converge_to_the_optimum() -> None:
    """With a fixed H the directions of the averages become the leading singular vectors."""
    Gs = list(normal(8, 4, 5, dtype=torch.float64) * 0.5 ** torch.arange(5))
    L, R = zeros(4, 5, dtype=torch.float64)
    for _ in range(100):
        for G in Gs:
            ops.power_iteration_list_([L], [R], [G], decay=0.999, weight=0.001)
    best = ops.power_iteration(torch.stack(Gs), steps=100)
    torch.testing.assert_close(L / torch.linalg.norm(L), best.left[0], rtol=0, atol=2e-3)
    torch.testing.assert_close(R / torch.linalg.norm(R), best.right[0], rtol=0, atol=2e-3)


def test_no_graph_is_recorded() -> None:
    L, R = (t.requires_grad_() for t in zeros(4, 5))
    ops.power_iteration_list_([L], [R], [normal(4, 5)], decay=DECAY, weight=WEIGHT)
    assert L.grad_fn is None
    assert L.is_leaf


@pytest.mark.real
def test_opcheck() -> None:
    L, R = zeros(4, 5, 3)
    given = ([L], [R], [normal(3, 4, 5)])
    options = {"decay": [DECAY], "weight": [WEIGHT]}
    opcheck(torch.ops.kronext.power_iteration_list_.default, given, options)


@pytest.mark.real
def test_compiles_to_one_graph() -> None:
    def step(L: Tensor, R: Tensor, G: Tensor) -> Tensor:
        ops.power_iteration_list_([L, L * 2], [R, R * 2], [G * 2, G], decay=DECAY, weight=WEIGHT)
        return L.sum() + R.sum()

    eager, traced, G = zeros(4, 5), zeros(4, 5), normal(4, 5)
    expected = step(*eager, G)
    torch.testing.assert_close(torch.compile(step, fullgraph=True)(*traced, G), expected)
    torch.testing.assert_close(traced, eager)


BAD_LIST = [
    ({"Ls": []}, ValueError, "Ls must be as long as Gs"),
    ({"Rs": [torch.zeros(4, 4)]}, ValueError, "R must be 5 x 5"),
    ({"Gs": [torch.zeros(5)]}, ValueError, "G must have at least 2 dimensions"),
    ({"Gs": [torch.zeros(2, 4, 5)]}, ValueError, "L and R must have one batch"),
    ({"Rs": [torch.zeros(5, 5).double()]}, TypeError, "L and R must have one dtype"),
    ({"Ls": [torch.zeros(8, 8)[::2, ::2]]}, ValueError, "L must be dense"),
    ({"decay": None}, TypeError, "decay must be a number"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD_LIST, ids=[b[2] for b in BAD_LIST])
def test_bad_list_is_refused_before_any_write(change, error, message: str) -> None:
    first = zeros(4, 5)
    given = {"Ls": [torch.ones(4, 4)], "Rs": [torch.ones(5, 5)], "Gs": [torch.ones(4, 5)]} | change
    lists = {key: [first["LR".index(key[0])], *given[key]] for key in ("Ls", "Rs")}
    lists["Gs"] = [torch.ones(4, 5), *given["Gs"]]
    options = {"decay": given.get("decay", 0.5), "weight": 1.0}
    call: Callable[[], object] = lambda: ops.power_iteration_list_(**lists, **options)  # noqa: E731
    assert_refused(call, error, f"power_iteration_list_: {message}", first)
