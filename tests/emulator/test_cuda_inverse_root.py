"""The CUDA eigensolvers, executed on the CPU: the cases and the oracle of the CPU op."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

import inverse_root_cases as cases
import pytest
import torch
from emulated_inverse_root import SHARED_BYTES, EmulatedInverseRoot
from helpers import normal, relative_error, symmetric, with_condition
from torch import Tensor

from kronext import reference

Schedules = Callable[[], Iterator[str]]

# Each kernel's first, some inner and its last size; the default run leaves out the slowest.
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 24, 31, 32, 33, 47, 48, 63, 64, 65]
LARGE = [96, 127, 128, 129, 160]


@pytest.fixture(params=[False, True], ids=["float64", "two floats"])
def ops(request: pytest.FixtureRequest, emulator: ModuleType) -> EmulatedInverseRoot:
    return EmulatedInverseRoot(emulator, slow_double=request.param)


def with_spectrum(values: Tensor, seed: int = 0) -> Tensor:
    n = len(values)
    q, _ = torch.linalg.qr(normal(n, n, dtype=torch.float64, seed=seed))
    A = (q * values.double()) @ q.mT
    return ((A + A.mT) / 2).float()


def test_eigh_of_every_size(ops: EmulatedInverseRoot) -> None:
    """Of indefinite matrices; 5 fill a part of the blocks that hold several."""
    for n in SIZES:
        cases.check_decomposition(ops, normal(5 if n <= 32 else 1, n, n))
    cases.check_decomposition(ops, normal(1, 100, 100))


@pytest.mark.parametrize(("condition", "bound"), cases.BOUNDS)
def test_roots(condition: float, bound: float, ops: EmulatedInverseRoot) -> None:
    cases.check_roots(ops, [2, 3, 6, 16, 21, 32, 40], condition, bound)


def test_contract_of_the_largest_sizes(ops: EmulatedInverseRoot) -> None:
    for n in (64, 128):
        A = with_condition(n, 1e6, seed=n)
        error = relative_error(ops.inverse_root(A, 4).root, reference.inverse_root(A, 4))
        assert error <= 2e-6, f"n={n}: error {error:.1e}"


@pytest.mark.sanitize
def test_large_sizes(ops: EmulatedInverseRoot) -> None:
    for n in LARGE:
        cases.check_decomposition(ops, normal(1, n, n))
        for condition, bound in cases.BOUNDS:
            cases.check_roots(ops, [n], condition, bound)
    cases.check_warm_start(ops, [100, 128, 130])


@pytest.mark.parametrize("root", [1, 2, 8, 1.5, 0.7])
def test_any_root(root: float, ops: EmulatedInverseRoot) -> None:
    cases.check_any_root(ops, [5, 27, 37], root, torch.float32)


def test_results_belong_together(ops: EmulatedInverseRoot) -> None:
    cases.check_results_belong_together(ops)


@pytest.mark.parametrize("options", cases.DAMPINGS)
def test_damping(options: dict[str, float], ops: EmulatedInverseRoot) -> None:
    cases.check_damping(ops, [7, 20, 40], options)


def test_pseudo_inverse(ops: EmulatedInverseRoot) -> None:
    cases.check_pseudo_inverse(ops, [2, 9, 30, 47], torch.float32)


@pytest.mark.parametrize("n", [1, 2, 16, 27, 40])
def test_special_spectra(n: int, ops: EmulatedInverseRoot) -> None:
    cases.check_special_spectra(ops, n)


def test_clusters_and_graded_matrices(ops: EmulatedInverseRoot) -> None:
    torch.manual_seed(0)
    for n in (12, 32, 48):
        scales = torch.logspace(0, -3, n)
        graded = scales[:, None] * with_condition(n, 10) * scales
        spectra = {
            "cluster": with_spectrum(1 + 1e-5 * torch.rand(n)),
            "wider cluster": with_spectrum(1 + 1e-3 * torch.rand(n)),
            "two clusters": with_spectrum(torch.tensor([1, 1e-5]).repeat(n // 2)),
            "three values": with_spectrum(torch.tensor([1, 0.5, 1e-6]).repeat(n // 3 + 1)[:n]),
            "graded": graded,
            "graded upwards": graded.flip(0, 1),
        }
        for label, A in spectra.items():
            result = ops.inverse_root(A, 4)
            error = relative_error(result.root, reference.inverse_root(A, 4))
            assert error <= 2e-6, f"n={n}, {label}: error {error:.1e}"
            cases.check_decomposition(ops, A[None])


def test_singular_with_little_damping(ops: EmulatedInverseRoot) -> None:
    """Damped far below float32's roundoff of the matrix."""
    for n in (12, 40):
        factor = normal(n, n // 3)
        A = factor @ factor.mT
        for relative_eps, bound in ((1e-3, 1e-5), (1e-6, 1e-5), (1e-8, 2e-5)):
            result = ops.inverse_root(A, 4, relative_eps=relative_eps).root
            oracle = reference.inverse_root(A, 4, relative_eps=relative_eps)
            assert relative_error(result, oracle) <= bound, f"n={n}, {relative_eps:.0e}"


@pytest.mark.parametrize("scale", cases.SCALES)
def test_scale(scale: float, ops: EmulatedInverseRoot) -> None:
    cases.check_scale(ops, [4, 20, 40], scale)


def test_scales_by_powers_of_two_give_the_same_bits(ops: EmulatedInverseRoot) -> None:
    A = with_condition(20, 1e4)
    expected = ops.inverse_root(A, 2)
    for exponent in (-100, -20, 4, 88):
        result = ops.inverse_root(A * 2.0**exponent, 2)
        assert torch.equal(result.values, expected.values * 2.0**exponent)
        assert torch.equal(result.root, expected.root * 2.0 ** (-exponent // 2))


@pytest.mark.parametrize("poison", cases.POISONS)
def test_a_failed_matrix(poison: float, ops: EmulatedInverseRoot) -> None:
    cases.check_failed_matrix(ops, [1, 6, 20, 33], torch.float32, poison)


def test_results_that_do_not_fit(ops: EmulatedInverseRoot) -> None:
    cases.check_results_that_do_not_fit(ops, [1, 5, 20, 40])


def test_only_the_lower_triangle_is_read(ops: EmulatedInverseRoot) -> None:
    cases.check_lower_triangle(ops, [2, 20, 40])


def test_in_place_form(ops: EmulatedInverseRoot) -> None:
    cases.check_in_place_form(ops, [5, 20, 40])


def test_a_ragged_list(ops: EmulatedInverseRoot) -> None:
    """Whatever else is in the list: bit for bit."""
    cases.check_list_forms(ops, [4, 33, 4, 16, 1, 12, 0, 17, 30, 33, 50, 63], bit_equal=160)
    names = [name.split(maxsplit=1)[0] for name, _ in ops.launched]
    assert set(names) == {"two" if ops.slow_double else "float64"}
    counts = [(name.split()[-1], count) for name, count in ops.launched]
    # Of 63, 50 and three times 33 rows, the last need less than half of the first's memory.
    assert counts == [("64", 2), ("64", 2), ("32", 2), ("16", 12)]


def test_strides(ops: EmulatedInverseRoot) -> None:
    cases.check_strides(ops, 11, 3)
    A = with_condition(20, 1e3)
    rows = torch.full((20, 27), float("nan"))
    rows[:, 3:23] = A
    assert torch.equal(ops.inverse_root(rows[:, 3:23], 4).root, ops.inverse_root(A, 4).root)


def test_empty(ops: EmulatedInverseRoot) -> None:
    cases.check_empty(ops)


def test_warm_start(ops: EmulatedInverseRoot) -> None:
    cases.check_warm_start(ops, [1, 6, 16, 20, 40])


def test_warm_start_of_indefinite_and_singular_matrices(ops: EmulatedInverseRoot) -> None:
    for n in (12, 40):
        A = normal(n, n)
        basis = ops.eigh(A).vectors
        warm, oracle = ops.eigh(A, basis=basis), torch.linalg.eigvalsh(A.double())
        assert (warm.values - oracle).abs().max() <= 4e-7 * oracle.abs().max()
        assert cases.orthogonality(warm.vectors) <= 2e-7 * n
        factor = normal(n, n // 3)
        A = factor @ factor.mT
        basis = ops.eigh(A + 1e-3 * symmetric(n, n)).vectors
        result = ops.inverse_root(A, 2, basis=basis).root
        assert relative_error(result, reference.inverse_root(A, 2)) <= 1e-5


def test_a_chain_of_warm_starts_does_not_drift(ops: EmulatedInverseRoot) -> None:
    n = 24
    A, basis = with_condition(n, 1e5), None
    for step in range(12):
        basis = ops.inverse_root(A, 4, basis=basis).basis
        A = 0.9 * A + 0.1 * symmetric(n, n, seed=step) * A.diagonal().mean()
    result = ops.inverse_root(A, 4, basis=basis)
    assert relative_error(result.root, reference.inverse_root(A, 4)) <= 2e-6
    assert cases.orthogonality(result.basis) <= 2e-7 * n


def test_a_basis_is_left_out_where_it_does_not_fit(emulator: ModuleType) -> None:
    small = EmulatedInverseRoot(emulator, shared_bytes=48 * 1024)
    A = with_condition(80, 1e2)
    cold = small.inverse_root(A, 4).root
    warm = small.inverse_root(A, 4, basis=torch.eye(80)).root
    assert torch.equal(warm, cold)
    assert [name for name, _ in small.launched] == ["float64 cold 128"]


def test_what_fits_no_block_is_left_to_others(emulator: ModuleType) -> None:
    def left(n: int, shared_bytes: int) -> int:
        task = (0, 0, 0, 0, 0, torch.zeros(1, dtype=torch.int32).data_ptr(), n, n)
        _, count = emulator.inverse_root([task] if n > 100 else [], 4.0, 0, 0, False, shared_bytes,
                                         False)  # fmt: skip
        return int(count)

    assert left(161, SHARED_BYTES) == 1
    assert left(160, 99 * 1024) == 1


@pytest.mark.parametrize("n", [64, 70])
@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_a_warm_start_takes_fewer_sweeps(
    noise: float, n: int, ops: EmulatedInverseRoot, emulator: ModuleType
) -> None:
    """Also from a basis that is mended first, where columns have padding and where they have none.

    A basis that is dropped costs more barriers than none at all: the results would not tell.
    """
    A = with_condition(n, 1e3, batch=(1,))
    near = ops.eigh(A + 1e-4 * symmetric(1, n, n)).vectors
    near += noise * normal(1, n, n)

    def barriers(basis: Tensor | None) -> int:
        before: int = emulator.barriers()
        ops.inverse_root(A, 4, basis=basis)
        return emulator.barriers() - before

    assert barriers(near) < 0.9 * barriers(None)
    assert barriers(2 * near) > barriers(None), "this one is of no use"


@pytest.mark.parametrize("n", [5, 16, 27, 40])
def test_every_schedule_gives_the_same_bits(
    n: int, ops: EmulatedInverseRoot, schedules: Schedules
) -> None:
    A = with_condition(n, 1e5, batch=(3,))
    A[1, 0, 0] = float("nan")
    near = ops.eigh(A + 1e-4 * symmetric(3, n, n)).vectors
    expected = None
    for schedule in schedules():
        results = [*ops.inverse_root(A, 4), *ops.inverse_root(A, 4, basis=near)]
        expected = expected or results
        for result, first in zip(results, expected, strict=True):
            assert torch.equal(result, first), f"n={n}, schedule {schedule}"
