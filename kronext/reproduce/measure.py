"""What is measured at a step: how near each Kronecker product is to `H_GN` and to `H_Ada`.

`H_GN` is that of some training images (the pool), the same at every step. Without probes it is
exact, and so are the approximations that Figures 1, 2 and 4 show: every label of every image,
weighted by the model's probability. With probes they see one label an image that is drawn from the
model, as in the paper. Figure 3 compares such single draws with real labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn

from kronext import curvature
from kronext.curvature import (
    KroneckerFactors,
    Recording,
    SecondMoment,
    Truth,
    moments,
    second_moment,
)
from kronext.curvature.capture import Labels
from kronext.curvature.losses import LossName, find_loss
from kronext.reproduce.adagrad import RunningAdagrad
from kronext.reproduce.experiments import Settings
from kronext.reproduce.training import Examples, seeded

Batch: TypeAlias = tuple[Tensor, Tensor]
# Of one layer: each measured quantity by its name.
Similarities: TypeAlias = dict[str, float]

# Images in one forward pass.
_CHUNK = 256
# How far the leading pair of Figure 2 is iterated; its cosines err by about the square.
_TOLERANCE = 1e-4


class Pool:
    """The images whose Gauss-Newton matrix is measured."""

    def __init__(self, examples: Examples, count: int | None, generator: torch.Generator) -> None:
        order = torch.randperm(len(examples), generator=generator)
        self._indices = order[:count]
        self._examples = examples

    def batches(self) -> list[Batch]:
        """All of them, in batches."""
        return [self._examples[part] for part in self._indices.split(_CHUNK)]

    def draw(self, size: int, generator: torch.Generator) -> Batch:
        """Independent draws, with replacement, as Lemma 8 has them."""
        drawn = torch.randint(len(self._indices), (size,), generator=generator)
        return self._examples[self._indices[drawn]]


class GaussNewtonMeter:
    """Measures everything about `H_GN` along a run.

    Args:
        model: the model in training; its mode and gradients are left as they are.
        layers: names of layers.
        pool: the images of `H_GN`.
        settings: of the run.
        loss: of the training.
        seed: of the labels, batches and probes.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        pool: Pool,
        settings: Settings,
        loss: LossName,
        seed: int,
    ) -> None:
        self._model, self._layers, self._pool = model, list(layers), pool
        self._settings, self._loss, self._seed = settings, loss, seed

    def measure(self, step: int) -> dict[str, Similarities]:
        """The similarities of each layer now; what is random depends on the number of the step."""
        device = next(self._model.parameters()).device
        generator = seeded(self._seed, "labels and probes", step, device)
        exact: tuple[Labels, ...] = () if self._settings.probes else ("expected",)
        with _evaluation(self._model):
            batches = self._pool.batches()
            single = self._record(batches, ("sampled", "real", *exact), generator)
            draws = seeded(self._seed, "large batches", step)
            large = self._large_batches(draws, generator)
            return {
                layer: self._of_layer(layer, batches, single, large.get(layer, {}), generator)
                for layer in self._layers
            }

    @torch.no_grad()
    def mean_loss(self) -> float:
        """Of the images of `H_GN`."""
        per_example = find_loss("reproduce", self._loss).per_example
        with _evaluation(self._model):
            losses = [per_example(self._model(x), labels) for x, labels in self._pool.batches()]
        return float(torch.cat(losses).mean())

    def _of_layer(
        self,
        layer: str,
        batches: list[Batch],
        single: dict[Labels, Recording],
        large: dict[Labels, Tensor],
        generator: torch.Generator,
    ) -> Similarities:
        kind: Labels = "sampled" if self._settings.probes else "expected"
        samples = second_moment(single[kind][layer])
        matrix = compact(samples)
        products = {
            "optimal": curvature.optimal(matrix),
            "shampoo2": curvature.shampoo2(matrix),
            "shampoo": curvature.shampoo(matrix),
            "kfac": curvature.kfac(samples, variant="reduce"),
            "shampoo2_sampled": curvature.shampoo2(single["sampled"][layer]),
            "shampoo2_real": curvature.shampoo2(single["real"][layer]),
        }
        for labels, gradients in large.items():
            products[f"shampoo2_{labels}_batch"] = curvature.shampoo2(gradients)
        truth: Truth = matrix
        if self._settings.probes:
            H = curvature.GaussNewton(self._model, layer, batches, loss=self._loss)
            truth = curvature.hutchinson(H, probes=self._settings.probes, generator=generator)
        return _similarities(truth, products) | _alignment(matrix)

    def _record(
        self, batches: list[Batch], kinds: Sequence[Labels], generator: torch.Generator
    ) -> dict[Labels, Recording]:
        """Per-example gradients for several kinds of labels from the same forward passes."""
        with ExitStack() as contexts:
            recordings = {
                labels: contexts.enter_context(
                    curvature.capture(
                        self._model,
                        self._layers,
                        loss=self._loss,
                        labels=labels,
                        generator=generator,
                    )
                )
                for labels in kinds
            }
            for inputs, targets in batches:
                output = self._model(inputs)
                for recording in recordings.values():
                    recording.record(output, targets)
        return recordings

    def _large_batches(
        self, draws: torch.Generator, generator: torch.Generator
    ) -> dict[str, dict[Labels, Tensor]]:
        """For each layer and kind of labels the gradients of batches, `(batches, m, n)`."""
        size = self._settings.large_batch
        gradients: dict[str, dict[Labels, list[Tensor]]] = {}
        for _ in range(self._settings.large_batches):
            batch = self._pool.draw(size, draws)
            recordings = self._record([batch], ("sampled", "real"), generator)
            for labels, recording in recordings.items():
                for layer in self._layers:
                    D, A = (factor.flatten(0, 1) for factor in recording[layer])
                    by_labels = gradients.setdefault(layer, {})
                    by_labels.setdefault(labels, []).append(D.mT @ A / size)
        return {
            layer: {labels: torch.stack(G) for labels, G in by_labels.items()}
            for layer, by_labels in gradients.items()
        }


def adagrad_similarities(adagrad: RunningAdagrad, layer: str) -> Similarities:
    """The same for `H_Ada`; all approximations are of the run's gradients."""
    samples, truth = compact(adagrad.samples(layer)), adagrad.truth(layer)
    products = {
        "optimal": curvature.optimal(samples),
        "shampoo2": curvature.shampoo2(samples),
        "shampoo": curvature.shampoo(samples),
    }
    return _similarities(truth, products) | _alignment(samples)


def compact(moment: SecondMoment) -> SecondMoment:
    """The same matrix written out where it fits in memory, and serves many products."""
    m, n = moment.shape
    if (m * n) ** 2 > moments.MEMORY_ENTRIES:
        return moment
    return second_moment(moment.in_range.dense(), shape=moment.shape)


def _similarities(truth: Truth, products: dict[str, KroneckerFactors]) -> Similarities:
    return {name: curvature.cosine_similarity(truth, M) for name, M in products.items()}


def _alignment(samples: SecondMoment) -> Similarities:
    """Figure 2; `leading` is the optimum that the five rounds of "optimal" approach."""
    try:
        leading, left, right = curvature.alignment(samples, tol=_TOLERANCE)
    except RuntimeError:
        # Two leading singular values that are too near have no leading pair to be compared with,
        # and a long run must not end for that.
        leading = left = right = float("nan")
    return {"leading": leading, "left": left, "right": right}


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    """Running averages in place of those of the batch, so that examples are independent."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
