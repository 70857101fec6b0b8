"""precondition and precondition_list: left G right."""

from __future__ import annotations

import pytest
import torch
from helpers import (
    FACTOR,
    FLOATING,
    SHAPES,
    assert_refused,
    name,
    normal,
    sliced,
    transposed_memory,
)
from precondition_cases import (
    SIDES,
    check_every_16_bit_value,
    check_non_finite,
    check_product,
    check_sides,
    check_squares,
    operands,
)
from torch import Tensor
from torch.library import opcheck

from kronext import ops


@pytest.mark.parametrize("factor_dtype", FACTOR, ids=name)
@pytest.mark.parametrize("dtype", FLOATING, ids=name)
def test_values_of_every_shape(dtype: torch.dtype, factor_dtype: torch.dtype) -> None:
    for m, n in SHAPES:
        check_sides(ops.precondition, *operands(m, n, dtype, factor_dtype))


def test_row_panels_share_a_right_factor_larger_than_the_cache() -> None:
    for m in (300, 421):  # steps of two and of three row panels, the last one cut
        check_sides(ops.precondition, *operands(m, 600))


@pytest.mark.parametrize("view", [sliced, transposed_memory])
def test_strided_operands(view) -> None:
    for m, n in [(5, 7), (33, 17), (64, 70)]:
        G, left, right = operands(m, n)
        check_product(ops.precondition, view(G), view(left), view(right))
        check_product(ops.precondition, view(G.bfloat16()), None, view(right.double()))


def test_batch_dimensions_broadcast() -> None:
    G, left, right = normal(2, 1, 17, 9), normal(3, 17, 17), normal(9, 9)
    check_product(ops.precondition, G, left, right)
    assert ops.precondition(G, left, right).shape == (2, 3, 17, 9)
    check_product(ops.precondition, normal(17, 9).expand(4, 17, 9), left[0], None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name)
@pytest.mark.parametrize("width", [1, 32, 33])
def test_every_16_bit_value_is_converted(dtype: torch.dtype, width: int) -> None:
    check_every_16_bit_value(ops.precondition, dtype, width)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_non_finite_values_stay_in_their_matrix(poison: float) -> None:
    check_non_finite(ops.precondition, poison)


def test_list_equals_single_calls_bit_for_bit() -> None:
    shapes = [(4, 4), (33, 20), (0, 5), (128, 64), (7, 300), (65, 65)] * 3
    rows = [operands(*shape) for shape in shapes]
    Gs, lefts, rights = (list(column) for column in zip(*rows, strict=True))
    lefts[1] = rights[3] = None
    results = ops.precondition_list(Gs, lefts, rights)
    for result, G, left, right in zip(results, Gs, lefts, rights, strict=True):
        assert torch.equal(result, ops.precondition(G, left, right))
    assert ops.precondition_list([], None, []) == []


@pytest.mark.parametrize("factor_dtype", FACTOR, ids=name)
@pytest.mark.parametrize("dtype", FLOATING, ids=name)
def test_sums_of_squares(dtype: torch.dtype, factor_dtype: torch.dtype) -> None:
    """In the order of the list, whichever sides its entries have."""
    rows = [operands(m, n, dtype, factor_dtype) for m, n in SHAPES]
    check_squares(ops, *(list(column) for column in zip(*rows, strict=True)))


def test_an_inf_shows_in_the_square_of_its_matrix_alone() -> None:
    G = normal(3, 20, 33)
    G[1, 4, 5] = float("inf")
    _, squares = ops.precondition_list_with_squares([G], [normal(20, 20)], None)
    assert squares.isfinite().tolist() == [True, False, True]


def test_squares_of_no_list_and_of_no_matrix() -> None:
    outputs, squares = ops.precondition_list_with_squares([], None, [])
    assert outputs == []
    assert squares.shape == (0,)
    _, squares = ops.precondition_list_with_squares([normal(0, 4, 4)], [normal(4, 4)], None)
    assert squares.shape == (0,)


def test_repeats_bit_for_bit_and_across_thread_counts() -> None:
    G, left, right = operands(200, 300)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            (output,), squares = ops.precondition_list_with_squares([G], [left], [right])
            assert torch.equal(output, ops.precondition(G, left, right))
            results.append((output, squares))
    finally:
        torch.set_num_threads(threads)
    for result, squares in results[1:]:
        assert torch.equal(result, results[0][0])
        assert torch.equal(squares, results[0][1])


def test_no_graph_is_recorded() -> None:
    G, left, right = (t.requires_grad_() for t in operands(4, 5))
    result = ops.precondition(G, left, right)
    assert not result.requires_grad
    assert result.grad_fn is None


@pytest.mark.real
def test_opcheck() -> None:
    G, left, right = operands(5, 7)
    for with_left, with_right in SIDES:
        given = (G, left if with_left else None, right if with_right else None)
        opcheck(torch.ops.kronext.precondition.default, given)
    opcheck(torch.ops.kronext.precondition_list.default, ([G, G], [left, left], []))
    batched = ([G, G.expand(2, 5, 7)], [left, left], [])
    opcheck(torch.ops.kronext.precondition_list_with_squares.default, batched)


@pytest.mark.real
def test_compiles_to_one_graph() -> None:
    def step(G: Tensor, left: Tensor, right: Tensor) -> Tensor:
        both = ops.precondition(G * 2, left, right)
        lists = ([G, G], [left, None], [None, right])
        outputs, squares = ops.precondition_list_with_squares(*lists)
        return both + sum(ops.precondition_list(*lists)) + outputs[0] / squares[1].sqrt()

    given = operands(6, 9)
    torch.testing.assert_close(torch.compile(step, fullgraph=True)(*given), step(*given))


BAD = [
    ({"G": torch.zeros(3)}, ValueError, "G must have at least 2 dimensions"),
    ({"G": torch.zeros(4, 5, dtype=torch.int64)}, TypeError, "G must have dtype"),
    ({"G": torch.zeros(4, 5).to_sparse()}, TypeError, "G must be dense"),
    ({"left": torch.zeros(5, 5)}, ValueError, "left must be 4 x 4"),
    ({"left": "identity"}, TypeError, "left must be a tensor"),
    ({"right": torch.zeros(5, 5, dtype=torch.float16)}, TypeError, "right must have dtype"),
    ({"left": None, "right": None}, ValueError, "left or right must be given"),
    ({"left": torch.zeros(3, 4, 4), "G": torch.zeros(2, 4, 5)}, ValueError, "batch dimensions"),
    ({"right": torch.zeros(5, 5, device="meta")}, ValueError, "tensors must be on one device"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD, ids=[b[2] for b in BAD])
def test_bad_input_is_refused(change, error, message: str) -> None:
    given = {"G": torch.ones(4, 5), "left": torch.ones(4, 4), "right": torch.ones(5, 5)} | change
    assert_refused(lambda: ops.precondition(**given), error, f"precondition: {message}")


def test_list_of_another_length_is_refused() -> None:
    G, left, right = operands(4, 5)
    call = lambda: ops.precondition_list([G, G], [left], [right, right])  # noqa: E731
    assert_refused(call, ValueError, "precondition_list: lefts must be as long as Gs")


@pytest.mark.parametrize("other", [normal(4, 4, dtype=torch.float64), None])
def test_outputs_of_two_dtypes_have_no_squares(other: Tensor | None) -> None:
    """Neither in one call of the compiled op, nor in two for different sides."""
    G, left, right = operands(4, 5)
    lists = ([G, G if other is not None else G.double()], [left, other], [right, right])
    call = lambda: ops.precondition_list_with_squares(*lists)  # noqa: E731
    expectation = "precondition_list_with_squares: outputs must have one dtype"
    assert_refused(call, TypeError, expectation)
