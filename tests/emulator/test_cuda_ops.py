"""What csrc/torch registers for CUDA, from the public function to the emulated kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import building
import pytest
import torch
from emulated_ops import cpu_tensors_on_cuda_ops
from helpers import (
    FACTOR,
    FLOATING,
    assert_refused,
    name,
    normal,
    relative_error,
    sliced,
    symmetric,
)
from inverse_root_cases import (
    check_decomposition,
    check_eigenvalues_that_no_dtype_holds,
    check_list_forms,
    check_roots,
    check_warm_start,
)
from matvec_cases import check_factored, check_matvec, check_rearranged, dense, inner
from outer_cases import check_update, factors
from power_iteration_cases import (
    DECAY,
    WEIGHT,
    check_online_steps,
    check_pairs,
    check_steps,
    check_values,
    zeros,
)
from precondition_cases import check_sides, check_squares, operands

from kronext import ops, optim

pytestmark = pytest.mark.skipif(
    torch.version.cuda is not None, reason="the CUDA ops of this torch are the real ones"
)
FORMS = ["tensor", "factored", "dense", "batches", "factored batches"]


@pytest.fixture(scope="module")
def library(tree: Path) -> Path:
    building.build("emulated_ops")
    return tree / "emulated_ops.so"


@pytest.fixture
def ran(library: Path) -> Iterator[list[str]]:
    """Ops run on the emulated kernels; which ones did."""
    with cpu_tensors_on_cuda_ops(library) as names:
        yield names


@pytest.mark.parametrize("dtype", FLOATING, ids=name)
def test_outer_update(dtype: torch.dtype, ran: list[str]) -> None:
    check_update(ops.outer_update_, normal(2, 9, 17, dtype=dtype), *factors(2, 9, 17))
    check_update(ops.outer_update_, sliced(normal(70, 33, dtype=dtype)), *factors(70, 33))
    L, R = factors(5, 7)
    G = normal(5, 7, dtype=dtype)
    ops.outer_update_list_([L, None], [None, R], [G, G], decay=1.0, weight=[0.0, 0.0])
    assert torch.equal(L, factors(5, 7)[0])
    assert ran == ["outer_update_"] * 2 + ["outer_update_list_"]


@pytest.mark.parametrize("dtype", FLOATING, ids=name)
def test_precondition(dtype: torch.dtype, ran: list[str]) -> None:
    for m, n in [(9, 17), (70, 33)]:
        G, left, right = operands(m, n, dtype)
        check_sides(ops.precondition, G, left, right)
        single = ops.precondition(G, left, None)
        (listed,) = ops.precondition_list([sliced(G)], [left], None)
        assert torch.equal(single, listed)
    batched = ops.precondition(normal(3, 1, 9, 17, dtype=dtype), normal(2, 9, 9), None)
    assert batched.shape == (3, 2, 9, 17)
    rows = [operands(m, n, dtype) for m, n in [(70, 33), (3, 100), (9, 0), (9, 17)]]
    check_squares(ops, *(list(column) for column in zip(*rows, strict=True)))
    assert {"precondition", "precondition_list", "precondition_list_with_squares"} == set(ran)


def test_inverse_roots(ran: list[str]) -> None:
    check_decomposition(ops, normal(2, 20, 20))
    check_roots(ops, [8], 1e6, 1e-5)
    check_list_forms(ops, [3, 8], bit_equal=8)
    check_warm_start(ops, [8])
    check_decomposition(ops, normal(2, 5, 5, dtype=torch.float64))
    check_eigenvalues_that_no_dtype_holds(ops, [2, 16])
    assert {"eigh", "inverse_root", "inverse_root_list", "inverse_root_list_"} <= set(ran)


@pytest.mark.parametrize("dtype", FLOATING, ids=name)
def test_matvecs(dtype: torch.dtype, ran: list[str]) -> None:
    L, R = normal(3, 6, 6), normal(2, 1, 7, 7)
    G = normal(9, 6, 7, dtype=dtype)
    for number in FACTOR:
        check_matvec(ops, G.expand(2, 3, 9, 6, 7), L, R, normal(3, 9, dtype=number))
    D, A = normal(3, 9, 2, 6, dtype=dtype), normal(2, 1, 9, 2, 7, dtype=dtype)
    check_factored(ops, D, A, L, R)
    check_factored(ops, D[0].mT.contiguous().mT, A[0, 0], *inner(6, 7, "symmetric"), normal(9))
    check_rearranged(ops, sliced(dense(3, 42, 42, dtype=dtype)), L, R)
    assert {"kron_matvec", "kron_matvec_factored", "rearranged_matvec"} == set(ran)
    assert not any(side.any() for side in ops.kron_matvec(G[:0], *inner(6, 7, "general")))


@pytest.mark.parametrize("form", FORMS)
def test_power_iteration(form: str, ran: list[str]) -> None:
    check_steps(ops.power_iteration, form)
    check_values(ops.power_iteration, form, torch.float32, [(3, 4)])
    assert {"batches": 3, "factored batches": 3}.get(form, 1) == len(set(ran))


def test_power_iteration_of_higher_rank(ran: list[str]) -> None:
    check_pairs(ops.power_iteration, 2, torch.float32, (6, 3, 4))
    H = dense(2, 1, 12, 12)
    left, right, sigma, info = ops.power_iteration(H, shape=(3, 4), rank=2, tol=1e-9, steps=2)
    assert left.shape == (2, 1, 2, 3, 3)
    assert right.shape == (2, 1, 2, 4, 4)
    assert sigma.shape == (2, 1, 2)
    assert (info == 2).all(), "two steps do not reach the tolerance"
    assert set(ran) == {"power_iteration", "power_iteration_dense"}


@pytest.mark.parametrize("dtype", FLOATING, ids=name)
def test_online_steps(dtype: torch.dtype, ran: list[str]) -> None:
    check_online_steps(ops.power_iteration_list_, dtype, torch.float32, [(5, 7), (20, 33)])
    L, R = zeros(5, 7, 3)
    ops.power_iteration_list_([L], [R], [normal(5, 7, dtype=dtype)], decay=DECAY, weight=WEIGHT)
    assert torch.equal(L[0], L[2])
    assert set(ran) == {"power_iteration_list_"}


def test_refusals_come_before_any_write(ran: list[str]) -> None:
    L, R = factors(5, 7)
    written = [L, R]
    call = lambda: ops.power_iteration_list_([L], [L], [normal(5, 5)], decay=0, weight=1)  # noqa: E731
    assert_refused(call, ValueError, "must not share memory", written)
    call = lambda: ops.outer_update_list_([L, L], [None, R], [normal(5, 7)] * 2, decay=0, weight=1)  # noqa: E731
    assert_refused(call, ValueError, "must not share memory", written)
    call = lambda: ops.inverse_root_list_([L, L], [torch.eye(5)] * 2, 4)  # noqa: E731
    assert_refused(call, ValueError, "must not share memory", written)
    call = lambda: ops.outer_update_(L, R, normal(5, 7).int(), decay=0, weight=1)  # noqa: E731
    assert_refused(call, TypeError, "G must have dtype", written)


def test_an_optimizer_steps_as_on_the_cpu(library: Path) -> None:
    def train() -> torch.Tensor:
        weight = torch.nn.Parameter(normal(9, 5))
        optimizer = optim.Shampoo([weight], lr=0.1, block_size=8, update_interval=1, start_step=1)
        for step in range(3):
            weight.grad = normal(9, 5, seed=step)
            optimizer.step()
        return weight.detach()

    expected = train()
    with cpu_tensors_on_cuda_ops(library) as ran:
        torch.testing.assert_close(train(), expected, rtol=1e-4, atol=1e-5)
    assert {"outer_update_list_", "inverse_root_list_", "precondition_list"} <= set(ran)


# ---- torch.set_float32_matmul_precision ---------------------------------------------------------


@pytest.fixture
def default_precision_afterwards() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")


def float32_products(G: torch.Tensor, L: torch.Tensor, R: torch.Tensor) -> list[torch.Tensor]:
    """One of every op that makes them."""
    left, right, online_left, online_right = L.clone(), R.clone(), L.clone(), R.clone()
    ops.outer_update_(left, right, G[0], decay=0.0, weight=1.0)
    ops.power_iteration_list_([online_left], [online_right], [G[0]], decay=0.0, weight=1.0)
    products = [left, right, online_left, online_right, ops.precondition(G, L, R)]
    products += [*ops.kron_matvec(G, L, R), *ops.kron_matvec_factored(G, G, R, R)]
    return [*products, *ops.power_iteration(G, steps=1)[:3]]


def test_products_follow_the_precision_of_the_call(
    ran: list[str], default_precision_afterwards: None
) -> None:
    """In a compiled graph too, which must not remember the precision that it was traced at."""
    compiled = torch.compile(float32_products, fullgraph=True, backend="aot_eager")
    G, L, R = normal(3, 9, 20), symmetric(9, 9), symmetric(20, 20)
    exact = [t.double() for t in float32_products(G.double(), L.double(), R.double())]
    bounds = {"medium": (1e-4, 3e-2), "high": (1e-7, 1e-4), "highest": (0, 1e-6)}
    for precision in ("high", "medium", "highest", "medium", "high"):
        torch.set_float32_matmul_precision(precision)
        eager = float32_products(G, L, R)
        for result, same, oracle in zip(eager, compiled(G, L, R), exact, strict=True):
            assert torch.equal(result, same), f"the compiled graph is not at {precision}"
            low, high = bounds[precision]
            assert low < relative_error(result, oracle) < high


def test_whole_graphs_compile(ran: list[str]) -> None:
    def steps(G: torch.Tensor) -> tuple[torch.Tensor, ...]:
        left, right = ops.kron_matvec(G, torch.eye(5), torch.eye(7))
        ops.power_iteration_list_([left], [right], [G[0]], decay=DECAY, weight=WEIGHT)
        return left, right, *ops.power_iteration(G, steps=2)

    G = normal(3, 5, 7)
    compiled = torch.compile(steps, fullgraph=True, backend="aot_eager")
    for mine, expected in zip(compiled(G), steps(G), strict=True):
        assert torch.equal(mine, expected)
    assert ran.count("power_iteration_list_") == 2
