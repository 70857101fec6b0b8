"""The four training runs behind the paper's figures, and their sizes at each preset (Table 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from kronext.curvature.losses import LossName
from kronext.reproduce.models import ConvNeXt, LogisticRegression, ResNet18, ViT

Preset: TypeAlias = Literal["quick", "small", "paper"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run depends on, besides its data and the seed.

    Attributes:
        model: keywords of the model.
        image_size: side of the images; image files of other sizes are scaled.
        optimizer: "sgd" or "adamw".
        learning_rate: constant over the run.
        momentum: of SGD, and the first coefficient of AdamW.
        weight_decay: of the optimizer.
        steps: updates.
        batch_size: images a step; None for all of them.
        measurements: how often the similarities are measured, the first and last step included.
        examples: images whose Gauss-Newton matrix is `H_GN`; None for all of them.
        large_batch: images in the larger batches of Figure 3.
        large_batches: how many of those its expectations are taken over; 0 leaves them out.
        probes: 0 for an exact `H`; otherwise how many random vectors estimate it, as in the
            paper's Appendix B.
        keep_every: one gradient in so many is kept, for the approximations of `H_Ada`.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    image_size: int
    optimizer: Literal["sgd", "adamw"]
    learning_rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    steps: int
    batch_size: int | None
    measurements: int
    examples: int | None
    large_batch: int = 256
    large_batches: int
    probes: int = 0
    keep_every: int = 1

    def measured_steps(self) -> list[int]:
        """The steps before whose update the similarities are measured, from 1."""
        return sorted(set(torch.linspace(1, self.steps, self.measurements).round().int().tolist()))


@dataclass(frozen=True)
class Experiment:
    """A model on a data set, and the layers that are measured.

    Attributes:
        paper_data: the name of the data in the paper.
        data: "mnist", "cifar" or "imagenet", a key of `sources.SOURCES`.
        build: from the settings, the number of classes and the shape of an image.
        describe: the model in words, and how it differs from the paper's.
        layers: names of the measured layers, and what figures call them.
        loss: of the training.
        standardize: whether pixels are centred at 0.5 and divided by 0.25.
    """

    paper_data: str
    data: str
    build: Callable[[Settings, int, tuple[int, ...]], nn.Module]
    describe: Callable[[Settings], str]
    layers: Callable[[Settings], dict[str, str]]
    loss: LossName = "cross_entropy"
    standardize: bool = True


def _name(model: str, width: int, published: int) -> str:
    return model if width == published else f"{model} of width {width}, paper: {published}"


def _vit_layers(settings: Settings) -> dict[str, str]:
    return {
        "blocks.3.ffn1": "FFN linear layer 1",
        "blocks.3.ffn2": "FFN linear layer 2",
        f"blocks.3.qkv[:{2 * settings.model.get('width', 512)}]": "Q-K projection layer",
    }


EXPERIMENTS = {
    "mnist": Experiment(
        paper_data="MNIST, digits 0, 1",
        data="mnist",
        build=lambda _, __, shape: LogisticRegression(torch.Size(shape).numel()),
        describe=lambda _: "logistic regression",
        layers=lambda _: {"linear": "the only layer"},
        loss="binary_cross_entropy",
        standardize=False,
    ),
    "resnet": Experiment(
        paper_data="CIFAR-5M",
        data="cifar",
        build=lambda settings, classes, _: ResNet18(classes, **settings.model),
        describe=lambda settings: _name("ResNet18", settings.model.get("width", 64), 64),
        layers=lambda _: {"layer1.1.conv1": "layer1.1.conv1"},
    ),
    "convnext": Experiment(
        paper_data="ImageNet",
        data="imagenet",
        build=lambda settings, classes, _: ConvNeXt(classes, **settings.model),
        describe=lambda settings: _name("ConvNeXt-T", settings.model.get("widths", (96,))[0], 96),
        layers=lambda _: {"stages.2.1.pwconv1": "stages.2.1.pwconv1"},
    ),
    "vit": Experiment(
        paper_data="CIFAR-5M",
        data="cifar",
        build=lambda settings, classes, shape: ViT(classes, image_size=shape[-1], **settings.model),
        describe=lambda settings: _name("ViT", settings.model.get("width", 512), 512),
        layers=_vit_layers,
    ),
}

# Table 1 and Appendix B. What the paper leaves open is chosen here: how many examples, probes and
# batches, the measured steps, and for the ViT the optimizer.
_PAPER = {
    "mnist": Settings(
        image_size=28, optimizer="sgd", learning_rate=0.01, steps=25, batch_size=None,
        measurements=25, examples=None, large_batches=1000,
    ),
    "resnet": Settings(
        image_size=32, optimizer="sgd", learning_rate=0.02, momentum=0.9, steps=10_000,
        batch_size=128, measurements=41, examples=5000, large_batches=100, probes=100,
    ),
    "convnext": Settings(
        image_size=224, optimizer="adamw", learning_rate=3e-3, momentum=0.9, weight_decay=5e-3,
        steps=50_000, batch_size=2048, measurements=41, examples=2000, large_batches=100,
        probes=100, keep_every=25,
    ),
    "vit": Settings(
        image_size=32, optimizer="adamw", learning_rate=1e-3, momentum=0.9, steps=10_000,
        batch_size=128, measurements=41, examples=2000, large_batches=0, probes=100,
        keep_every=5,
    ),
}  # fmt: skip

_SMALL = {
    "mnist": replace(_PAPER["mnist"], large_batches=300),
    "resnet": replace(
        _PAPER["resnet"], model={"width": 16}, steps=3000, measurements=11, examples=512,
        large_batches=128, probes=0,
    ),
    "convnext": replace(
        _PAPER["convnext"], model={"widths": (16, 32, 64, 128)}, image_size=64, steps=600,
        learning_rate=1e-3, batch_size=64, measurements=9, examples=512, large_batches=64,
        probes=0, keep_every=1,
    ),
    "vit": replace(
        _PAPER["vit"], model={"width": 64, "mlp": 64}, steps=1000, batch_size=64, measurements=9,
        examples=384, probes=0, keep_every=1,
    ),
}  # fmt: skip

_TINY: dict[str, Any] = {"steps": 4, "batch_size": 16, "measurements": 2, "examples": 24}
_TINY_BATCHES: dict[str, Any] = {"large_batches": 3, "large_batch": 16}
_QUICK = {
    "mnist": replace(_SMALL["mnist"], steps=6, measurements=3, **_TINY_BATCHES),
    "resnet": replace(
        _SMALL["resnet"], model={"width": 4}, image_size=16, **_TINY, **_TINY_BATCHES
    ),
    "convnext": replace(
        _SMALL["convnext"], model={"widths": (4, 4, 8, 8), "depths": (1, 1, 2, 1)}, image_size=32,
        **_TINY, **_TINY_BATCHES,
    ),
    "vit": replace(
        _SMALL["vit"], model={"width": 8, "mlp": 8, "depth": 4, "heads": 2}, image_size=16, **_TINY
    ),
}  # fmt: skip

PRESETS: dict[Preset, dict[str, Settings]] = {"quick": _QUICK, "small": _SMALL, "paper": _PAPER}
