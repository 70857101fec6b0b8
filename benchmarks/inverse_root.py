"""`eigh` and `inverse_root_` of batches against `torch.linalg.eigh` in float32 and float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks import shapes
from benchmarks.inputs import NAMES, error_of, normal
from benchmarks.runner import Call, Case, Growth, Job
from kronext import ops, reference
from kronext.ops.inverse_root import Precision

RIVALS = {"eigh float32": torch.float32, "eigh float64": torch.float64}
EPS = 1e-6


def decompositions() -> Iterator[Case]:
    """`eigh`, values and vectors."""
    for n in shapes.ROOT_SIZES:
        batch = _batch_of(n)
        growth = Growth("one matrix of a batch", "n", n, batch)
        yield Case("eigh", f"{batch} of {n}", partial(_eigh, batch, n), growth=growth)


def roots() -> Iterator[Case]:
    """`A^(-1/4)`, over sizes and over batches."""
    for n in shapes.ROOT_SIZES:
        batch = _batch_of(n)
        growth = Growth("one matrix of a batch", "n", n, batch)
        yield Case("inverse_root_", f"{batch} of {n}", partial(_root, batch, n), growth=growth)
    for batch in shapes.ROOT_BATCHES:
        growth = Growth("of 64", "batch", batch)
        yield Case("inverse_root_", f"{batch} of 64", partial(_root, batch, 64), growth=growth)
    for n in shapes.SINGLE_ROOT_SIZES:
        growth = Growth("alone", "n", n)
        yield Case("inverse_root_", f"1 of {n}", partial(_root, 1, n), growth=growth)
    for n in shapes.ROOT_SIZES:
        batch = _batch_of(n)
        job = partial(_root, batch, n, precision="float32")
        yield Case("inverse_root_", f"{batch} of {n}, plain float32", job)
    for n in (32, 128):
        dtype = torch.float64
        batch = _batch_of(n)
        yield Case(
            "inverse_root_", f"{batch} of {n}", partial(_root, batch, n, dtype=dtype), NAMES[dtype]
        )


def _batch_of(n: int) -> int:
    return max(32 if n <= 256 else 4, min(512, int(4e6 / n**2.5)))


def _matrices(batch: int, n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    X = normal(batch, n, 2 * n, dtype=dtype)
    return X @ X.mT / n


def _root(
    batch: int,
    n: int,
    wants: Callable[[str], bool],
    *,
    dtype: torch.dtype = torch.float32,
    precision: Precision = "mixed",
) -> Job:
    A = _matrices(batch, n, dtype)
    out = torch.empty_like(A)

    def ours(_: int) -> object:
        return ops.inverse_root_(out, A, 4, eps=EPS, precision=precision)

    def by_eigh(dtype: torch.dtype, A: Tensor = A) -> Tensor:
        values, vectors = torch.linalg.eigh(A.to(dtype))
        powers = (values.clamp_min(0) + EPS) ** -0.25
        return ((vectors * powers.unsqueeze(-2)) @ vectors.mT).to(A.dtype)

    few = A[:4]
    oracle = reference.inverse_root(few, 4, eps=EPS)
    wanted = {name: dtype for name, dtype in RIVALS.items() if wants(name)}
    return Job(
        [ours],
        {name: [_indexed(partial(by_eigh, dtype))] for name, dtype in wanted.items()},
        lambda: error_of(ops.inverse_root(few, 4, eps=EPS, precision=precision).root, oracle),
        rival_errors={
            name: partial(lambda dtype: error_of(by_eigh(dtype, few), oracle), dtype)
            for name, dtype in wanted.items()
        },
        # Tridiagonalisation, vectors and the product, whatever the method: about 9 n^3.
        wide_flops=batch * 9.0 * n**3,
        moved=2.0 * A.nbytes,
    )


def _eigh(batch: int, n: int, wants: Callable[[str], bool]) -> Job:
    A = _matrices(batch, n)

    def ours(_: int) -> object:
        return ops.eigh(A)

    def error() -> float:
        values, vectors, _ = ops.eigh(A[:4])
        return error_of(
            (vectors.double() * values.double().unsqueeze(-2)) @ vectors.double().mT, A[:4]
        )

    return Job(
        [ours],
        {
            name: [_indexed(partial(_torch_eigh, A, dtype))]
            for name, dtype in RIVALS.items()
            if wants(name)
        },
        error,
        wide_flops=batch * 8.0 * n**3,
        moved=2.0 * A.nbytes,
    )


def _torch_eigh(A: Tensor, dtype: torch.dtype) -> object:
    values, vectors = torch.linalg.eigh(A.to(dtype))
    return values.to(A.dtype), vectors.to(A.dtype)


def _indexed(call: Callable[[], object]) -> Call:
    return lambda _: call()
