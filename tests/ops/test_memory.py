"""No op allocates more than twice its output and the workspace that is stated here.

Of float32 arguments, for vectors of up to 64 bytes. A thread keeps its last workspace of up to
64 MB (csrc/torch/parallel.h).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest
import torch
from allocations import peak_bytes
from helpers import normal
from torch import Tensor

from kronext import ops

pytestmark = pytest.mark.cpu  # torch's profiler sees what its CPU allocator gives

MEGABYTE = 2**20
# Matrices of float64 side by side in the widest vectors, and what the eigensolver holds of each.
LANES, MATRICES = 8, 5.5
# The same of float32 throughout.
PLAIN_LANES, PLAIN_MATRICES = 16, 6.5


def panels(n: int) -> float:
    """Packed panels, and one float32 matrix between two products."""
    return 4 * n * n + MEGABYTE / 4


def sums(n: int) -> float:
    """Packed samples, and sums of both results in float64."""
    return 16 * n * n + MEGABYTE


def positions(n: int) -> float:
    """What sums need, and the packed factors of n positions."""
    return sums(n) + 2 * 4 * n * n


def iterates(n: int) -> float:
    """What sums need, and the pairs before, at and after a round."""
    return sums(n) + 3 * 2 * 4 * n * n


def eigensolver(n: int) -> float:
    """Full lanes of matrices."""
    return LANES * MATRICES * 8 * n * n + MEGABYTE


def plain_eigensolver(n: int) -> float:
    return PLAIN_LANES * PLAIN_MATRICES * 4 * n * n + MEGABYTE


Call = Callable[[Tensor, Tensor], "Tensor | Iterable[Tensor] | None"]

# Each op on gradients and PSD matrices, both (batch, n, n), and its workspace a thread.
OPS: dict[str, tuple[Call, Callable[[int], float]]] = {
    "outer_update_": (lambda G, A: ops.outer_update_(A, None, G, decay=0.9, weight=0.1), panels),
    "outer_update_list_": (
        lambda G, A: ops.outer_update_list_(list(A), None, list(G), decay=0.9, weight=0.1),
        panels,
    ),
    "precondition": (lambda G, A: ops.precondition(G, A, A), panels),
    "precondition_list": (lambda G, A: ops.precondition_list(list(G), list(A), list(A)), panels),
    "precondition_list_with_squares": (
        lambda G, A: ops.precondition_list_with_squares(list(G), list(A), list(A)).outputs,
        panels,
    ),
    "kron_matvec": (lambda G, A: ops.kron_matvec(G, A[0], A[0]), sums),
    "kron_matvec_factored": (lambda G, A: ops.kron_matvec_factored(G, G, A[0], A[0]), positions),
    "power_iteration": (lambda G, A: ops.power_iteration(G, steps=2)[:3], iterates),
    "power_iteration_list_": (
        lambda G, A: ops.power_iteration_list_(
            [*A], [*G], [torch.ones(1).expand(G[0].shape)] * len(G), decay=0.9, weight=0.1
        ),
        sums,
    ),
    "eigh": (lambda G, A: ops.eigh(A), eigensolver),
    "eigh in float32": (lambda G, A: ops.eigh(A, precision="float32"), plain_eigensolver),
    "inverse_root": (lambda G, A: ops.inverse_root(A, 4), eigensolver),
    "inverse_root_": (lambda G, A: ops.inverse_root_(G, A, 4), eigensolver),
    "inverse_root_list": (
        lambda G, A: chain(*ops.inverse_root_list([*A], 4)[:3]),
        eigensolver,
    ),
    "inverse_root_list_": (lambda G, A: ops.inverse_root_list_([*G], [*A], 4), eigensolver),
    "inverse_root_ in float32": (
        lambda G, A: ops.inverse_root_(G, A, 4, precision="float32"),
        plain_eigensolver,
    ),
}


def test_every_op_has_a_bound() -> None:
    functions = {name for name in ops.__all__ if name.islower()}
    bounded = {op.split()[0] for op in OPS}
    assert functions == bounded | {"rearranged_matvec"}, "that one's input is n^2 x n^2: below"


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(("batch", "n"), [(1, 64), (200, 16), (40, 64), (1, 256), (9, 256)])
def test_memory_of_an_op(op: str, batch: int, n: int, threads: int) -> None:
    call, workspace = OPS[op]
    G = normal(batch, n, n)
    A = G @ G.mT / n
    outputs = call(G, A)
    tensors = [] if outputs is None else [outputs] if isinstance(outputs, Tensor) else outputs
    allowed = 2 * sum(tensor.nbytes for tensor in tensors) + threads * workspace(n)
    peak = in_a_new_thread(lambda: peak_bytes(lambda: call(G, A), warm=False))
    assert peak <= allowed, f"{op} holds {peak} bytes, {peak / allowed:.2f} of what is allowed"


def test_a_thread_keeps_its_workspace_unless_it_is_large() -> None:
    def bytes_of_second_call(n: int) -> int:
        A = torch.eye(n)
        out = torch.empty_like(A)
        return in_a_new_thread(lambda: peak_bytes(lambda: ops.inverse_root_(out, A, 4)))

    assert bytes_of_second_call(512) <= 1024, "the workspace was not kept"
    assert bytes_of_second_call(2560) >= 64 * MEGABYTE, "more was kept than is stated"


def in_a_new_thread(call: Callable[[], int]) -> int:
    """Where no workspace is kept yet."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(call).result()


def test_the_dense_matrix_is_not_copied(threads: int) -> None:
    H, L = normal(1024, 1024), normal(32, 32)
    assert peak_bytes(lambda: ops.rearranged_matvec(H, L, L)) <= threads * MEGABYTE / 8
