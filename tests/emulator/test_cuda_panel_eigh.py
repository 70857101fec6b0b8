"""The CUDA panel eigensolver, executed on the CPU: the cases and the oracle of the CPU op.

Sizes are small, but cross what there is to cross: one pair of panels (up to 64), several, a last
panel that is empty (65, 70), Gram matrices in two parts (above 128). Panels meet in shared memory
where a test does not ask for many multiprocessors, or for little shared memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

import inverse_root_cases as cases
import pytest
import torch
from emulated_inverse_root import SHARED_BYTES
from emulated_panel_eigh import EmulatedPanelEigh
from helpers import normal, relative_error, symmetric, with_condition

from kronext import reference

Schedules = Callable[[], Iterator[str]]

# Multiprocessors, and the shared memory of one.
H100, A100, RTX_4090 = (132, 228 * 1024), (108, 164 * 1024), (128, 100 * 1024)
MANY = 1000  # multiprocessors, which a block for each pair would leave idle


@pytest.fixture
def ops(emulator: ModuleType) -> EmulatedPanelEigh:
    return EmulatedPanelEigh(emulator)


@pytest.fixture(params=[False, True], ids=["float64", "two floats"])
def either(request: pytest.FixtureRequest, emulator: ModuleType) -> EmulatedPanelEigh:
    """For what depends on the wide arithmetic."""
    return EmulatedPanelEigh(emulator, slow_double=request.param)


def test_eigh_of_every_size(either: EmulatedPanelEigh) -> None:
    """Of indefinite matrices."""
    for n in (1, 2, 31, 32, 33, 64, 65):
        cases.check_decomposition(either, normal(1, n, n))


@pytest.mark.parametrize(("condition", "bound"), cases.BOUNDS)
def test_roots(condition: float, bound: float, either: EmulatedPanelEigh) -> None:
    cases.check_roots(either, [2, 33], condition, bound)


def test_contract_of_several_panels(ops: EmulatedPanelEigh) -> None:
    for n in (70, 130):
        A = with_condition(n, 1e6, seed=n)
        error = relative_error(ops.inverse_root(A, 4).root, reference.inverse_root(A, 4))
        assert error <= 2e-6, f"n={n}: error {error:.1e}"


@pytest.mark.sanitize
@pytest.mark.parametrize("n", [200, 320, 512])
def test_contract_of_large_matrices(n: int, ops: EmulatedPanelEigh) -> None:
    A = with_condition(n, 1e6, seed=n)
    result = ops.inverse_root(A, 4)
    assert relative_error(result.root, reference.inverse_root(A, 4)) <= 4e-6
    assert cases.orthogonality(result.basis) <= 2e-7 * n


@pytest.mark.sanitize
def test_large_sizes(either: EmulatedPanelEigh) -> None:
    for n in (96, 127, 129):
        cases.check_decomposition(either, normal(1, n, n))
        cases.check_special_spectra(either, n)
    cases.check_warm_start(either, [100])


@pytest.mark.parametrize("n", [70, 161, pytest.param(320, marks=pytest.mark.sanitize)])
def test_either_method_gives_the_same_bits(n: int, emulator: ModuleType) -> None:
    """Panels that meet in shared memory, and in two launches."""
    A = with_condition(n, 1e6, seed=n)
    resident, in_two_launches = (
        EmulatedPanelEigh(emulator, multiprocessors=m).inverse_root(A, 4) for m in (1, MANY)
    )
    assert relative_error(resident.root, reference.inverse_root(A, 4)) <= 2e-6
    for name in ("root", "basis", "values"):
        assert torch.equal(getattr(resident, name), getattr(in_two_launches, name)), name


@pytest.mark.parametrize(
    ("device", "sizes", "pairs"),
    [
        pytest.param(H100, [512] * 32, 8, id="two rounds of blocks"),
        pytest.param(H100, [512], 0, id="8 blocks for 132 multiprocessors"),
        pytest.param(H100, [512] * 17, 0, id="4 of 136 blocks have a round to themselves"),
        pytest.param(H100, [2048] + [500] * 16, 8, id="a matrix that is too large"),
        pytest.param(H100, [768] * 32, 12, id="the largest"),
        pytest.param(H100, [769] * 32, 0, id="too large"),
        pytest.param(A100, [512] * 32, 8, id="164 KB"),
        pytest.param(A100, [513] * 32, 0, id="too large for 164 KB"),
        pytest.param(RTX_4090, [256] * 32, 4, id="100 KB"),
        pytest.param(RTX_4090, [257] * 32, 0, id="too large for 100 KB"),
        pytest.param(H100, [], 0, id="nothing"),
    ],
)
def test_which_panels_meet_in_shared_memory(
    device: tuple[int, int], sizes: list[int], pairs: int, emulator: ModuleType
) -> None:
    assert emulator.resident_pairs(sizes, *device) == pairs


@pytest.mark.parametrize("root", [1, 8, 0.7])
def test_any_root(root: float, ops: EmulatedPanelEigh) -> None:
    cases.check_any_root(ops, [5, 37], root, torch.float32)


def test_results_belong_together(ops: EmulatedPanelEigh) -> None:
    cases.check_results_belong_together(ops)


@pytest.mark.parametrize("options", cases.DAMPINGS)
def test_damping(options: dict[str, float], ops: EmulatedPanelEigh) -> None:
    cases.check_damping(ops, [7, 40], options)


def test_pseudo_inverse(either: EmulatedPanelEigh) -> None:
    cases.check_pseudo_inverse(either, [2, 9, 47], torch.float32)


@pytest.mark.parametrize("n", [1, 2, 40, 66])
def test_special_spectra(n: int, ops: EmulatedPanelEigh) -> None:
    cases.check_special_spectra(ops, n)


def test_columns_that_are_nearly_dependent(ops: EmulatedPanelEigh) -> None:
    """A smooth kernel matrix: without pivots its factor would take half as many sweeps again."""
    t = torch.arange(96, dtype=torch.float64)
    A = (torch.exp(-(((t[:, None] - t) / 5) ** 2)) + 1e-4 * torch.eye(96)).float()
    error = relative_error(ops.inverse_root(A, 4).root, reference.inverse_root(A, 4))
    assert error <= 2e-6, f"error {error:.1e}"
    assert ops.work[0][1] <= 11


@pytest.mark.parametrize("scale", cases.SCALES)
def test_scale(scale: float, ops: EmulatedPanelEigh) -> None:
    cases.check_scale(ops, [4, 40], scale)


@pytest.mark.parametrize("poison", cases.POISONS)
def test_a_failed_matrix(poison: float, ops: EmulatedPanelEigh) -> None:
    cases.check_failed_matrix(ops, [1, 33], torch.float32, poison)


def test_results_that_do_not_fit(ops: EmulatedPanelEigh) -> None:
    cases.check_results_that_do_not_fit(ops, [1, 40])


def test_only_the_lower_triangle_is_read(ops: EmulatedPanelEigh) -> None:
    cases.check_lower_triangle(ops, [2, 40])


def test_in_place_form(ops: EmulatedPanelEigh) -> None:
    cases.check_in_place_form(ops, [5, 40])


def test_strides(ops: EmulatedPanelEigh) -> None:
    cases.check_strides(ops, 11, 3)


@pytest.mark.parametrize(
    "shared_bytes",
    [
        pytest.param(SHARED_BYTES, id="every pair resident"),
        pytest.param(60 * 1024, id="pairs of up to 64 rows resident"),
    ],
)
def test_a_matrix_gives_the_same_bits_whatever_else_is_in_the_list(
    shared_bytes: int, emulator: ModuleType
) -> None:
    ops = EmulatedPanelEigh(emulator, shared_bytes=shared_bytes)
    As = [with_condition(n, 1e4, seed=n) for n in (20, 100, 64, 65, 33, 2)]
    As[2][5, 3] = float("nan")
    bases = [None, ops.eigh(As[1]).vectors, None, torch.eye(65), torch.zeros(33, 33), None]
    listed = ops.inverse_root_list(As, 4, bases=bases)
    assert listed.info.tolist() == [0, 0, 1, 0, 0, 0]
    for index, A in enumerate(As):
        alone = ops.inverse_root(A, 4, basis=bases[index])
        for name in ("root", "basis", "values"):
            assert torch.equal(getattr(listed, name)[index], getattr(alone, name)), (index, name)


def test_shifts(either: EmulatedPanelEigh) -> None:
    """As many as it takes; the last is always enough."""
    for A, shifts in (
        (with_condition(40, 1e6), 0),
        (torch.ones(40, 40), 1),
        (torch.diag(torch.tensor([1.0] * 39 + [-0.1])), 5),
        (-torch.full((40, 40), 1.99), 10),  # 2^8: all that there are for 40 rows
    ):
        result = either.eigh(A)
        assert either.work[0][0] == shifts
        assert relative_error(result.values, torch.linalg.eigvalsh(A.double())) <= 5e-7


def test_warm_start(either: EmulatedPanelEigh) -> None:
    cases.check_warm_start(either, [1, 33])


def test_a_near_basis_saves_sweeps(ops: EmulatedPanelEigh) -> None:
    n = 96
    A = with_condition(n, 1e6)
    values, vectors = torch.linalg.eigh(A.double())
    square_root = (vectors * values.sqrt()) @ vectors.mT
    noise = normal(n, 2 * n, dtype=torch.float64)
    near = 0.99 * A + 0.01 * square_root @ (noise @ noise.mT / (2 * n)) @ square_root
    near = near.tril() + near.tril(-1).mT
    ops.inverse_root(near.float(), 4)
    cold = ops.work[0][1]
    result = ops.inverse_root(near.float(), 4, basis=vectors.float())
    assert ops.work[0][1] <= 3
    assert cold >= 6
    assert relative_error(result.root, reference.inverse_root(near.float(), 4)) <= 2e-6


def test_a_chain_of_warm_starts_does_not_drift(ops: EmulatedPanelEigh) -> None:
    n = 40
    A, basis = with_condition(n, 1e5), None
    for step in range(8):
        basis = ops.inverse_root(A, 4, basis=basis).basis
        A = 0.9 * A + 0.1 * symmetric(n, n, seed=step) * A.diagonal().mean()
    result = ops.inverse_root(A, 4, basis=basis)
    assert relative_error(result.root, reference.inverse_root(A, 4)) <= 2e-6
    assert cases.orthogonality(result.basis) <= 2e-7 * n


def test_what_is_left_to_others(emulator: ModuleType) -> None:
    info = torch.full((1,), -1, dtype=torch.int32)
    tasks = [(0, 0, 0, 0, 0, info.data_ptr(), n, n) for n in (0, 2049)]
    _, count = emulator.panel_eigh(tasks, 4.0, 0.0, 0.0, False, 1, SHARED_BYTES, False)
    assert count == 2
    assert int(info) == -1


@pytest.mark.parametrize(
    ("n", "multiprocessors"),
    [(5, 1), (70, 1), (70, MANY), pytest.param(130, MANY, marks=pytest.mark.sanitize)],
)
def test_every_schedule_gives_the_same_bits(
    n: int, multiprocessors: int, emulator: ModuleType, schedules: Schedules
) -> None:
    ops = EmulatedPanelEigh(emulator, multiprocessors=multiprocessors)
    A = with_condition(n, 1e3, batch=(2,))
    A[0, 0, 0] = float("nan")
    near = torch.linalg.eigh(A[1] + 1e-4 * symmetric(n, n)).eigenvectors.expand(2, n, n)
    expected = None
    for schedule in schedules():
        results = [*ops.inverse_root(A, 4, basis=near), *ops.eigh(symmetric(n, n) - torch.eye(n))]
        expected = expected or results
        for result, first in zip(results, expected, strict=True):
            assert torch.equal(result, first), f"n={n}, schedule {schedule}"
