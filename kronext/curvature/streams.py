"""`H` from samples that do not fit in memory at once, chunk by chunk, in as many passes as needed.

A stream is any iterable that can be walked more than once and yields chunks of the same samples in
every pass: gradients `(S, m, n)` or factored pairs `(D, A)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from kronext import ops
from kronext.curvature import moments
from kronext.curvature.capture import Labels, capture
from kronext.curvature.losses import LossName
from kronext.curvature.moments import SecondMoment, scale_into_range
from kronext.curvature.samples import Chunk, SampledMoment, sampled_moment


class StreamedMoment(SecondMoment):
    """`H` from a stream; each product is one pass, power iteration one for each step and one more.

    The norm takes one pass where `H` itself fits in memory, otherwise one for each chunk.
    """

    def __init__(self, stream: Iterable[Chunk], divisors: tuple[float, ...] = ()) -> None:
        if isinstance(stream, Iterator) or not isinstance(stream, Iterable):
            raise TypeError(
                "second_moment: samples must be a tensor, a pair of tensors (D, A), an iterable "
                "of those that can be walked more than once, or a SecondMoment "
                f"(got samples={type(stream).__name__})"
            )
        self._stream = stream
        self._divisors = divisors
        first = next(iter(stream), None)
        if first is None:
            raise ValueError("second_moment: a stream must yield at least one chunk (got none)")
        chunk = sampled_moment(first)
        self._kind = type(chunk)
        super().__init__(chunk.shape, chunk.identities()[0])

    def __iter__(self) -> Iterator[SampledMoment]:
        """The second moment of each chunk."""
        for samples in self._stream:
            chunk = sampled_moment(samples)
            if chunk.shape != self.shape or type(chunk) is not self._kind:
                raise ValueError(
                    "second_moment: all chunks must be of the kind and (m, n) of the first "
                    f"(got first={self._kind.__name__} {self.shape}, "
                    f"later={type(chunk).__name__} {chunk.shape})"
                )
            yield chunk.divided(self._divisors) if self._divisors else chunk

    @override
    def matvec(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        left_mean, right_mean = self._means(lambda chunk: chunk.matvec(left, right))
        return left_mean, right_mean

    @override
    def images(self, V: Tensor) -> Tensor:
        return self._means(lambda chunk: (chunk.images(V),))[0]

    @override
    def squares(self, left: Tensor | None = None, right: Tensor | None = None) -> Tensor:
        return self._means(lambda chunk: (chunk.squares(left, right),))[0]

    @override
    def dense(self) -> Tensor:
        return self._means(lambda chunk: (chunk.dense(),))[0]

    @override
    def power_iteration(
        self,
        *,
        steps: int,
        tol: float | None = None,
        init: tuple[Tensor, Tensor] | None = None,
        rank: int = 1,
    ) -> ops.KroneckerSum:
        return ops.power_iteration(_Samples(self), steps=steps, tol=tol, init=init, rank=rank)

    @override
    def frobenius_norm(self) -> float:
        m, n = self.shape
        if (m * n) ** 2 <= moments.MEMORY_ENTRIES:
            return float(torch.linalg.matrix_norm(self.dense().double()))
        squares, count = 0.0, 0
        for index, chunk in enumerate(self):
            count += chunk.count
            squares += chunk.squared_products()
            for other, later in enumerate(self):
                if other > index:
                    # They stand for the products of the later with the earlier samples too.
                    squares += 2 * _squared_products(chunk, later)
        return math.sqrt(squares) / count

    @cached_property
    @override
    def in_range(self) -> SecondMoment:
        largest = tuple(map(max, zip(*(chunk.largest_entries() for chunk in self), strict=True)))
        divisors = tuple(scale_into_range(x, self.dtype) for x in largest)
        return self if set(divisors) == {1.0} else StreamedMoment(self._stream, divisors)

    def _means(self, of: Callable[[SampledMoment], tuple[Tensor, ...]]) -> list[Tensor]:
        """The means over all samples of what `of` gives for those of a chunk."""
        totals: list[Tensor] = []
        count = 0
        for chunk in self:
            means = of(chunk)
            if not totals:
                totals = [torch.zeros_like(mean, dtype=torch.float64) for mean in means]
            for total, mean in zip(totals, means, strict=True):
                total.add_(mean, alpha=chunk.count)
            count += chunk.count
        return [total.div_(count).to(self.dtype) for total in totals]


class _Samples:
    """The chunks of a stream as `ops.power_iteration` takes them."""

    def __init__(self, moment: StreamedMoment) -> None:
        self._moment = moment

    def __iter__(self) -> Iterator[Chunk]:
        return (chunk.samples for chunk in self._moment)


def _squared_products(chunk: SampledMoment, others: SampledMoment) -> float:
    total = 0.0
    pairs = chunk.positions * others.positions * others.count
    for start, stop in chunk.chunks(pairs):
        total += float(chunk.part(start, stop).inner_products(others).double().square_().sum())
    return total


class Stream:
    """The factored per-example gradients of one layer, `capture`d anew in every pass.

    Memory is that of one batch, whatever the size of the data. Labels that are sampled are the
    same in every pass.

        H = curvature.Stream(model, "layer4.1.conv2", loader)
        curvature.cosine_similarity(H, curvature.optimal(H))

    Args:
        model: see `capture`; it must not change between passes.
        layer: the name of one layer.
        batches: an iterable that can be walked more than once and yields inputs, or pairs of inputs
            and targets, in the same order in every pass (a list, a `DataLoader` that does not
            shuffle).
        loss: see `capture`.
        labels: see `capture`; "real" needs targets.
        seed: of the sampled labels.

    Raises:
        ValueError: in a pass, what `capture` and `Recording.record` raise.
        TypeError: likewise.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str,
        batches: Iterable[Any],
        *,
        loss: LossName = "cross_entropy",
        labels: Labels = "sampled",
        seed: int = 0,
    ) -> None:
        self._model = model
        self._layer = layer
        self._batches = batches
        self._loss = loss
        self._labels = labels
        self._seed = seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """`(D, A)` of each batch."""
        device = next(self._model.parameters()).device
        generator = torch.Generator(device).manual_seed(self._seed)
        for batch in self._batches:
            inputs, targets = batch if isinstance(batch, (tuple, list)) else (batch, None)
            recorded = capture(
                self._model,
                self._layer,
                loss=self._loss,
                labels=self._labels,
                generator=generator,
            )
            # Estimators walk it under no_grad.
            with torch.enable_grad(), recorded as recording:
                recording.record(self._model(inputs), targets)
            yield recording[self._layer]
