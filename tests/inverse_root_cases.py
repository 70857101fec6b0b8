"""What the CPU op and the emulated CUDA kernels of eigh and inverse_root are both held against.

`ops` has the functions of `kronext.ops`: that module, or something that stands for it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import torch
from helpers import (
    assert_symmetric,
    integers,
    normal,
    relative_error,
    sliced,
    symmetric,
    with_condition,
)
from torch import Tensor

from kronext import reference

# The contract of docs/numerics.md: A^(-1/4) of a float32 matrix against float64, by condition.
BOUNDS = [(1e2, 2e-6), (1e4, 5e-6), (1e6, 1e-5)]
DAMPINGS: list[dict[str, float]] = [
    {"eps": 1e-2}, {"relative_eps": 1e-3}, {"eps": 1e-3, "relative_eps": 1e-4},
]  # fmt: skip
POISONS = [float("nan"), float("inf"), float("-inf")]
SCALES = [1e-38, 1e-30, 1e-10, 1e10, 1e30, 3e37]


def orthogonality(vectors: Tensor) -> float:
    identity = torch.eye(vectors.shape[-1], dtype=torch.float64)
    product = vectors.double().mT @ vectors.double()
    return float(torch.linalg.matrix_norm(product - identity).max())


def check_decomposition(ops: Any, A: Tensor) -> None:
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


def hard_tridiagonals(n: int) -> dict[str, Tensor]:
    """In float64, the largest entry about 1."""
    steps = torch.arange(n, dtype=torch.float64)
    far, ones = (steps - n // 2).abs() / (n // 2), torch.ones(n, dtype=torch.float64)
    glued = ((steps % 21) - 10).abs() / 10
    joints = torch.where(steps[1:] % 21 == 0, 1e-9, 0.1)
    pairs = {
        "1-2-1": (ones, 0.5 * ones[1:]),
        "Wilkinson": (far, ones[1:] / (n // 2)),
        "glued Wilkinson": (glued, joints),
        "Clement": (0 * ones, (steps[1:] * (n - steps[1:])).sqrt() / n),
        "graded": (10 ** (-16 * steps / n), 0.5 * 10 ** (-16 * steps[1:] / n)),
        "graded over the range": (10 ** (-300 * steps / n), 0.5 * 10 ** (-300 * steps[1:] / n)),
        "barely coupled": (ones, 1e-12 * ones[1:]),
        "coupled by roundoff": (ones, 1e-15 * normal(n, dtype=torch.float64)[1:]),
        "clusters": ((3 * steps % 4).round() / 3, 10 ** (-16 * (steps[1:] * 7 % n) / n)),
        "identity": (ones, 0 * ones[1:]),
        "zero": (0 * ones, 0 * ones[1:]),
        "negative couplings": (ones, -0.5 * ones[1:]),
    }
    return {
        label: diagonal.diag() + coupling.diag(1) + coupling.diag(-1)
        for label, (diagonal, coupling) in pairs.items()
    }


def check_roots(ops: Any, sizes: Sequence[int], condition: float, bound: float) -> None:
    for n in sizes:
        A = with_condition(n, condition, batch=(4,), seed=n)
        result, oracle = ops.inverse_root(A, 4), reference.inverse_root(A, 4)
        for index in range(4):
            error = relative_error(result.root[index], oracle[index])
            assert error <= bound, f"n={n}, condition {condition:.0e}: error {error:.1e}"


def check_plain_roots(ops: Any, sizes: Sequence[int], condition: float) -> None:
    """In float32 throughout: at most twice the error of torch's float32, on the geometric mean."""
    for n in sizes:
        A = with_condition(n, condition, batch=(64,), seed=n)
        result = ops.inverse_root(A, 4, precision="float32")
        assert (result.info == 0).all()
        assert_symmetric(result.root)
        values, vectors = torch.linalg.eigh(A)
        plain = (vectors * values.clamp_min(1e-7).pow(-0.25).unsqueeze(-2)) @ vectors.mT
        oracle = reference.inverse_root(A, 4)
        ours, of_torch = (
            statistics.geometric_mean(map(relative_error, roots, oracle))
            for roots in (result.root, plain)
        )
        assert ours <= 2 * of_torch, f"n={n}, condition {condition:.0e}: {ours:.1e}, {of_torch:.1e}"


def check_any_root(ops: Any, sizes: Sequence[int], root: float, dtype: torch.dtype) -> None:
    for n in sizes:
        A = with_condition(n, 1e2, batch=(2,), dtype=dtype, seed=n)
        result = ops.inverse_root(A, root)
        error = relative_error(result.root, reference.inverse_root(A, root))
        bound = 4e-6 if dtype == torch.float32 else 1e-12
        assert error <= bound, f"n={n}: error {error:.1e}"
        assert_symmetric(result.root)


def check_results_belong_together(ops: Any) -> None:
    A = with_condition(40, 1e3, batch=(3,))
    root, basis, values, info = ops.inverse_root(A, 2, eps=1e-3)
    rebuilt = (basis * (values + 1e-3).rsqrt().unsqueeze(-2)) @ basis.mT
    torch.testing.assert_close(root, rebuilt, rtol=1e-4, atol=1e-4)
    assert torch.equal(values, ops.eigh(A).values)
    assert torch.equal(basis, ops.eigh(A).vectors)
    assert info.dtype == torch.int32
    assert info.shape == (3,)


def check_damping(ops: Any, sizes: Sequence[int], options: dict[str, float]) -> None:
    for n in sizes:
        A = symmetric(2, n, n)
        A[0] -= 0.1 * torch.eye(n)  # a few negative eigenvalues count as 0
        result = ops.inverse_root(A, 4, **options).root
        oracle = reference.inverse_root(A, 4, **options)
        for index in range(2):
            error = relative_error(result[index], oracle[index])
            assert error <= 1e-5, f"n={n}, entry {index}: error {error:.1e}"


def check_pseudo_inverse(ops: Any, sizes: Sequence[int], dtype: torch.dtype) -> None:
    """Small integers, so that the matrix is singular exactly, whatever its dtype."""
    for n in sizes:
        rank = max(1, n // 3)
        factor = integers(-3, 4, n, rank, seed=n).double()
        left, values, _ = torch.linalg.svd(factor, full_matrices=False)
        expected = (left / values) @ left.mT
        A = (factor @ factor.mT).to(dtype)
        tolerance = 2e-5 if dtype == torch.float32 else 1e-11
        error = relative_error(ops.inverse_root(A, 2).root, expected)
        assert error <= tolerance, f"n={n}: error {error:.1e}"


def check_special_spectra(ops: Any, n: int) -> None:
    zero, identity = torch.zeros(n, n), torch.eye(n)
    ones = torch.ones(n, n)
    assert torch.equal(ops.inverse_root(zero, 4).root, zero)
    torch.testing.assert_close(ops.inverse_root(3 * identity, 2).root, identity / 3**0.5)
    torch.testing.assert_close(ops.inverse_root(ones, 2).root, ones / n**1.5, rtol=1e-5, atol=1e-6)
    repeated = torch.diag(torch.arange(n).div(3, rounding_mode="floor") + 1.0)
    check_decomposition(ops, repeated[None])
    check_decomposition(ops, ones[None])
    damped = ops.inverse_root(zero, 4, eps=1.0)
    assert torch.equal(damped.root, identity)


def check_scale(ops: Any, sizes: Sequence[int], scale: float) -> None:
    for n in sizes:
        A = with_condition(n, 1e3) * scale
        result, oracle = ops.inverse_root(A, 4).root, reference.inverse_root(A, 4)
        assert relative_error(result, oracle) <= 1e-5, f"n={n}"


def check_failed_matrix(ops: Any, sizes: Sequence[int], dtype: torch.dtype, poison: float) -> None:
    """It is reported and does not disturb its neighbours."""
    for n in sizes:
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


def check_results_that_do_not_fit(ops: Any, sizes: Sequence[int]) -> None:
    """Failures, not infinities that call themselves done."""
    for n in sizes:
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


def check_eigenvalues_that_no_dtype_holds(ops: Any, sizes: Sequence[int]) -> None:
    """In place, where they are not asked for, they fail as well."""
    for n in sizes:
        for count in (1, 2, 5):
            A = torch.eye(n, dtype=torch.float64).repeat(count, 1, 1)
            A[-1] = 1.7e308
            out = torch.full_like(A, 7.0)
            info = ops.inverse_root_(out, A, 4)
            result = ops.inverse_root(A, 4)
            assert torch.equal(info, result.info), f"n={n}, {count} matrices"
            assert info.tolist() == [0] * (count - 1) + [2], f"n={n}, {count} matrices"
            assert (out[-1] == 7).all(), f"n={n}: the old root was overwritten"
            assert torch.equal(out[:-1], result.root[:-1]), f"n={n}, {count} matrices"


def check_lower_triangle(ops: Any, sizes: Sequence[int]) -> None:
    """Nothing else is read."""
    for n in sizes:
        A = with_condition(n, 10, batch=(2,))
        poisoned = A.tril() + torch.full((n, n), float("nan")).triu(1)
        result = ops.inverse_root(poisoned, 4)
        assert (result.info == 0).all()
        assert torch.equal(result.root, ops.inverse_root(A, 4).root), f"n={n}"


def check_in_place_form(ops: Any, sizes: Sequence[int]) -> None:
    """It keeps the old root of a failed matrix."""
    for n in sizes:
        A = symmetric(5, n, n) + torch.eye(n)
        expected = ops.inverse_root(A, 4, eps=1e-3).root
        A[3] = float("nan")
        out = torch.full_like(A, 7.0)
        info = ops.inverse_root_(out, A, 4, eps=1e-3)
        assert info.tolist() == [0, 0, 0, 1, 0]
        assert (out[3] == 7).all(), f"n={n}: the old root was overwritten"
        for index in (0, 1, 2, 4):
            assert torch.equal(out[index], expected[index])


def check_list_forms(ops: Any, sizes: Sequence[int], bit_equal: int) -> None:
    """Bit for bit up to size `bit_equal`; the CPU's solvers depend on how many there are above.

    The third size must be 4.
    """
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
        assert error <= (2e-6 if n > bit_equal else 0), f"entry {index}, n={n}: {error:.1e}"
        assert torch.allclose(listed.values[index], s.values, rtol=1e-6)
        expected = torch.full_like(s.root, 7.0) if index == 2 else listed.root[index]
        assert torch.equal(outs[index], expected), f"entry {index}, n={n}"


def check_strides(ops: Any, n: int, batch: int) -> None:
    A = with_condition(n, 1e3, batch=(batch, 2))
    expected = ops.inverse_root(A.flatten(0, 1), 4).root.unflatten(0, (batch, 2))
    assert torch.equal(ops.inverse_root(sliced(A), 4).root, expected)
    assert torch.equal(ops.inverse_root(A, 4).root, expected)


def check_empty(ops: Any) -> None:
    assert ops.inverse_root(torch.zeros(0, 5, 5), 4).root.shape == (0, 5, 5)
    result = ops.inverse_root(torch.zeros(3, 0, 0), 4)
    assert result.root.shape == (3, 0, 0)
    assert result.info.tolist() == [0, 0, 0]
    assert ops.inverse_root_list([], 4).root == []
    assert ops.inverse_root_list_([], [], 4).shape == (0,)


def check_warm_start(ops: Any, sizes: Sequence[int]) -> None:
    """From a near basis, a far one, nearly orthogonal ones, and ones that are no basis at all."""
    for n in sizes:
        A = with_condition(n, 1e6, batch=(2,), seed=n)
        near = ops.eigh(A + 1e-4 * symmetric(2, n, n)).vectors
        bases = {
            "near": near,
            "far": ops.eigh(symmetric(2, n, n, seed=9)).vectors,
            "noisy": near + 1e-5 * normal(2, n, n, seed=7),
            "too noisy": near + 1e-2 * normal(2, n, n, seed=8),
            "zero": torch.zeros_like(A),
            "NaN": torch.full_like(A, float("nan")),
            "not unit": 2 * near,
        }
        oracle = reference.inverse_root(A, 4)
        for label, basis in bases.items():
            result = ops.inverse_root(A, 4, basis=basis)
            assert (result.info == 0).all()
            for index in range(2):
                error = relative_error(result.root[index], oracle[index])
                assert error <= 1e-5, f"n={n}, {label} basis: error {error:.1e}"
            assert orthogonality(result.basis) <= 2e-7 * n, f"n={n}, {label} basis"
