"""One training run, step by step; it can be stopped after any step and taken up again."""

from __future__ import annotations

import zlib
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from kronext.curvature.losses import find_loss
from kronext.datasets import Images
from kronext.reproduce.experiments import Experiment, Settings


class Examples:
    """Images as a model takes them, on its device."""

    def __init__(self, images: Images, *, standardize: bool, device: torch.device) -> None:
        self.images = images
        self._standardize = standardize
        self._device = device

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """These images and their labels."""
        pixels = self.images.pixels(indices)
        if self._standardize:
            pixels = (pixels - 0.5) / 0.25
        return pixels.to(self._device), self.images.labels[indices].to(self._device)


class Trainer:
    """A model, its optimizer, and the batches that they see.

    The start depends on the seed alone, and so does the batch of each step.

    Attributes:
        model: in training mode.
        step: the number of updates that were made.
    """

    def __init__(
        self, experiment: Experiment, settings: Settings, examples: Examples, seed: int
    ) -> None:
        shape = tuple(examples.images.pixels(torch.tensor([0])).shape[1:])
        device = examples[torch.tensor([0])][0].device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = experiment.build(settings, examples.images.classes, shape)
        self.model = model.to(device)
        self.step = 0
        self._loss = find_loss("reproduce", experiment.loss)
        self._optimizer = _build_optimizer(self.model.parameters(), settings)
        self._batch_size = settings.batch_size
        self._examples = examples
        self._seed = seed

    def backward(self) -> None:
        """Puts the gradient of the next step in place."""
        everything = torch.arange(len(self._examples))
        if self._batch_size is not None:
            generator = seeded(self._seed, "batch", self.step)
            everything = torch.randint(len(everything), (self._batch_size,), generator=generator)
        inputs, targets = self._examples[everything]
        self._optimizer.zero_grad()
        self._loss.per_example(self.model(inputs), targets).mean().backward()

    def update(self) -> None:
        """Makes the step."""
        self._optimizer.step()
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        """All that changes during the run."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def seeded(
    seed: int, purpose: str, step: int, device: torch.device | None = None
) -> torch.Generator:
    """A generator that depends on these alone, so that no state of one must be kept."""
    generator = torch.Generator(device or "cpu")
    return generator.manual_seed(zlib.crc32(f"{seed} {purpose} {step}".encode()))


def _build_optimizer(parameters: Any, settings: Settings) -> Optimizer:
    rate, momentum, decay = settings.learning_rate, settings.momentum, settings.weight_decay
    if settings.optimizer == "sgd":
        return SGD(parameters, lr=rate, momentum=momentum, weight_decay=decay)
    return AdamW(parameters, lr=rate, betas=(momentum, 0.999), weight_decay=decay)
