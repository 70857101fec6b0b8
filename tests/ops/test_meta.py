"""Every op on tensors without values: nothing reads one on the host, or leaves their device.

That is what a CUDA graph needs of the Python layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import FLOATING, name, normal, symmetric
from torch import Tensor
from torch.utils._pytree import tree_leaves

from kronext import ops

Make = Callable[[Tensor], Tensor]


def samples(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    G = normal(2, 9, 5, 7, dtype=dtype)
    return G, normal(2, 9, 3, 5, dtype=dtype), normal(9, 3, 7, dtype=dtype), symmetric(35, 35)


def call_every_op(dtype: torch.dtype, to: Make) -> dict[str, Any]:
    """Results, and what was written, of every public function."""
    G, D, A, H = (to(t) for t in samples(dtype))
    L, R, g = to(symmetric(2, 5, 5)), to(symmetric(7, 7)), to(normal(5, 7, dtype=dtype))
    l, out = to(symmetric(5, 5)), to(symmetric(2, 5, 5))
    numbers = {"decay": 0.5, "weight": [0.5, 0.25]}
    pair = (l.double(), R)
    return {
        "outer_update_": (ops.outer_update_(l, R, g, decay=0.5, weight=0.5), l, R),
        "outer_update_list_": (ops.outer_update_list_([L, None], [None, R], [g, g], **numbers), L),
        "precondition": ops.precondition(G, l, None),
        "precondition_list": ops.precondition_list([g, G], [None, l], [R, R]),
        "precondition_list_with_squares": [
            ops.precondition_list_with_squares([g, G], [None, l], [R, R]),
            ops.precondition_list_with_squares([g, G], [l, l], None),
        ],
        "eigh": ops.eigh(L),
        "inverse_root": ops.inverse_root(L, 4, eps=1.0),
        "inverse_root_list": ops.inverse_root_list([L, R], 4),
        "inverse_root_": (ops.inverse_root_(out, L, 4, eps=1.0), out),
        "inverse_root_list_": (ops.inverse_root_list_([out], [L], 4), out),
        "kron_matvec": ops.kron_matvec(G, l, R, weights=to(normal(2, 9))),
        "kron_matvec_factored": ops.kron_matvec_factored(D, A, L, R),
        "rearranged_matvec": ops.rearranged_matvec(H, l, R),
        "power_iteration": [
            ops.power_iteration(G, rank=2, init=pair),
            ops.power_iteration((D, A), tol=1e-3),
            ops.power_iteration(H, shape=(5, 7), rank=3, steps=2, tol=1e-3),
            ops.power_iteration([G, (D, A)], steps=2, rank=2),
        ],
        "power_iteration_list_": (
            ops.power_iteration_list_([L, l], [to(symmetric(2, 7, 7)), R], [G[:, 0], g], **numbers),
            L,
        ),
    }


@pytest.mark.parametrize("dtype", FLOATING, ids=name)
def test_results_are_like_those_of_tensors_with_values(dtype: torch.dtype) -> None:
    known = call_every_op(dtype, lambda t: t)
    unknown = call_every_op(dtype, lambda t: t.to("meta"))
    functions = {name for name in ops.__all__ if name[0].islower()}
    assert set(known) == set(unknown) == functions
    for op, results in known.items():
        for real, meta in zip(tree_leaves(results), tree_leaves(unknown[op]), strict=True):
            if real is None:
                assert meta is None
                continue
            assert meta.device.type == "meta", f"{op}: a result is on {meta.device}"
            assert (meta.shape, meta.dtype) == (real.shape, real.dtype), op
