"""The paper's central picture: how near each Kronecker product is to `H` along a run."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from kronext import curvature
from kronext.datasets import Digits
from kronext.demo.training import LAYER

APPROXIMATIONS = {
    "optimal": curvature.optimal,
    "shampoo2": curvature.shampoo2,
    "shampoo": curvature.shampoo,
}


@dataclass
class SimilarityTrace:
    """Cosine similarities to `H_GN` and `H_Ada` of one layer, step by step."""

    steps: list[int] = field(default_factory=list)
    gauss_newton: dict[str, list[float]] = field(
        default_factory=lambda: {name: [] for name in APPROXIMATIONS}
    )
    adagrad: dict[str, list[float]] = field(
        default_factory=lambda: {name: [] for name in APPROXIMATIONS}
    )


class SimilarityProbe:
    """Measures at every `interval`-th step of a run; give `observe` to `train` as `on_step`.

    `H_GN` is that of (at most `examples` images of) the training set with one sampled label each,
    `H_Ada` that of all the run's gradients so far. Both similarities are exact for these samples:
    no `mn x mn` matrix is formed and nothing is estimated.
    """

    def __init__(self, data: Digits, *, interval: int, seed: int, examples: int = 1024) -> None:
        self.trace = SimilarityTrace()
        self._images = data.train_images[:examples]
        self._interval = interval
        self._generator = torch.Generator().manual_seed(seed)
        self._gradients: curvature.StepGradients | None = None

    def observe(self, step: int, model: nn.Module) -> None:
        """Records the gradient of this step, and measures if the step is due."""
        if self._gradients is None:
            self._gradients = curvature.StepGradients(model, LAYER)
        self._gradients.record()
        if step % self._interval:
            return
        with curvature.capture(model, LAYER, generator=self._generator) as recording:
            recording.record(model(self._images))
        self.trace.steps.append(step)
        for samples, similarities in (
            (recording[LAYER], self.trace.gauss_newton),
            (self._gradients[LAYER], self.trace.adagrad),
        ):
            truth = curvature.second_moment(samples)
            for name, approximate in APPROXIMATIONS.items():
                similarity = curvature.cosine_similarity(truth, approximate(truth))
                similarities[name].append(similarity)
