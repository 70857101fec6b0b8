"""The networks: published sizes, the layers that the paper measures, independent examples."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kronext.curvature.layers import find_layers
from kronext.reproduce.experiments import EXPERIMENTS, PRESETS
from kronext.reproduce.models import ConvNeXt, LogisticRegression, ResNet18, ViT


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def vit_parameters(classes: int, patches: int, patch: int, d: int, mlp: int, depth: int) -> int:
    norm, embedding = 2 * d, 3 * patch**2 * d + d
    block = 2 * norm + 3 * d * d + (d * d + d) + (d * mlp + mlp) + (mlp * d + d)
    return embedding + (patches + 1) * d + d + depth * block + norm + d * classes + classes


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (lambda: ResNet18(1000), 11_689_512),  # torchvision's resnet18
        (lambda: ResNet18(10), 11_181_642),
        (lambda: ConvNeXt(1000), 28_589_128),  # torchvision's convnext_tiny
        (lambda: ViT(10), vit_parameters(10, 64, 4, 512, 512, 6)),
        (lambda: LogisticRegression(784), 784),
    ],
)
def test_number_of_parameters(build, count):
    with torch.device("meta"):
        assert parameters(build()) == count


@pytest.mark.parametrize(
    ("name", "shape", "measured"),
    [
        ("mnist", (1, 28, 28), [(1, 784)]),
        ("resnet", (3, 32, 32), [(64, 576)]),
        ("convnext", (3, 224, 224), [(1536, 384)]),
        ("vit", (3, 32, 32), [(512, 512), (512, 512), (1024, 512)]),
    ],
)
def test_the_measured_layers_are_the_papers(name, shape, measured):
    experiment, settings = EXPERIMENTS[name], PRESETS["paper"][name]
    with torch.device("meta"):
        model = experiment.build(settings, 10, shape)
    layers = find_layers("test", model, list(experiment.layers(settings)))
    assert [layer.shape for layer in layers.values()] == measured


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("preset", ["quick", "small"])
def test_examples_are_independent_in_evaluation_mode(name, preset):
    experiment, settings = EXPERIMENTS[name], PRESETS[preset][name]
    images = torch.rand(5, 3, settings.image_size, settings.image_size)
    model = experiment.build(settings, 10, tuple(images.shape[1:])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        logits = model(images)
        alone = torch.cat([model(image[None]) for image in images])
    assert logits.shape == (5, 1 if name == "mnist" else 10)
    torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-5)
    assert logits.std(0).min() > 1e-4, "the images make a difference"
