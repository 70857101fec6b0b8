"""`H_Ada` along a run: the gradients that are kept, and the sum's products with probes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kronext.curvature import Hutchinson, SecondMoment, StepGradients, Truth, second_moment
from kronext.curvature.layers import find_layers
from kronext.reproduce.experiments import Settings
from kronext.reproduce.training import seeded


class RunningAdagrad:
    """`H_Ada = sum_t g_t g_tT` of chosen layers, over the steps so far.

    Approximations need the gradients `G_t`, one in `keep_every` of which is kept. Without probes
    these are the truth as well. With probes `v` the truth is `H_Ada v = sum_t <g_t, v> g_t`, a
    running sum over every step.

    Source: Appendix B of Morwani et al. 2024.
    """

    def __init__(self, model: nn.Module, layers: list[str], settings: Settings, seed: int) -> None:
        self._layers = find_layers("reproduce", model, layers)
        self._kept = StepGradients(model, layers)
        self._keep_every = settings.keep_every
        self._probes: dict[str, Tensor] = {}
        self._images: dict[str, Tensor] = {}
        if settings.probes:
            for name, layer in self._layers.items():
                weight = layer.module.weight
                # On the CPU, so that a run that goes on elsewhere has the probes of its images.
                generator = seeded(seed, f"probes of {name}", 0)
                shape = (settings.probes, *layer.shape)
                probes = torch.randn(shape, generator=generator, dtype=weight.dtype, device="cpu")
                self._probes[name] = probes.to(weight.device)
                self._images[name] = torch.zeros_like(self._probes[name])

    def record(self, step: int) -> None:
        """Adds the gradients of a step, counted from 0."""
        if step % self._keep_every == 0:
            self._kept.record()
        for name, probes in self._probes.items():
            layer = self._layers[name]
            gradient = layer.module.weight.grad
            assert gradient is not None
            g = layer.matrix(gradient).flatten()
            self._images[name].flatten(1).addr_(probes.flatten(1) @ g, g)

    def samples(self, layer: str) -> SecondMoment:
        """`H_Ada` of the steps that were kept, divided by their number."""
        return second_moment(self._kept[layer])

    def truth(self, layer: str) -> Truth:
        """`H_Ada` up to a factor: from the samples, or by its products with probes."""
        if layer in self._probes:
            return Hutchinson(self._probes[layer], self._images[layer])
        return self.samples(layer)

    def state_dict(self) -> dict[str, Any]:
        """All that changes during the run."""
        return {"kept": self._kept.state_dict(), "images": self._images}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there, on the device of the model."""
        self._kept.load_state_dict(state["kept"])
        for name, images in self._images.items():
            images.copy_(state["images"][name])
