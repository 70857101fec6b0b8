"""eigh, inverse_root and their list and in-place forms."""

from __future__ import annotations

import pytest
import torch
from helpers import (
    DEVICES,
    FACTOR,
    assert_autograd_notices,
    assert_refused,
    assert_symmetric,
    name,
    normal,
    relative_error,
    sliced,
    symmetric,
    with_condition,
)
from torch import Tensor
from torch.library import opcheck

from kronext import ops, reference

# Both sides of every change of method: lane widths, panels, sizes in lanes, LAPACK.
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 47, 48, 63, 64, 65, 96, 127, 128, 160]
LARGE = [255, 256, 257, 300]
# The contract of issue and docs: A^(-1/4) of a float32 matrix against float64, by condition number.
BOUNDS = [(1e2, 2e-6), (1e4, 5e-6), (1e6, 1e-5)]


def orthogonality(vectors: Tensor) -> float:
    identity = torch.eye(vectors.shape[-1], dtype=torch.float64)
    product = vectors.double().mT @ vectors.double()
    return float(torch.linalg.matrix_norm(product - identity).max())


def check_decomposition(A: Tensor) -> None:
    n = A.shape[-1]
    unit = torch.finfo(A.dtype).eps
    result = ops.eigh(A)
    assert (result.info == 0).all()
    assert (result.values.diff(dim=-1) >= 0).all(), f"n={n}: eigenvalues are not ascending"
    assert orthogonality(result.vectors) <= 2 * n * unit, f"n={n}: vectors are not orthogonal"
    rebuilt = (
        result.vectors.double() * result.values.double().unsqueeze(-2)
    ) @ result.vectors.double().mT
    assert relative_error(rebuilt, A.tril() + A.tril(-1).mT) <= 2 * max(n, 4) * unit, f"n={n}"
    oracle = torch.linalg.eigvalsh(A.double())
    scale = oracle.abs().amax(-1, keepdim=True).clamp_min(1e-300)
    # float32 eigenvalues are rounded from float64 ones; in float64 the oracle errs as much as the
    # op.
    bound = 4 * unit if A.dtype == torch.float32 else (8 + n) * unit
    error = ((result.values.double() - oracle).abs() / scale).max()
    assert error <= bound, f"n={n}: eigenvalues err by {error:.1e}"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", FACTOR, ids=name)
def test_eigh_of_every_size(dtype: torch.dtype, device: str) -> None:
    for n in SIZES + LARGE:
        batch = 5 if n < 200 else 4
        check_decomposition(normal(batch, n, n, dtype=dtype).to(device))


@pytest.mark.parametrize(("condition", "bound"), BOUNDS)
def test_float32_root_is_nearly_as_accurate_as_float64(condition: float, bound: float) -> None:
    for n in [*SIZES[1:], *LARGE]:
        A = with_condition(n, condition, batch=(4,), seed=n)
        result, oracle = ops.inverse_root(A, 4), reference.inverse_root(A, 4)
        for index in range(4):
            error = relative_error(result.root[index], oracle[index])
            assert error <= bound, f"n={n}, condition {condition:.0e}: error {error:.1e}"


@pytest.mark.parametrize("n", [512, 1024])
def test_float32_root_of_large_matrices(n: int) -> None:
    A = with_condition(n, 1e6)
    assert relative_error(ops.inverse_root(A, 4).root, reference.inverse_root(A, 4)) <= 1e-5


@pytest.mark.parametrize("dtype", FACTOR, ids=name)
@pytest.mark.parametrize("root", [1, 2, 4, 8, 1.5, 3, 0.7])
def test_any_root(root: float, dtype: torch.dtype) -> None:
    for n in (5, 33, 70, 260):
        A = with_condition(n, 1e2, batch=(2,), dtype=dtype, seed=n)
        result = ops.inverse_root(A, root)
        error = relative_error(result.root, reference.inverse_root(A, root))
        bound = 4e-6 if dtype == torch.float32 else 1e-12
        assert error <= bound, f"n={n}: error {error:.1e}"
        assert_symmetric(result.root)


@pytest.mark.parametrize("dtype", FACTOR, ids=name)
def test_fourth_power_of_the_root_inverts(dtype: torch.dtype) -> None:
    for n in (3, 16, 50, 130):
        A = with_condition(n, 1e3, dtype=dtype)
        root = ops.inverse_root(A, 4).root.double()
        identity = torch.linalg.matrix_power(root, 4) @ A.double()
        tolerance = 1e-3 if dtype == torch.float32 else 1e-10
        torch.testing.assert_close(identity, torch.eye(n).double(), atol=tolerance, rtol=0)


def test_results_belong_together() -> None:
    A = with_condition(40, 1e3, batch=(3,))
    root, basis, values, info = ops.inverse_root(A, 2, eps=1e-3)
    rebuilt = (basis * (values + 1e-3).rsqrt().unsqueeze(-2)) @ basis.mT
    torch.testing.assert_close(root, rebuilt, rtol=1e-4, atol=1e-4)
    assert torch.equal(values, ops.eigh(A).values)
    assert torch.equal(basis, ops.eigh(A).vectors)
    assert info.dtype == torch.int32
    assert info.shape == (3,)


@pytest.mark.parametrize(
    "options", [{"eps": 1e-2}, {"relative_eps": 1e-3}, {"eps": 1e-3, "relative_eps": 1e-4}]
)
def test_damping(options: dict[str, float]) -> None:
    for n in (7, 40, 300):
        A = symmetric(2, n, n)
        A[0] -= 0.1 * torch.eye(n)  # a few negative eigenvalues count as 0
        result, oracle = (
            ops.inverse_root(A, 4, **options).root,
            reference.inverse_root(A, 4, **options),
        )
        assert relative_error(result, oracle) <= 1e-5, f"n={n}"


@pytest.mark.parametrize("dtype", FACTOR, ids=name)
def test_singular_matrices_have_the_root_of_their_pseudo_inverse(dtype: torch.dtype) -> None:
    """Small integers, so that the matrix is singular exactly, whatever its dtype."""
    for n in (2, 9, 33, 80, 270):
        rank = max(1, n // 3)
        factor = torch.randint(
            -3, 4, (n, rank), generator=torch.Generator().manual_seed(n)
        ).double()
        left, values, _ = torch.linalg.svd(factor, full_matrices=False)
        expected = (left / values) @ left.mT
        A = (factor @ factor.mT).to(dtype)
        tolerance = 2e-5 if dtype == torch.float32 else 1e-11
        error = relative_error(ops.inverse_root(A, 2).root, expected)
        assert error <= tolerance, f"n={n}: error {error:.1e}"


@pytest.mark.parametrize("n", [1, 2, 16, 40, 100, 260])
def test_special_spectra(n: int) -> None:
    zero, identity = torch.zeros(n, n), torch.eye(n)
    ones = torch.ones(n, n)
    assert torch.equal(ops.inverse_root(zero, 4).root, zero)
    torch.testing.assert_close(ops.inverse_root(3 * identity, 2).root, identity / 3**0.5)
    torch.testing.assert_close(ops.inverse_root(ones, 2).root, ones / n**1.5, rtol=1e-5, atol=1e-6)
    repeated = torch.diag(torch.arange(n).div(3, rounding_mode="floor") + 1.0)
    check_decomposition(repeated[None])
    check_decomposition(ones[None])
    damped = ops.inverse_root(zero, 4, eps=1.0)
    assert torch.equal(damped.root, identity)


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-10, 1e10, 1e30, 3e37])
def test_scale(scale: float) -> None:
    for n in (4, 20, 70, 260):
        A = with_condition(n, 1e3) * scale
        result, oracle = ops.inverse_root(A, 4).root, reference.inverse_root(A, 4)
        assert relative_error(result, oracle) <= 1e-5, f"n={n}"


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", FACTOR, ids=name)
def test_a_failed_matrix_is_reported_and_does_not_disturb_its_neighbours(
    dtype: torch.dtype, poison: float
) -> None:
    for n in (1, 6, 33, 100, 260):
        A = symmetric(4, n, n, dtype=dtype) + torch.eye(n, dtype=dtype)
        clean = ops.inverse_root(A, 4)
        A[2, -1, 0] = poison
        result = ops.inverse_root(A, 4)
        assert result.info.tolist() == [0, 0, 1, 0], f"n={n}"
        identity = torch.eye(n, dtype=dtype)
        assert torch.equal(result.root[2], identity)
        assert torch.equal(result.basis[2], identity)
        assert torch.equal(result.values[2], torch.ones(n, dtype=dtype))
        for index in (0, 1, 3):
            assert torch.equal(result.root[index], clean.root[index]), f"n={n}, neighbour {index}"


def test_results_that_do_not_fit_their_dtype_are_failures() -> None:
    """Not an infinity that calls itself done."""
    for n in (1, 5, 40, 300):
        tiny = torch.eye(n) * 1e-20
        assert int(ops.inverse_root(tiny, 0.5).info) == 2, f"n={n}"
        assert torch.equal(ops.inverse_root(tiny, 0.5).root, torch.eye(n))
        out = torch.full((n, n), 7.0)
        assert int(ops.inverse_root_(out, tiny, 0.5)) == 2
        assert (out == 7).all(), f"n={n}: the old root was overwritten"
        assert int(ops.inverse_root(tiny, 2).info) == 0
    huge = torch.full((40, 40), 3e38)
    assert int(ops.eigh(huge).info) == 2
    assert int(ops.inverse_root_(torch.zeros(40, 40), huge, 4, eps=1.0)) == 0
    assert int(ops.inverse_root(torch.full((40, 40), 1.7e308, dtype=torch.float64), 4).info) != 0


def test_only_the_lower_triangle_is_read() -> None:
    for n in (2, 20, 70, 260):
        A = with_condition(n, 10, batch=(2,))
        poisoned = A.tril() + torch.full((n, n), float("nan")).triu(1)
        result = ops.inverse_root(poisoned, 4)
        assert (result.info == 0).all()
        assert torch.equal(result.root, ops.inverse_root(A, 4).root), f"n={n}"


def test_in_place_form_keeps_the_old_root_of_a_failed_matrix() -> None:
    for n in (5, 40, 260):
        A = symmetric(5, n, n) + torch.eye(n)
        expected = ops.inverse_root(A, 4, eps=1e-3).root
        A[3] = float("nan")
        out = torch.full_like(A, 7.0)
        info = ops.inverse_root_(out, A, 4, eps=1e-3)
        assert info.tolist() == [0, 0, 0, 1, 0]
        assert (out[3] == 7).all(), f"n={n}: the old root was overwritten"
        for index in (0, 1, 2, 4):
            assert torch.equal(out[index], expected[index])


def test_list_forms_equal_single_calls() -> None:
    """Bit for bit up to 128; above, the solver depends on how many matrices there are."""
    sizes = [4, 33, 4, 16, 1, 12, 0, 260, 16, 600, 33, 33, 33, 128, 200, 200]
    As = [with_condition(n, 1e3, seed=i) for i, n in enumerate(sizes)]
    As += [with_condition(9, 1e2, batch=(2, 3))]
    As[2] = torch.full((4, 4), float("inf"))
    single = [ops.inverse_root(A, 4, relative_eps=1e-6) for A in As]
    listed = ops.inverse_root_list(As, 4, relative_eps=1e-6)
    outs = [torch.full_like(A, 7.0) for A in As]
    info = ops.inverse_root_list_(outs, As, 4, relative_eps=1e-6)
    expected_info = torch.cat([s.info.flatten() for s in single])
    assert torch.equal(listed.info, expected_info)
    assert torch.equal(info, expected_info)
    assert expected_info.sum() == 1
    for index, s in enumerate(single):
        n = As[index].shape[-1]
        error = relative_error(listed.root[index], s.root)
        assert error <= (2e-6 if n > 128 else 0), f"entry {index}, n={n}: {error:.1e}"
        assert torch.allclose(listed.values[index], s.values, rtol=1e-6)
        expected = torch.full_like(s.root, 7.0) if index == 2 else listed.root[index]
        assert torch.equal(outs[index], expected), f"entry {index}, n={n}"


def test_a_matrix_gives_the_same_bits_wherever_it_stands() -> None:
    for n in (4, 20, 40, 100):
        A = with_condition(n, 1e3, batch=(37,))
        whole = ops.inverse_root(A, 4)
        for index in (0, 17, 36):
            alone = ops.inverse_root(A[index].expand(5, n, n), 4)
            assert torch.equal(alone.root[4], whole.root[index]), f"n={n}, index {index}"


def test_strided_input_and_thread_counts() -> None:
    A = with_condition(40, 1e3, batch=(70,))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = ops.inverse_root(A, 4).root
        torch.set_num_threads(2)
        assert torch.equal(ops.inverse_root(A, 4).root, expected)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(ops.inverse_root(sliced(A), 4).root, expected)
    assert torch.equal(
        ops.inverse_root(A.unflatten(0, (7, 10)), 4).root, expected.unflatten(0, (7, 10))
    )


def test_empty() -> None:
    assert ops.inverse_root(torch.zeros(0, 5, 5), 4).root.shape == (0, 5, 5)
    result = ops.inverse_root(torch.zeros(3, 0, 0), 4)
    assert result.root.shape == (3, 0, 0)
    assert result.info.tolist() == [0, 0, 0]
    assert ops.inverse_root_list([], 4).root == []
    assert ops.inverse_root_list_([], [], 4).shape == (0,)


def test_no_graph_is_recorded() -> None:
    A = with_condition(5, 10).requires_grad_()
    result = ops.inverse_root(A, 4)
    assert not any(t.requires_grad for t in result)
    assert not any(t.requires_grad for t in ops.eigh(A))
    assert_autograd_notices(lambda out: ops.inverse_root_(out, torch.eye(5), 4), torch.zeros(5, 5))
    assert_autograd_notices(
        lambda out: ops.inverse_root_list_([out], [torch.eye(5)], 4), torch.zeros(5, 5)
    )


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device: str) -> None:
    A = with_condition(6, 10, batch=(2,)).to(device)
    out, basis = torch.zeros_like(A), torch.linalg.eigh(A).eigenvectors.contiguous()
    kronext = torch.ops.kronext
    opcheck(kronext.eigh.default, (A,))
    opcheck(kronext.eigh.default, (A,), {"basis": basis})
    opcheck(kronext.inverse_root.default, (A, 4.0), {"eps": 1e-3})
    opcheck(kronext.inverse_root_list.default, ([A, A[0]], 4.0), {"bases": [basis, basis[0]]})
    opcheck(kronext.inverse_root_.default, (out, A, 4.0))
    opcheck(kronext.inverse_root_list_.default, ([out], [A], 4.0), {"bases": []})


def test_compiles_to_one_graph() -> None:
    def step(A: Tensor, out: Tensor) -> Tensor:
        info = ops.inverse_root_(out, A * 2, 4, eps=1e-3)
        roots = ops.inverse_root_list([A, A[0]], 2).root
        return out.sum() + roots[1].sum() + ops.eigh(A).values.sum() + info.sum()

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


def test_warm_start_changes_nothing_but_the_cost() -> None:
    """From a near basis, a far one, and ones that are no basis at all."""
    for n in (6, 40, 130, 300):
        A = with_condition(n, 1e6, batch=(4,), seed=n)
        near = ops.eigh(A + 1e-4 * symmetric(4, n, n)).vectors
        far = ops.eigh(symmetric(4, n, n, seed=9)).vectors
        oracle = reference.inverse_root(A, 4)
        bases = [near, far, torch.zeros_like(A), torch.full_like(A, float("nan")), 2 * near]
        for label, basis in zip(["near", "far", "zero", "NaN", "not unit"], bases, strict=True):
            result = ops.inverse_root(A, 4, basis=basis)
            assert (result.info == 0).all()
            for index in range(4):
                error = relative_error(result.root[index], oracle[index])
                assert error <= 1e-5, f"n={n}, {label} basis: error {error:.1e}"
            assert orthogonality(result.basis) <= 2e-7 * n, f"n={n}, {label} basis"


@pytest.mark.parametrize(("root", "options"), [(4, {}), (2, {"relative_eps": 1e-3}), (1, {})])
def test_a_near_basis_is_used_where_only_the_root_is_wanted(
    root: float, options: dict[str, float]
) -> None:
    """Other bits than the cold call's show that it was used; the bound holds all the same."""
    for n in (100, 200, 300):
        A = with_condition(n, 1e4, seed=n)
        step = normal(n, n, seed=n + 1)
        later = (
            0.999 * A
            + 0.001 * (step * A.diagonal().sqrt()) @ (step.mT * A.diagonal()[:, None].sqrt()) / n
        )
        later = (later + later.mT) / 2
        basis = ops.eigh(A).vectors
        cold, warm, listed = (torch.empty_like(A) for _ in range(3))
        assert int(ops.inverse_root_(cold, later, root, **options)) == 0
        assert int(ops.inverse_root_(warm, later, root, basis=basis, **options)) == 0
        ops.inverse_root_list_([listed], [later], root, bases=[basis], **options)
        oracle = reference.inverse_root(later, root, **options)
        assert relative_error(warm, oracle) <= 1e-5, f"n={n}"
        assert_symmetric(warm)
        assert torch.equal(listed, warm), f"n={n}"
        if options:
            assert not torch.equal(warm, cold), f"n={n}: the basis was not used"


def test_bases_that_are_of_no_use_are_dropped() -> None:
    """Bit for bit what the cold call gives, and a failed matrix keeps its old root."""
    for n in (100, 200, 300):
        A = with_condition(n, 1e6, seed=n)
        cold = torch.empty_like(A)
        ops.inverse_root_(cold, A, 4)
        far = ops.eigh(symmetric(n, n, seed=9)).vectors
        good = ops.eigh(A).vectors
        repeated = good[:, [1, *range(1, n)]]
        useless = [far, torch.zeros_like(A), torch.full_like(A, float("nan")), 2 * good, repeated]
        for index, basis in enumerate(useless):
            out = torch.full_like(A, 7.0)
            assert int(ops.inverse_root_(out, A, 4, basis=basis)) == 0
            assert torch.equal(out, cold), f"n={n}, basis {index} was used"
        broken = A.clone()
        broken[-1, 0] = float("nan")
        out = torch.full_like(A, 7.0)
        assert int(ops.inverse_root_(out, broken, 4, basis=good)) == 1
        assert (out == 7).all(), f"n={n}: the old root was overwritten"


@pytest.mark.parametrize("root", [1, 2, 4])
def test_a_basis_that_mixes_the_ends_of_the_spectrum(root: float) -> None:
    """Orthogonal, and it diagonalises all but one pair, whose small eigenvalue cancels away."""
    for n in (128, 257):
        A = with_condition(n, 1e6, seed=n)
        vectors = torch.linalg.eigh(A.double()).eigenvectors
        for angle in (1e-4, 1e-2, 0.25 * torch.pi):
            c, s = torch.tensor(angle).cos(), torch.tensor(angle).sin()
            basis = vectors.clone()
            basis[:, 0] = c * vectors[:, 0] + s * vectors[:, -1]
            basis[:, -1] = c * vectors[:, -1] - s * vectors[:, 0]
            for options in ({}, {"relative_eps": 1e-6}, {"eps": 1e-4}):
                out = torch.empty_like(A)
                assert int(ops.inverse_root_(out, A, root, basis=basis.float(), **options)) == 0
                error = relative_error(out, reference.inverse_root(A, root, **options))
                assert error <= 1e-5, f"n={n}, angle {angle:.0e}, {options}: error {error:.1e}"
