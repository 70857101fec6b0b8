"""Averages over one step in so many, and what they say about those over all steps.

With weights `w_s` of sum 1 the inner product of two averages has two parts,

    <X, Y> = sum_{s != t} w_s w_t <X_s, Y_t> + sum_s w_s^2 <X_s, Y_s>,

of which the second depends on how many terms there are. With `q = sum_s w_s^2` the first is `1 - q`
times a mean over pairs of different steps, and the second `q` times a mean over steps. A part of
the steps gives both means, and they give the inner product of the averages over all steps.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from kronext.optim.options import running_average_weights

_Number = TypeVar("_Number", float, Tensor)


class Thinning(NamedTuple):
    """Averages over one step in `every`, with weights that fall by `beta` a step.

    Attributes:
        beta: of the average over all steps; None or 1 for a sum.
        every: steps between two that are seen.
    """

    beta: float | None
    every: int

    def weights(self, count: int) -> tuple[float, float]:
        """(decay, weight) that fold the `count`-th seen step in; for a sum `(1, 1)`."""
        if self.beta is None or self.beta == 1:
            return 1.0, 1.0
        return running_average_weights(self.beta**self.every, count)

    def of_all_steps(self, count: int, product: _Number, own: _Number) -> _Number:
        """`<X, Y>` as it is to be expected of averages over all steps.

        Args:
            count: how many steps were seen, at least 2.
            product: `<X, Y>` of the averages (or sums) over those.
            own: `sum_s w_s^2 <X_s, Y_s>` over those.
        """
        seen = self._squared_weights(self.every, count)
        every_one = self._squared_weights(1, count * self.every)
        if seen == every_one:
            return product
        return (product - own) * ((1 - every_one) / (1 - seen)) + own * (every_one / seen)

    def _squared_weights(self, every: int, count: int) -> float:
        """`sum_s w_s^2` of `count` steps with `every - 1` between them."""
        if self.beta is None or self.beta == 1:
            return 1 / count
        beta = self.beta**every
        return (1 - beta) * (1 + beta**count) / ((1 + beta) * (1 - beta**count))


class RunningPair:
    """Averages of two kinds of matrices over the steps that are seen, and their cosine over all.

    Attributes:
        first: the average of one kind.
        second: of the other.
        count: how many steps were seen.
    """

    def __init__(self, thinning: Thinning, zeros: Tensor) -> None:
        self.first, self.second = zeros, zeros.clone()
        self.count = 0
        self._thinning = thinning
        self._own = torch.zeros(3, dtype=torch.float64, device=zeros.device)

    def add(self, first: Tensor, second: Tensor) -> None:
        """Folds in one matrix of each kind."""
        self.count += 1
        decay, weight = self._thinning.weights(self.count)
        self.first.mul_(decay).add_(first, alpha=weight)
        self.second.mul_(decay).add_(second, alpha=weight)
        self._own.mul_(decay**2).add_(_products(first, second), alpha=weight**2)

    def cosine(self) -> float:
        """The cosine of the two, as is to be expected over all steps; NaN where one is zero."""
        first, inner, second = self._over_all_steps().tolist()
        return inner / math.sqrt(first * second) if min(first, second) > 0 else math.nan

    def shrinking(self) -> float:
        """The square of the first average as is to be expected over all steps, over what it is."""
        return float((self._over_all_steps() / _products(self.first, self.second))[0])

    def _over_all_steps(self) -> Tensor:
        products = _products(self.first, self.second)
        return self._thinning.of_all_steps(self.count, products, self._own)


def _products(a: Tensor, b: Tensor) -> Tensor:
    """`<a, a>, <a, b>, <b, b>`."""
    a, b = a.double().flatten(), b.double().flatten()
    return torch.stack([torch.dot(a, a), torch.dot(a, b), torch.dot(b, b)])
