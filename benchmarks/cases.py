"""Every op with its cases; a module of this folder for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks import inverse_root, matvec, optimizer, outer, power_iteration, precondition
from benchmarks.runner import Case

CASES: dict[str, Callable[[], Iterator[Case]]] = {
    "outer_update": outer.one,
    "outer_update_list": outer.lists,
    "precondition": precondition.one,
    "precondition_list": precondition.lists,
    "eigh": inverse_root.decompositions,
    "inverse_root": inverse_root.roots,
    "kron_matvec": matvec.whole,
    "kron_matvec_factored": matvec.factored,
    "rearranged_matvec": matvec.rearranged,
    "power_iteration": power_iteration.samples,
    "power_iteration_list": power_iteration.online,
    "optimizer": optimizer.steps,
}


def select(ops: list[str], labels: list[str], dtypes: list[str]) -> list[Case]:
    """Return the cases of these ops whose label holds one of `labels`, in one of `dtypes`.

    An empty list stands for all.
    """
    return [
        case
        for op in ops or CASES
        for case in CASES[op]()
        if not labels or any(label in case.label for label in labels)
        if not dtypes or case.dtype in dtypes
    ]
