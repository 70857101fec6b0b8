"""eigh, inverse_root and their list and in-place forms."""

from __future__ import annotations

import inverse_root_cases as cases
import pytest
import torch
from helpers import (
    FACTOR,
    assert_autograd_notices,
    assert_refused,
    name,
    normal,
    relative_error,
    symmetric,
    with_condition,
)
from torch import Tensor
from torch.library import opcheck

from kronext import ops, reference

# Both sides of every change of method: lane widths, panels, leaves, blocks of reflectors.
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 47, 48, 63, 64, 65, 96, 127, 128, 160]
LARGE = [255, 256, 257, 300, 520]


def enough_for_lanes(n: int) -> int:
    """So many matrices of this size go through the lanes of vectors, if any number does."""
    return -(-n // 12) * torch.get_num_threads()


@pytest.mark.parametrize("dtype", FACTOR, ids=name)
def test_eigh_of_every_size(dtype: torch.dtype) -> None:
    for n in SIZES:
        cases.check_decomposition(ops, normal(enough_for_lanes(n), n, n, dtype=dtype))
    for n in SIZES + LARGE:
        cases.check_decomposition(ops, normal(1, n, n, dtype=dtype))


@pytest.mark.parametrize("precision", ["mixed", "float32", None])
def test_tridiagonal_matrices_that_deflate_and_cluster(precision: str | None) -> None:
    """A matrix alone, by divide and conquer; None: in float64."""
    options = {"precision": precision} if precision else {}
    for n in (17, 33, 65, 100, 257):
        for label, A in cases.hard_tridiagonals(n).items():
            given = A.float() if precision else A
            result = ops.eigh(given, **options)
            assert int(result.info) == 0, f"n={n}, {label}"
            unit = torch.finfo(given.dtype).eps
            vectors, values = result.vectors.double(), result.values.double()
            assert cases.orthogonality(result.vectors) <= n * unit, f"n={n}, {label}"
            rebuilt = (vectors * values) @ vectors.mT
            distance = (rebuilt - given.double()).norm()
            assert distance <= n * unit * given.double().norm(), f"n={n}, {label}"


def test_threads_that_share_a_matrix_do_not_change_it() -> None:
    A = with_condition(600, 1e5)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(ops.inverse_root(A, 4))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        for ours, expected in zip(result, results[0], strict=True):
            assert torch.equal(ours, expected)


def test_graded_matrices_keep_orthogonal_vectors_in_plain_float32() -> None:
    """Squares of their small entries vanish in float32."""
    for n, batch in [(48, 64), (200, 1)]:
        scales = torch.logspace(0, -30, n)
        A = scales[:, None] * symmetric(batch, n, n) * scales
        vectors = ops.eigh(A, precision="float32").vectors
        assert cases.orthogonality(vectors) <= 2 * n * torch.finfo(torch.float32).eps, f"n={n}"


@pytest.mark.parametrize(("condition", "bound"), cases.BOUNDS)
def test_float32_root_is_nearly_as_accurate_as_float64(condition: float, bound: float) -> None:
    cases.check_roots(ops, [*SIZES[1:], *LARGE], condition, bound)


@pytest.mark.parametrize("n", [512, 1024])
def test_float32_root_of_large_matrices(n: int) -> None:
    A = with_condition(n, 1e6)
    assert relative_error(ops.inverse_root(A, 4).root, reference.inverse_root(A, 4)) <= 1e-5


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
def test_plain_float32_root_is_as_accurate_as_that_of_torch(condition: float) -> None:
    cases.check_plain_roots(ops, [3, 5, 16, 17, 33, 64, 100], condition)


def test_plain_float32_uses_less_than_mixed_precision_and_not_for_float64() -> None:
    for n, batch in [(20, 3), (70, 40), (300, 1)]:  # lanes of matrices, lanes of rows, alone
        A = with_condition(n, 1e4, batch=(batch,), seed=n)
        plain, mixed = (ops.eigh(A, precision=p) for p in ("float32", "mixed"))
        assert not torch.equal(plain.vectors, mixed.vectors)
        assert relative_error(plain.values, mixed.values) <= 2e-6
        assert cases.orthogonality(plain.vectors) <= 2 * n * torch.finfo(torch.float32).eps
        wide = A.double()
        assert torch.equal(ops.eigh(wide, precision="float32").vectors, ops.eigh(wide).vectors)


def test_plain_float32_of_special_matrices() -> None:
    for n in (4, 40):
        A = with_condition(n, 1e2, batch=(5,))
        A[1, 1, 0], A[2] = float("nan"), 0
        result = ops.inverse_root(A, 4, precision="float32")
        assert result.info.tolist() == [0, 1, 0, 0, 0]
        assert torch.equal(result.root[1], torch.eye(n))
        assert torch.equal(result.root[2], torch.zeros(n, n))
        for scale in cases.SCALES:
            scaled = ops.inverse_root(A[0] * scale, 4, precision="float32")
            assert scaled.info == 0
            oracle = reference.inverse_root(A[0] * scale, 4)
            assert relative_error(scaled.root, oracle) <= 1e-4, f"n={n}, scale {scale}"
        # Eigenvalues that should be 0 are rounding errors of n beside a damping of 1e-3.
        ones = ops.inverse_root(torch.ones(n, n), 2, eps=1e-3, precision="float32")
        oracle = reference.inverse_root(torch.ones(n, n), 2, eps=1e-3)
        assert relative_error(ones.root, oracle) <= 3e-3


@pytest.mark.parametrize("dtype", FACTOR, ids=name)
@pytest.mark.parametrize("root", [1, 2, 4, 8, 1.5, 3, 0.7])
def test_any_root(root: float, dtype: torch.dtype) -> None:
    cases.check_any_root(ops, [5, 33, 70, 260], root, dtype)


@pytest.mark.parametrize("dtype", FACTOR, ids=name)
def test_fourth_power_of_the_root_inverts(dtype: torch.dtype) -> None:
    for n in (3, 16, 50, 130):
        A = with_condition(n, 1e3, dtype=dtype)
        root = ops.inverse_root(A, 4).root.double()
        identity = torch.linalg.matrix_power(root, 4) @ A.double()
        tolerance = 1e-3 if dtype == torch.float32 else 1e-10
        torch.testing.assert_close(identity, torch.eye(n).double(), atol=tolerance, rtol=0)


def test_results_belong_together() -> None:
    cases.check_results_belong_together(ops)


@pytest.mark.parametrize("options", cases.DAMPINGS)
def test_damping(options: dict[str, float]) -> None:
    cases.check_damping(ops, [7, 40, 300], options)


@pytest.mark.parametrize("dtype", FACTOR, ids=name)
def test_singular_matrices_have_the_root_of_their_pseudo_inverse(dtype: torch.dtype) -> None:
    cases.check_pseudo_inverse(ops, [2, 9, 33, 80, 270], dtype)


@pytest.mark.parametrize("n", [1, 2, 16, 40, 100, 260])
def test_special_spectra(n: int) -> None:
    cases.check_special_spectra(ops, n)


@pytest.mark.parametrize("scale", cases.SCALES)
def test_scale(scale: float) -> None:
    cases.check_scale(ops, [4, 20, 70, 260], scale)


@pytest.mark.parametrize("poison", cases.POISONS)
@pytest.mark.parametrize("dtype", FACTOR, ids=name)
def test_a_failed_matrix_is_reported_and_does_not_disturb_its_neighbours(
    dtype: torch.dtype, poison: float
) -> None:
    cases.check_failed_matrix(ops, [1, 6, 33, 100, 260], dtype, poison)


def test_results_that_do_not_fit_their_dtype_are_failures() -> None:
    cases.check_results_that_do_not_fit(ops, [1, 5, 40, 300])
    assert int(ops.inverse_root(torch.full((40, 40), 1.7e308, dtype=torch.float64), 4).info) != 0


def test_float64_eigenvalues_that_overflow_are_failures() -> None:
    cases.check_eigenvalues_that_no_dtype_holds(ops, [2, 16, 40, 140])


def test_only_the_lower_triangle_is_read() -> None:
    cases.check_lower_triangle(ops, [2, 20, 70, 260])


def test_in_place_form_keeps_the_old_root_of_a_failed_matrix() -> None:
    cases.check_in_place_form(ops, [5, 40, 260])


def test_list_forms_equal_single_calls() -> None:
    sizes = [4, 33, 4, 16, 1, 12, 0, 260, 16, 600, 33, 33, 33, 128, 200, 200]
    cases.check_list_forms(ops, sizes, bit_equal=12)


def test_a_matrix_gives_the_same_bits_wherever_it_stands() -> None:
    """Among as many that the same method takes them."""
    for n in (4, 20, 40, 100, 250):
        A = with_condition(n, 1e3, batch=(37,) if n < 200 else (3,))
        whole = ops.inverse_root(A, 4)
        for index in (0, 1, len(A) - 1):
            copies = enough_for_lanes(n) if n < 200 else 2
            alone = ops.inverse_root(A[index].expand(copies, n, n), 4)
            assert torch.equal(alone.root[-1], whole.root[index]), f"n={n}, index {index}"


def test_strides_and_thread_counts() -> None:
    A = with_condition(40, 1e3, batch=(70,))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = ops.inverse_root(A, 4).root
        torch.set_num_threads(2)
        assert torch.equal(ops.inverse_root(A, 4).root, expected)
    finally:
        torch.set_num_threads(threads)
    cases.check_strides(ops, 40, 35)


def test_empty() -> None:
    cases.check_empty(ops)


def test_no_graph_is_recorded() -> None:
    A = with_condition(5, 10).requires_grad_()
    result = ops.inverse_root(A, 4)
    assert not any(t.requires_grad for t in result)
    assert not any(t.requires_grad for t in ops.eigh(A))
    assert_autograd_notices(lambda out: ops.inverse_root_(out, torch.eye(5), 4), torch.zeros(5, 5))
    assert_autograd_notices(
        lambda out: ops.inverse_root_list_([out], [torch.eye(5)], 4), torch.zeros(5, 5)
    )


@pytest.mark.real
def test_opcheck() -> None:
    A = with_condition(6, 10, batch=(2,))
    out, basis = torch.zeros_like(A), torch.linalg.eigh(A).eigenvectors.contiguous()
    kronext = torch.ops.kronext
    opcheck(kronext.eigh.default, (A,))
    opcheck(kronext.eigh.default, (A,), {"basis": basis})
    opcheck(kronext.inverse_root.default, (A, 4.0), {"eps": 1e-3, "precision": "float32"})
    opcheck(kronext.inverse_root_list.default, ([A, A[0]], 4.0), {"bases": [basis, basis[0]]})
    opcheck(kronext.inverse_root_.default, (out, A, 4.0))
    opcheck(kronext.inverse_root_list_.default, ([out], [A], 4.0), {"bases": []})


@pytest.mark.real
def test_compiles_to_one_graph() -> None:
    def step(A: Tensor, out: Tensor) -> Tensor:
        info = ops.inverse_root_(out, A * 2, 4, eps=1e-3)
        roots = ops.inverse_root_list([A, A[0]], 2).root
        values = ops.eigh(A, precision="float32").values
        return out.sum() + roots[1].sum() + values.sum() + info.sum()

    A = with_condition(6, 10, batch=(2,))
    eager, traced = torch.zeros_like(A), torch.zeros_like(A)
    torch.testing.assert_close(torch.compile(step, fullgraph=True)(A, traced), step(A, eager))
    torch.testing.assert_close(traced, eager)


BAD = [
    ({"A": torch.zeros(3, 4)}, ValueError, "A must be square"),
    ({"A": torch.zeros(4)}, ValueError, "A must have at least 2 dimensions"),
    (
        {"A": torch.zeros(4, 4, dtype=torch.float16)},
        TypeError,
        "A must have dtype float32, float64",
    ),
    ({"root": 0}, ValueError, "root must be a number above 0"),
    ({"root": float("nan")}, ValueError, "root must be finite"),
    ({"root": "4"}, TypeError, "root must be a number"),
    ({"eps": -1e-3}, ValueError, "eps must be at least 0"),
    ({"relative_eps": -1.0}, ValueError, "relative_eps must be at least 0"),
    ({"precision": "float64"}, ValueError, "precision must be 'mixed' or 'float32'"),
    ({"precision": None}, TypeError, "precision must be a string"),
    ({"basis": torch.eye(5)}, ValueError, "basis must have the shape of A"),
    ({"basis": torch.eye(4).double()}, TypeError, "basis must have the dtype of A"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD, ids=[b[2] for b in BAD])
def test_bad_input_is_refused_before_any_write(change, error, message: str) -> None:
    given = {"A": torch.eye(4), "root": 4} | change
    out = torch.full((4, 4), 7.0)
    assert_refused(lambda: ops.inverse_root(**given), error, f"inverse_root: {message}")
    assert_refused(
        lambda: ops.inverse_root_(out, **given), error, f"inverse_root_: {message}", [out]
    )


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (torch.zeros(5, 5), ValueError, "out must have the shape of A"),
        (torch.zeros(4, 4).double(), TypeError, "out must have the dtype of A"),
        (torch.zeros(8, 8)[::2, ::2], ValueError, "out must be dense"),
        (torch.zeros(4, 5), ValueError, "out must be square"),
    ],
    ids=["shape", "dtype", "strides", "square"],
)
def test_bad_output_is_refused(out: Tensor, error: type[Exception], message: str) -> None:
    call = lambda: ops.inverse_root_list_([out], [torch.eye(4)], 4)  # noqa: E731
    assert_refused(call, error, f"inverse_root_list_: {message}", [out])


def test_outputs_that_share_memory_are_refused() -> None:
    A, out = torch.eye(4).repeat(2, 1, 1), torch.full((8, 4), 7.0)
    message = "must not share memory"
    overlapping = out.as_strided((2, 4, 4), (4, 4, 1))
    call = lambda: ops.inverse_root_(overlapping, A, 2)  # noqa: E731
    assert_refused(call, ValueError, message, [out])
    for outs in ([out[:4], out[:4]], [out[:4], out[2:6]]):
        call = lambda outs=outs: ops.inverse_root_list_(outs, list(A), 2)  # noqa: E731
        assert_refused(call, ValueError, message, [out])
    assert not ops.inverse_root_list_([out[:4], out[4:]], list(A), 2).any()
    assert torch.equal(out.view(2, 4, 4), A)


def test_warm_start_changes_nothing_but_the_cost() -> None:
    cases.check_warm_start(ops, [6, 40, 130, 300])
