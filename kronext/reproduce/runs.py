"""A whole run: training, measurements, and where they are written."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from kronext import build_info
from kronext.datasets import Images
from kronext.reproduce.adagrad import RunningAdagrad
from kronext.reproduce.experiments import EXPERIMENTS, PRESETS, Preset
from kronext.reproduce.measure import GaussNewtonMeter, Pool, adagrad_similarities
from kronext.reproduce.store import Store
from kronext.reproduce.training import Examples, Trainer, seeded


class Run:
    """One experiment at one preset; Figures 1 to 4 show different sides of the same runs.

    Args:
        name: a key of `EXPERIMENTS`.
        preset: a key of `PRESETS`.
        images: the training data.
        output: folder of the results.
        seed: of the start, the batches, the labels and the probes.
        device: of the model and the measurements.

    Raises:
        ValueError: the folder holds results of another configuration.
    """

    def __init__(
        self,
        name: str,
        preset: Preset,
        images: Images,
        output: Path,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.name = name
        self.experiment = EXPERIMENTS[name]
        self.settings = PRESETS[preset][name]
        self._seed = seed
        self._device = torch.device(device)
        self._images = images
        self._store = Store(
            output,
            name,
            {
                "experiment": name,
                "preset": preset,
                "seed": seed,
                "data": {
                    "name": images.name,
                    "images": len(images),
                    "checksum": images.checksum(),
                },
                "settings": asdict(self.settings),
            },
        )
        self._found = self._store.results()

    @property
    def title(self) -> str:
        """The data and the model in words."""
        return f"{self._images.name}: {self.experiment.describe(self.settings)}"

    def __call__(self, on_step: Callable[[int], object] = lambda step: None) -> dict[str, Any]:
        """The results; what is already on disk is not computed again.

        Args:
            on_step: called with the number of each step that is done.
        """
        if self._found is not None and self._found["complete"]:
            return self._found
        examples = Examples(
            self._images, standardize=self.experiment.standardize, device=self._device
        )
        trainer = Trainer(self.experiment, self.settings, examples, self._seed)
        layers = list(self.experiment.layers(self.settings))
        adagrad = RunningAdagrad(trainer.model, layers, self.settings, self._seed)
        pool = Pool(examples, self.settings.examples, seeded(self._seed, "pool", 0))
        gauss_newton = GaussNewtonMeter(
            trainer.model, layers, pool, self.settings, self.experiment.loss, self._seed
        )
        results: dict[str, Any] = {"versions": build_info(), "seconds": 0.0, "measurements": []}
        if (state := self._store.state()) is not None:
            trainer.load_state_dict(state["trainer"])
            adagrad.load_state_dict(state["adagrad"])
            results = state["results"]
        measured_steps = set(self.settings.measured_steps())
        started = time.perf_counter() - results["seconds"]
        while trainer.step < self.settings.steps:
            trainer.backward()
            adagrad.record(trainer.step)
            due = trainer.step + 1 in measured_steps
            if due:
                results["measurements"].append(_measure(trainer.step, gauss_newton, adagrad))
            trainer.update()
            if due:
                results["seconds"] = round(time.perf_counter() - started, 2)
                state = {"trainer": trainer.state_dict(), "adagrad": adagrad.state_dict()}
                self._store.save(results, state)
            on_step(trainer.step)
        return self._store.finish(results)


def _measure(step: int, gauss_newton: GaussNewtonMeter, adagrad: RunningAdagrad) -> dict[str, Any]:
    return {
        "step": step + 1,
        "loss": gauss_newton.mean_loss(),
        "layers": {
            layer: {
                "gauss_newton": similarities,
                "adagrad": adagrad_similarities(adagrad, layer),
            }
            for layer, similarities in gauss_newton.measure(step).items()
        },
    }
