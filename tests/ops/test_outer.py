"""outer_update_ and outer_update_list_: L <- decay L + weight G GT, R <- decay R + weight GT G."""

from __future__ import annotations

import pytest
import torch
from helpers import (
    FACTOR,
    FLOATING,
    SHAPES,
    assert_accurate,
    assert_autograd_notices,
    assert_refused,
    integers,
    name,
    normal,
    sliced,
    symmetric,
    transposed_memory,
)
from outer_cases import DECAY, WEIGHT, check_update, factors
from torch import Tensor
from torch.library import opcheck

from kronext import ops


@pytest.mark.parametrize("factor_dtype", FACTOR, ids=name)
@pytest.mark.parametrize("dtype", FLOATING, ids=name)
def test_values_of_every_shape(dtype: torch.dtype, factor_dtype: torch.dtype) -> None:
    for m, n in SHAPES:
        L, R = factors(m, n, dtype=factor_dtype)
        check_update(ops.outer_update_, normal(m, n, dtype=dtype), L, R)


@pytest.mark.parametrize("dtype", FLOATING, ids=name)
@pytest.mark.parametrize("view", [sliced, transposed_memory])
def test_strided_gradients(view, dtype: torch.dtype) -> None:
    for m, n in [(5, 7), (33, 17), (64, 70)]:
        L, R = factors(m, n)
        check_update(ops.outer_update_, view(normal(m, n, dtype=dtype)), L, R)


def test_batch_dimensions_broadcast_from_gradient_to_factor() -> None:
    L, R = factors(3, 2, 17, 9)
    check_update(ops.outer_update_, normal(2, 17, 9), L, R)
    check_update(ops.outer_update_, normal(1, 17, 9).expand(3, 2, 17, 9), L, R)
    check_update(ops.outer_update_, normal(3, 2, 9, 17).mT, L, R)


def test_factors_inside_a_larger_buffer() -> None:
    buffer = torch.full((4, 40, 40), float("nan"))
    L = buffer[::2, :, :]
    L.copy_(symmetric(2, 40, 40))
    G = normal(2, 40, 11)
    expected = DECAY * L.double() + WEIGHT * G.double() @ G.double().mT
    ops.outer_update_(L, None, G, decay=DECAY, weight=WEIGHT)
    torch.testing.assert_close(L.double(), expected, rtol=1e-6, atol=1e-6)
    assert buffer[1::2].isnan().all(), "memory between the factors was written"


def test_only_the_lower_triangle_is_read() -> None:
    for m in (5, 32, 45, 70):
        L = symmetric(m, m)
        poisoned = L.tril() + torch.full((m, m), float("nan")).triu(1)
        G = normal(m, 9)
        ops.outer_update_(L, None, G, decay=DECAY, weight=WEIGHT)
        ops.outer_update_(poisoned, None, G, decay=DECAY, weight=WEIGHT)
        assert torch.equal(L, poisoned), f"m={m}: the upper triangle was read"


def test_zero_decay_does_not_read_the_factor() -> None:
    for m in (5, 32, 45):
        L, G = torch.full((m, m), float("nan")), normal(m, 9)
        ops.outer_update_(L, None, G, decay=0.0, weight=1.0)
        torch.testing.assert_close(L, G @ G.mT, rtol=1e-5, atol=1e-5)


def test_long_sums_stay_accurate() -> None:
    G = normal(24, 30_000)
    L = torch.zeros(24, 24)
    ops.outer_update_(L, None, G, decay=0.0, weight=1.0)
    assert_accurate(L, G.double() @ G.double().mT, G @ G.mT)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name)
def test_16_bit_products_are_exact(dtype: torch.dtype) -> None:
    """Small integers: every product and sum is exact in float32, so the result must be."""
    G = integers(-8, 9, 37, 50).to(dtype)
    L, R = torch.zeros(37, 37), torch.zeros(50, 50)
    ops.outer_update_(L, R, G, decay=1.0, weight=1.0)
    assert torch.equal(L, G.float() @ G.float().mT)
    assert torch.equal(R, G.float().mT @ G.float())


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_non_finite_values_stay_in_their_matrix(poison: float) -> None:
    G = normal(3, 20, 33)
    L, R = factors(3, 20, 33)
    clean_L, clean_R = L.clone(), R.clone()
    ops.outer_update_(clean_L, clean_R, G, decay=DECAY, weight=WEIGHT)
    G[1, 4, 5] = poison
    ops.outer_update_(L, R, G, decay=DECAY, weight=WEIGHT)
    for index in (0, 2):
        assert torch.equal(L[index], clean_L[index])
        assert torch.equal(R[index], clean_R[index])
    assert not L[1].isfinite().all()


def test_list_equals_single_calls_bit_for_bit() -> None:
    shapes = [(4, 4), (33, 20), (0, 5), (128, 64), (7, 300), (65, 65)] * 3
    Gs = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    single = [factors(*shape) for shape in shapes]
    Ls, Rs = ([f[side].clone() for f in single] for side in (0, 1))
    Ls[1] = Rs[2] = None
    Ls[4] = Rs[4] = None
    for (L, R), G in zip(single, Gs, strict=True):
        ops.outer_update_(L, R, G, decay=DECAY, weight=WEIGHT)
    ops.outer_update_list_(Ls, Rs, Gs, decay=DECAY, weight=WEIGHT)
    for listed, (L, R) in zip(zip(Ls, Rs, strict=True), single, strict=True):
        for mine, other in zip(listed, (L, R), strict=True):
            assert mine is None or torch.equal(mine, other)


def test_list_takes_a_number_for_each_gradient() -> None:
    shapes = [(4, 4), (33, 20), (7, 9)]
    Gs = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    listed = [factors(*shape) for shape in shapes]
    single = [factors(*shape) for shape in shapes]
    decays, weights = [0.5, 0.0, 1.0], [1.0, 2.0, 0.25]
    for (L, R), G, decay, weight in zip(single, Gs, decays, weights, strict=True):
        ops.outer_update_(L, R, G, decay=decay, weight=weight)
    Ls, Rs = [L for L, _ in listed], [R for _, R in listed]
    ops.outer_update_list_([Ls[0], None, Ls[2]], Rs, Gs, decay=decays, weight=weights)
    ops.outer_update_list_([Ls[1]], None, Gs[1:2], decay=decays[1:2], weight=weights[1])
    for mine, other in zip(Ls + Rs, [s[0] for s in single] + [s[1] for s in single], strict=True):
        assert torch.equal(mine, other)


def test_list_with_one_side_and_empty_list() -> None:
    Gs = [normal(6, 9), normal(40, 3)]
    Rs = [torch.zeros(9, 9), torch.zeros(3, 3)]
    ops.outer_update_list_(None, Rs, Gs, decay=0.0, weight=2.0)
    for R, G in zip(Rs, Gs, strict=True):
        torch.testing.assert_close(R, 2 * G.mT @ G, rtol=1e-5, atol=1e-5)
    ops.outer_update_list_([], [], [], decay=0.0, weight=1.0)


def test_repeats_bit_for_bit_and_across_thread_counts() -> None:
    G = normal(200, 300)
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            L, R = factors(200, 300)
            ops.outer_update_(L, R, G, decay=DECAY, weight=WEIGHT)
            results.append((L, R))
    finally:
        torch.set_num_threads(threads)
    for L, R in results[1:]:
        assert torch.equal(L, results[0][0])
        assert torch.equal(R, results[0][1])


def test_no_graph_is_recorded() -> None:
    G = normal(4, 5).requires_grad_()
    L = torch.zeros(4, 4, requires_grad=True)
    ops.outer_update_(L, None, G, decay=1.0, weight=1.0)
    assert L.is_leaf
    assert L.grad_fn is None
    numbers = {"decay": 0.0, "weight": 1.0}
    assert_autograd_notices(
        lambda L: ops.outer_update_(L, None, torch.ones(4, 5), **numbers), torch.eye(4)
    )
    assert_autograd_notices(
        lambda R: ops.outer_update_list_(None, [R], [torch.ones(4, 5)], **numbers), torch.eye(5)
    )


def test_factors_that_share_memory_are_refused() -> None:
    numbers = {"decay": 1.0, "weight": 1.0}
    overlapping = torch.zeros(20).as_strided((2, 4, 4), (4, 4, 1))
    message = "must not share memory"
    assert_refused(
        lambda: ops.outer_update_(overlapping, None, torch.ones(2, 4, 5), **numbers),
        ValueError,
        message,
        [overlapping],
    )
    square, G = torch.zeros(4, 4), torch.ones(4, 4)
    for Ls, Rs in (([square], [square]), ([square, square], None)):
        assert_refused(
            lambda Ls=Ls, Rs=Rs: ops.outer_update_list_(Ls, Rs, [G] * len(Ls), **numbers),
            ValueError,
            message,
            [square],
        )


def test_a_list_of_mixed_sides_refuses_before_any_write() -> None:
    numbers = {"decay": 1.0, "weight": 1.0}
    L, shared, first, second = (torch.zeros(n, n) for n in (4, 4, 5, 5))
    interleaved = torch.zeros(3, 2, 4, 4)
    G, written = torch.ones(4, 5), [L, shared, first, second]
    message = "must not share memory"
    for Ls, Rs in (
        ([L, shared, shared], [None, first, second]),
        ([shared, shared], [None, first]),
        ([interleaved[:2, 0], interleaved[1:, 0]], [None, torch.zeros(2, 5, 5)]),
    ):
        assert_refused(
            lambda Ls=Ls, Rs=Rs: ops.outer_update_list_(Ls, Rs, [G] * len(Ls), **numbers),
            ValueError,
            message,
            [*written, interleaved],
        )
    elsewhere = [torch.ones(*shape, device="meta") for shape in ((4, 4), (5, 5), (4, 5))]
    assert_refused(
        lambda: ops.outer_update_list_(
            [L, shared, elsewhere[0]], [None, first, elsewhere[1]], [G, G, elsewhere[2]], **numbers
        ),
        ValueError,
        "tensors must be on one device",
        written,
    )
    sides = [interleaved[:, 0], interleaved[:, 1]], [None, torch.zeros(3, 5, 5)]
    ops.outer_update_list_(*sides, [G, G], **numbers)
    assert (interleaved == 5).all(), "batches of two factors may lie between each other"


@pytest.mark.real
def test_opcheck() -> None:
    L, R = factors(2, 5, 7)
    G = normal(2, 5, 7)
    options = {"decay": DECAY, "weight": WEIGHT}
    opcheck(torch.ops.kronext.outer_update_.default, (L, R, G), options)
    opcheck(torch.ops.kronext.outer_update_.default, (None, R, G), options)
    options = {"decay": [DECAY], "weight": [WEIGHT]}
    opcheck(torch.ops.kronext.outer_update_list_.default, ([L], [R], [G]), options)
    options |= {"left_places": [-1, 0], "right_places": [0, -1]}
    opcheck(torch.ops.kronext.outer_update_list_.default, ([L], [R], [G, G]), options)


@pytest.mark.real
def test_compiles_to_one_graph() -> None:
    def step(L: Tensor, R: Tensor, G: Tensor) -> Tensor:
        ops.outer_update_(L, R, G * 2, decay=DECAY, weight=WEIGHT)
        ops.outer_update_list_([L], [None], [G], decay=DECAY, weight=WEIGHT)
        ops.outer_update_list_([L * 2, None], [None, R], [G, G], decay=DECAY, weight=WEIGHT)
        return L.trace() + R.trace()

    G = normal(6, 9)
    eager, traced = factors(6, 9), factors(6, 9)
    expected = step(*eager, G)
    torch.testing.assert_close(torch.compile(step, fullgraph=True)(*traced, G), expected)
    assert torch.equal(eager[0], traced[0])


BAD = [
    ({"G": torch.zeros(3)}, ValueError, "G must have at least 2 dimensions"),
    ({"G": torch.zeros(4, 5, dtype=torch.int32)}, TypeError, "G must have dtype"),
    ({"G": [[1.0]]}, TypeError, "G must be a tensor"),
    ({"L": torch.zeros(5, 5)}, ValueError, "L must be 4 x 4"),
    ({"R": torch.zeros(5, 4)}, ValueError, "R must be 5 x 5"),
    ({"R": torch.zeros(5, 5, dtype=torch.bfloat16)}, TypeError, "R must have dtype"),
    ({"L": torch.zeros(8, 8)[::2, ::2]}, ValueError, "L must be dense"),
    ({"L": torch.zeros(4, 4).expand(3, 4, 4)}, ValueError, "L must not be an expanded view"),
    ({"L": torch.zeros(2, 4, 4), "G": torch.zeros(3, 4, 5)}, ValueError, "batch dimensions"),
    ({"G": torch.zeros(3, 4, 5)}, ValueError, "the batch dimensions of G must"),
    ({"L": None, "R": None}, ValueError, "L or R must be given"),
    ({"decay": "a"}, TypeError, "decay must be a number"),
    ({"weight": float("nan")}, ValueError, "weight must be finite"),
    ({"R": torch.zeros(5, 5, device="meta")}, ValueError, "tensors must be on one device"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD, ids=[b[2] for b in BAD])
def test_bad_input_is_refused_before_any_write(change, error, message: str) -> None:
    given = {
        "L": torch.ones(4, 4),
        "R": torch.ones(5, 5),
        "G": torch.ones(4, 5),
        "decay": 0.5,
        "weight": 1.0,
    }
    given |= change
    untouched = [
        t for k, t in given.items() if k in "LR" and t is not None and t.device.type != "meta"
    ]
    assert_refused(
        lambda: ops.outer_update_(**given), error, f"outer_update_: {message}", untouched
    )


def test_list_refuses_before_any_write() -> None:
    Ls = [torch.ones(2, 2), torch.ones(3, 3)]
    Gs = [torch.ones(2, 2), torch.ones(4, 3)]
    options = {"decay": 1.0, "weight": 1.0}
    assert_refused(
        lambda: ops.outer_update_list_(Ls, None, Gs, **options), ValueError, "L must be 4 x 4", Ls
    )
    assert_refused(
        lambda: ops.outer_update_list_(Ls, None, Gs[:1], **options), ValueError, "as long as Gs", Ls
    )
    options["decay"] = [0.5, 0.5, 0.5]
    message = "decay must be one number, or one for each gradient (got len(decay)=3, len(Gs)=2)"
    assert_refused(lambda: ops.outer_update_list_(Ls, None, Ls, **options), ValueError, message, Ls)
