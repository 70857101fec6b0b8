"""Power iteration on the rearranged matrix of `H`: the Kronecker products nearest to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeGuard

import torch
from torch import Tensor

from kronext.ops import _library as lib
from kronext.ops import matvec

Samples: TypeAlias = "Tensor | tuple[Tensor, Tensor]"


class KroneckerSum(NamedTuple):
    """`H ~ sum_k sigma_k left_k (x) right_k`.

    Attributes:
        left: `(..., r, m, m)`, each of Frobenius norm 1. The first is symmetric bit for bit, with a
            trace that is not negative, and PSD where `H` is: at every step for rank 1, once the
            iteration has converged for higher ranks. The others may be antisymmetric, or not
            symmetric at all.
        right: `(..., r, n, n)`, likewise.
        sigma: `(..., r)`, not negative, descending.
        info: int32 `(...)`: 0 done; 1 the samples or the start had a NaN or Inf, their products
            left the range of the dtype, or the start was zero (then every factor is the identity of
            norm 1 and sigma 0); 2 `tol` was not reached.
    """

    left: Tensor
    right: Tensor
    sigma: Tensor
    info: Tensor


def power_iteration(
    samples: Samples | Iterable[Samples],
    *,
    shape: tuple[int, int] | None = None,
    steps: int = 5,
    init: tuple[Tensor, Tensor] | None = None,
    tol: float | None = None,
    rank: int = 1,
) -> KroneckerSum:
    """The leading singular triples of `Hhat`: `H ~ sum_k sigma_k left_k (x) right_k`.

    `L_k = E[G R_(k-1) GT]` and `R_k = E[GT L_(k-1) G]`, both from the previous pair, scaled to norm
    1 after each step. From the identity one step gives `E[G GT]` and `E[GT G]`, the square of
    Shampoo's approximation (Proposition 1); the paper's optimum takes five. `sigma = <left, Hhat
    vec(right)>`, the best scale for the final pair, costs one more product (half a step). Higher
    ranks iterate on a block of pairs that is made orthonormal after each step, and end with the
    singular value decomposition of the `r x r` matrix `<left_i, Hhat vec(right_j)>`
    (Rayleigh-Ritz); their further starts are fixed numbers. Products are made as in `kron_matvec`.

    Args:
        samples: Gradients `(..., S, m, n)`; a tuple `(D, A)` of factors `(..., S, T, m)` and
            `(..., S, T, n)` of `G_s = D_sT A_s`; a dense `H` `(..., mn, mn)` together with `shape`;
            or an iterable that can be walked more than once, a pass for each step, and yields
            batches of the first two kinds, all for the same `(..., m, n)`: `E` is the mean over the
            samples of all batches. float64, float32, bfloat16 or float16.
        shape: `(m, n)` of a dense `H`. Only the symmetric part of `H` counts.
        steps: Number of steps, at most where `tol` is given.
        init: `(L_0, R_0)` in place of the identities, `(..., m, m)` and `(..., n, n)`, float32 or
            float64; their symmetric parts count.
        tol: Stop when the spans of the left and of the right factors turn, in one step, by an angle
            whose sine is at most `tol` in every batch entry. Steps of float32 factors do not fall
            below about 1e-7. On CUDA all steps are launched, and those behind the stop do nothing;
            only for an iterable does the host wait, to know whether it must walk it again: then
            this cannot be captured in a CUDA graph.
        rank: Number of pairs, at most `min(m, n)^2`.

    Returns:
        Factors that are float64 where the samples (of an iterable the first batch) or `init` are,
        else float32.

    Raises:
        ValueError: A shape, a number or a device does not fit.
        TypeError: A dtype or an argument type does not fit, or an iterable can be walked only once.

    Source: arXiv 2406.17748, eq. 3 and 4, Section 3.1; Van Loan and Pitsianis 1993.
    """
    _check_count("steps", steps, at_least=0)
    _check_count("rank", rank, at_least=1)
    if tol is not None:
        lib.check_number(_NAME, "tol", tol)
    if shape is not None:
        H, m, n = _check_dense(samples, shape)
        start = _start(H.shape[:-2], m, n, H, init, rank)
        results = lib.call(_dense, _like_dense, H, *start, steps=steps, tol=tol)
    elif isinstance(samples, Tensor):
        start = _start(*matvec.check_samples(_NAME, samples), samples, init, rank)
        results = lib.call(_whole, _like_whole, samples, *start, steps=steps, tol=tol)
    elif _is_pair(samples):
        D, A = samples
        start = _start(*matvec.check_factors(_NAME, D, A), D, init, rank)
        results = lib.call(_factored, _like_factored, D, A, *start, steps=steps, tol=tol)
    else:
        results = _iterate_batches(_Batches(samples), steps, init, tol, rank)
    return KroneckerSum(*results)


def power_iteration_list_(
    Ls: Sequence[Tensor],
    Rs: Sequence[Tensor],
    Gs: Sequence[Tensor],
    *,
    decay: float | Sequence[float],
    weight: float | Sequence[float],
) -> None:
    """`L <- decay L + weight G R' GT` and `R <- decay R + weight GT L' G` for a ragged list.

    `R' = R / ||R||_F` and `L' = L / ||L||_F` are those from before the update, the identity of norm
    1 where a factor is zero (or not finite): an online step of power iteration for each entry.
    Products are made as in `kron_matvec`.

    Args:
        Ls: Left factors `(..., m, m)`, float32 or float64, symmetric, dense in their last two
            dimensions; updated in place, both halves with the same bits.
        Rs: Right factors `(..., n, n)`, likewise, each of the dtype and batch of its left factor.
        Gs: Gradients `(..., m, n)`, float64, float32, bfloat16 or float16, any strides; their batch
            dimensions broadcast to those of the factors.
        decay: Multiplies the old factors, 0 replaces them; one number, or one for each gradient.
        weight: Multiplies the new products, likewise.

    Raises:
        ValueError: The lists differ in length, or a shape, stride or device does not fit.
        TypeError: A dtype or an argument type does not fit.

    Source: arXiv 2406.17748, eq. 4, one step of it for each gradient.
    """
    numbers = {"decay": lib.scalars(decay), "weight": lib.scalars(weight)}
    if not Gs:
        # The dispatcher finds no device in empty lists.
        _check_list(Ls, Rs, Gs, **numbers)
        return
    lib.call_in_place(_list, _check_list, [*Ls, *Rs], Ls, Rs, Gs, **numbers)


_NAME = "power_iteration"


class _Batches:
    """Samples that come in batches, and the sums of their products."""

    def __init__(self, batches: Any) -> None:
        if not isinstance(batches, Iterable) or isinstance(batches, (str, bytes, dict)):
            expectation = "samples must be a tensor, a pair (D, A) or an iterable of those"
            lib.refuse_type(_NAME, expectation, samples=type(batches).__name__)
        if isinstance(batches, Iterator):
            expectation = "an iterable of samples must be walkable more than once"
            lib.refuse_type(_NAME, expectation, samples=type(batches).__name__)
        self._batches: Iterable[Any] = batches

    def __iter__(self) -> Iterator[Samples]:
        empty = True
        for batch in self._batches:
            if not isinstance(batch, Tensor) and not _is_pair(batch):
                expectation = "an iterable of samples must yield tensors or pairs (D, A)"
                lib.refuse_type(_NAME, expectation, samples=type(batch).__name__)
            empty = False
            yield batch
        if empty:
            lib.refuse(_NAME, "an iterable of samples must yield a batch in every pass", samples=0)

    def layout(self) -> tuple[torch.Size, int, int, Tensor]:
        """Of the first batch; see `_layout`."""
        return _layout(next(iter(self)))

    def products(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """`Hhat` times each right and `HhatT` times each left factor."""
        totals, count = (torch.zeros_like(left).double(), torch.zeros_like(right).double()), 0
        for batch in self:
            _check_batch(batch, left, right)
            if isinstance(batch, Tensor):
                samples = batch.shape[-3]
                parts = matvec.kron_matvec(batch.unsqueeze(-4), left, right)
            else:
                samples = batch[0].shape[-3]
                D, A = (part.unsqueeze(-4) for part in batch)
                parts = matvec.kron_matvec_factored(D, A, left, right)
            count += samples
            for total, part in zip(totals, parts, strict=True):
                total.add_(part, alpha=samples)
        means = [total.div_(max(count, 1)).to(left.dtype) for total in totals]
        return means[0], means[1]


def _layout(batch: Samples) -> tuple[torch.Size, int, int, Tensor]:
    """Batch dimensions, `m`, `n` and a tensor that has the dtype and device of the samples."""
    if isinstance(batch, Tensor):
        return (*matvec.check_samples(_NAME, batch), batch)
    return (*matvec.check_factors(_NAME, *batch), batch[0])


def _check_batch(batch: Samples, left: Tensor, right: Tensor) -> None:
    """Refuses a batch for another `(..., m, n)` than the first, for which the factors are."""
    entries, m, n, like = _layout(batch)
    first = (*left.shape[:-3], left.shape[-1], right.shape[-1])
    got = {"first": first, "later": (*entries, m, n)}
    if (m, n) != first[-2:] or matvec.broadcast(_NAME, got, entries, left.shape[:-3]) != first[:-2]:
        expectation = "all batches must have the (..., m, n) of the first; a pair (D, A) is a tuple"
        lib.refuse(_NAME, expectation, **got)
    lib.check_same_device(_NAME, samples=like, factors=left)


@torch.no_grad()
def _iterate_batches(
    batches: _Batches, steps: int, init: tuple[Tensor, Tensor] | None, tol: float | None, rank: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loop that the compiled ops make for samples in one tensor."""
    left, right = _start(*batches.layout(), init, rank)
    left, right, _ = _normalise(left, right, left, right)
    turned = torch.full(left.shape[:-3], float("inf"), dtype=torch.float64, device=left.device)
    for _ in range(steps):
        left, right, turned = _normalise(*batches.products(left, right), left, right)
        if tol is not None and bool((turned <= tol).all()):
            break
    image, _ = batches.products(left, right)
    results: tuple[Tensor, Tensor, Tensor, Tensor] = _triples(left, right, image, turned, tol=tol)
    return results


def _start(
    batch: torch.Size, m: int, n: int, like: Tensor, init: tuple[Tensor, Tensor] | None, rank: int
) -> tuple[Tensor, Tensor]:
    """The first `rank` pairs: `init` or the identities, then matrices of fixed generic numbers."""
    if m and n and rank > min(m, n) ** 2:
        lib.refuse(_NAME, f"rank must be at most min(m, n)^2 = {min(m, n) ** 2}", rank=rank)
    wide = like.dtype == torch.float64
    if init is not None:
        if not _is_pair(init):
            lib.refuse_type(_NAME, "init must be a pair (L, R)", init=type(init).__name__)
        L, R = init
        lib.check_square(_NAME, "init[0]", L, m)
        lib.check_square(_NAME, "init[1]", R, n)
        for name, factor in (("init[0]", L), ("init[1]", R)):
            lib.check_same_device(_NAME, samples=like, **{name: factor})
            got = {"samples__shape": tuple(like.shape), f"{name}__shape": tuple(factor.shape)}
            if matvec.broadcast(_NAME, got, factor.shape[:-2], batch) != batch:
                lib.refuse(_NAME, f"the batch of {name} must broadcast to that of samples", **got)
        wide = wide or torch.float64 in (L.dtype, R.dtype)
    dtype = torch.float64 if wide else torch.float32
    factors = []
    for side, size in enumerate((m, n)):
        eye = torch.eye(size, dtype=dtype, device=like.device)
        first = init[side].detach().to(dtype) if init else eye
        block = ((first + first.mT) / 2).unsqueeze(-3)
        if rank > 1:
            generic = _generic_numbers(rank - 1, size, like.device).to(dtype)
            block = torch.cat([block, generic.expand(*block.shape[:-3], -1, -1, -1)], -3)
        factors.append(block.expand(*batch, rank, size, size).contiguous())
    return factors[0], factors[1]


def _generic_numbers(count: int, size: int, device: torch.device) -> Tensor:
    """Fractional parts of `c k^2`: no pattern that a singular vector could be orthogonal to."""
    k = torch.arange(1, count * size * size + 1, dtype=torch.float64, device=device)
    return (k * k * 0.6180339887498949 % 1 - 0.5).view(count, size, size)


def _is_pair(samples: object) -> TypeGuard[tuple[Tensor, Tensor]]:
    return (
        isinstance(samples, tuple)
        and len(samples) == 2
        and all(isinstance(s, Tensor) for s in samples)
    )


def _check_count(name: str, value: object, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        lib.refuse_type(_NAME, f"{name} must be an integer", **{name: value})
    if value < at_least:
        lib.refuse(_NAME, f"{name} must be at least {at_least}", **{name: value})


def _check_dense(samples: object, shape: object) -> tuple[Tensor, int, int]:
    if not isinstance(samples, Tensor):
        lib.refuse(_NAME, "shape belongs to a dense H", samples=type(samples).__name__)
    if not isinstance(shape, (tuple, list)) or len(shape) != 2:
        lib.refuse_type(_NAME, "shape must be (m, n)", shape=shape)
    m, n = shape
    _check_count("m of shape", m, at_least=0)
    _check_count("n of shape", n, at_least=0)
    matvec.check_dense_h(_NAME, samples, m, n)
    return samples, m, n


def _like_triples(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    info = left.new_empty(left.shape[:-3], dtype=torch.int32)
    return torch.empty_like(left), torch.empty_like(right), left.new_empty(left.shape[:-2]), info


def _like_whole(
    G: Tensor, left: Tensor, right: Tensor, *, steps: int, tol: float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _like_triples(left, right)


def _like_factored(
    D: Tensor, A: Tensor, left: Tensor, right: Tensor, *, steps: int, tol: float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _like_triples(left, right)


def _like_dense(
    H: Tensor, left: Tensor, right: Tensor, *, steps: int, tol: float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _like_triples(left, right)


def _like_normalised(
    left: Tensor, right: Tensor, previous_left: Tensor, previous_right: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    turned = left.new_empty(left.shape[:-3], dtype=torch.float64)
    return torch.empty_like(left), torch.empty_like(right), turned


def _like_image_triples(
    left: Tensor, right: Tensor, image: Tensor, turned: Tensor, *, tol: float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _like_triples(left, right)


def _check_list(
    Ls: Sequence[Tensor],
    Rs: Sequence[Tensor],
    Gs: Sequence[Tensor],
    *,
    decay: Sequence[float],
    weight: Sequence[float],
) -> None:
    op = "power_iteration_list_"
    lib.check_scalars(op, "decay", decay, Gs)
    lib.check_scalars(op, "weight", weight, Gs)
    lib.check_list(op, "Ls", Ls, Gs)
    lib.check_list(op, "Rs", Rs, Gs)
    for L, R, G in zip(Ls, Rs, Gs, strict=True):
        lib.check_matrices(op, "G", G)
        for name, factor, size in (("L", L, G.shape[-2]), ("R", R, G.shape[-1])):
            lib.check_square(op, name, factor, size)
            lib.check_dense(op, name, factor)
        lib.check_same_device(op, L=L, R=R, G=G)
        if L.dtype != R.dtype:
            lib.refuse_type(op, "L and R must have one dtype", L__dtype=L.dtype, R__dtype=R.dtype)
        got = {f"{name}__shape": tuple(t.shape) for name, t in (("L", L), ("R", R), ("G", G))}
        batch = L.shape[:-2]
        if R.shape[:-2] != batch or matvec.broadcast(op, got, batch, G.shape[:-2]) != batch:
            lib.refuse(op, "L and R must have one batch, to which that of G broadcasts", **got)


_whole = torch.ops.kronext.power_iteration.default
_factored = torch.ops.kronext.power_iteration_factored.default
_dense = torch.ops.kronext.power_iteration_dense.default
_normalise = torch.ops.kronext.power_iteration_normalise.default
_triples = torch.ops.kronext.power_iteration_triples.default
_list = torch.ops.kronext.power_iteration_list_.default
torch.library.register_fake("kronext::power_iteration", _like_whole)
torch.library.register_fake("kronext::power_iteration_factored", _like_factored)
torch.library.register_fake("kronext::power_iteration_dense", _like_dense)
torch.library.register_fake("kronext::power_iteration_normalise", _like_normalised)
torch.library.register_fake("kronext::power_iteration_triples", _like_image_triples)
torch.library.register_fake("kronext::power_iteration_list_", _check_list)
