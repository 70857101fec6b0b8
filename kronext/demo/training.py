"""One model, trained by several optimizers from the same start on the same batches."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer

from kronext.datasets import Digits
from kronext.optim import Preconditioned
from kronext.optim.options import Estimator

LAYER = "hidden"
# Each optimizer's estimator; None is AdamW alone.
OPTIMIZERS: dict[str, Estimator | None] = {
    "adamw": None,
    "shampoo": "shampoo",
    "shampoo2": "shampoo2",
    "optimal": "optimal",
}
TITLES = {
    "adamw": "AdamW",
    "shampoo": "with Shampoo",
    "shampoo2": "with Shampoo²",
    "optimal": "with optimal",
}


@dataclass(frozen=True)
class Settings:
    """What a run depends on, besides the data."""

    steps: int = 300
    batch_size: int = 128
    learning_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2)
    weight_decay: float = 1e-2
    update_interval: int = 5
    seed: int = 0


@dataclass
class Run:
    """What one optimizer did; losses are of the whole training set."""

    optimizer: str
    learning_rate: float
    losses: list[float] = field(default_factory=list)
    accuracy: float = 0.0
    seconds: float = 0.0

    def steps_to(self, target: float) -> int | None:
        """The first step after which the training loss is at most `target`."""
        return next((step for step, loss in enumerate(self.losses) if loss <= target), None)


def build_model(pixels: int, seed: int) -> nn.Sequential:
    """A multilayer perceptron whose start depends on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            OrderedDict(
                input=nn.Linear(pixels, 128),
                relu1=nn.ReLU(),
                hidden=nn.Linear(128, 64),
                relu2=nn.ReLU(),
                output=nn.Linear(64, 10),
            )
        )


def build_optimizer(
    name: str, learning_rate: float, model: nn.Module, settings: Settings
) -> Optimizer:
    """AdamW as it is, or wrapped."""
    base = AdamW(model.parameters(), lr=learning_rate, weight_decay=settings.weight_decay)
    estimator = OPTIMIZERS[name]
    if estimator is None:
        return base
    return Preconditioned(base, estimator=estimator, update_interval=settings.update_interval)


def train(
    name: str,
    learning_rate: float,
    data: Digits,
    settings: Settings,
    on_step: Callable[[int, nn.Module], None] | None = None,
) -> Run:
    """Trains by one optimizer; only the steps themselves are timed.

    `on_step(step, model)` is called with the gradients of step `step` (from 0) in place, before the
    update.
    """
    model = build_model(data.train_images.shape[1], settings.seed)
    optimizer = build_optimizer(name, learning_rate, model, settings)
    order = torch.Generator().manual_seed(settings.seed)
    run = Run(name, learning_rate)
    for step in range(settings.steps):
        batch = torch.randint(len(data.train_labels), (settings.batch_size,), generator=order)
        started = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(model(data.train_images[batch]), data.train_labels[batch]).backward()
        run.seconds += time.perf_counter() - started
        if on_step is not None:
            on_step(step, model)
        started = time.perf_counter()
        optimizer.step()
        run.seconds += time.perf_counter() - started
        run.losses.append(training_loss(model, data))
    run.accuracy = accuracy(model, data.test_images, data.test_labels)
    return run


@torch.no_grad()
def training_loss(model: nn.Module, data: Digits) -> float:
    """Mean cross-entropy of (at most 10,000 images of) the training set."""
    images, labels = data.train_images[:10_000], data.train_labels[:10_000]
    return float(F.cross_entropy(model(images), labels))


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images whose most probable class is right."""
    return float((model(images).argmax(1) == labels).float().mean())
