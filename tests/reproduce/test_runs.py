"""Whole runs: interrupted ones end as others do, and no file is taken for another run's."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from kronext.curvature import StepGradients
from kronext.reproduce import sources
from kronext.reproduce.adagrad import RunningAdagrad
from kronext.reproduce.experiments import EXPERIMENTS, PRESETS
from kronext.reproduce.runs import Run
from kronext.reproduce.store import Store


def quick_run(name, folder, *, seed=0):
    size = PRESETS["quick"][name].image_size
    images = sources.bundled(EXPERIMENTS[name].data, size)
    return Run(name, "quick", images, folder, seed=seed)


def without_times(result):
    return {key: value for key, value in result.items() if key != "seconds"}


class Interrupter:
    """Counts the steps of a run, and stops it after a given one."""

    def __init__(self, last=None):
        self.steps = []
        self._last = last

    def __call__(self, step):
        self.steps.append(step)
        if step == self._last:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("resnet", {"measurements": 3}),  # momentum and running averages
        ("vit", {"measurements": 3, "probes": 4, "keep_every": 2}),  # Adam's, and running sums
    ],
)
def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path, monkeypatch, name, changes):
    settings = replace(PRESETS["quick"][name], **changes)
    monkeypatch.setitem(PRESETS["quick"], name, settings)
    assert settings.measured_steps() == [1, 2, 4]
    whole = quick_run(name, tmp_path / "whole")()
    folder = tmp_path / "parts"
    for last, first in ((1, 1), (3, 2)):
        steps = Interrupter(last)
        with pytest.raises(KeyboardInterrupt):
            quick_run(name, folder)(steps)
        assert steps.steps[0] == first, "it begins after the last measured step"
        partial = json.loads((folder / f"{name}.json").read_text())
        assert not partial["complete"]
        assert partial["measurements"] == whole["measurements"][: len(partial["measurements"])]
    # What a stop in the middle of writing leaves behind does no harm.
    (folder / f"{name}.state.part").write_bytes(b"half")
    steps = Interrupter()
    resumed = quick_run(name, folder)(steps)
    assert steps.steps == [3, 4]
    assert without_times(resumed) == without_times(whole)
    assert resumed == json.loads((folder / f"{name}.json").read_text())
    assert resumed["complete"]
    assert not (folder / f"{name}.state").exists()


def test_a_complete_run_is_not_made_again(tmp_path):
    first = quick_run("vit", tmp_path)()
    steps = Interrupter()
    assert quick_run("vit", tmp_path)(steps) == first
    assert steps.steps == []


def test_results_of_another_run_are_not_overwritten(tmp_path):
    quick_run("resnet", tmp_path)()
    before = (tmp_path / "resnet.json").read_bytes()
    with pytest.raises(ValueError, match=r"resnet.json must be of the same run.*seed=0 there.*1 h"):
        quick_run("resnet", tmp_path, seed=1)
    small = PRESETS["quick"]["resnet"].image_size // 2
    images = sources.bundled("cifar", small)
    with pytest.raises(ValueError, match="data="):
        Run("resnet", "quick", images, tmp_path)
    assert (tmp_path / "resnet.json").read_bytes() == before


@pytest.mark.parametrize("is_removed", [True, False])
def test_a_state_without_results_is_that_of_the_same_run_or_none(tmp_path, is_removed):
    """Removed as the error message says, or never written: the state is the first of the two."""
    name, whole = "resnet", quick_run("resnet", tmp_path / "whole", seed=1)()
    folder = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        quick_run(name, folder, seed=0 if is_removed else 1)(Interrupter(2))
    (folder / f"{name}.json").unlink()
    steps = Interrupter()
    assert without_times(quick_run(name, folder, seed=1)(steps)) == without_times(whole)
    assert (steps.steps[0] == 1) == is_removed


def test_a_run_goes_on_on_another_device(tmp_path):
    """Its state comes back on the CPU, and each part moves to where its layer is."""
    store = Store(tmp_path, "run", {})
    store.save({}, {"numbers": torch.zeros(2, device="meta")} | {"kept": torch.ones(2)})
    state = store.state()
    assert state is not None
    assert state["kept"].device.type == "cpu"
    model = torch.nn.Sequential(torch.nn.Linear(3, 2, device="meta"))
    settings = replace(PRESETS["quick"]["vit"], probes=4)
    running = RunningAdagrad(model, ["0"], settings, 0)
    running.load_state_dict(
        {"kept": {"0": torch.zeros(1, 2, 3)}, "images": {"0": torch.ones(4, 2, 3)}}
    )
    state = running.state_dict()
    assert {state["images"]["0"].device.type, state["kept"]["0"].device.type} == {"meta"}


def test_the_seed_decides(tmp_path):
    zero, one = (quick_run("vit", tmp_path / str(seed), seed=seed)() for seed in (0, 1))
    assert zero["measurements"] != one["measurements"]


def test_step_gradients_go_on_from_a_state():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2))
    gradients = StepGradients(model, "0")
    untouched = gradients.state_dict()
    for _ in range(3):
        model.zero_grad()
        model(torch.randn(4, 3)).square().sum().backward()
        gradients.record()
    other = StepGradients(model, "0")
    other.load_state_dict(gradients.state_dict())
    other.record()
    assert torch.equal(other["0"][:3], gradients["0"])
    assert torch.equal(other["0"][3], gradients["0"][2])
    with pytest.raises(ValueError, match=r"state must be of the layers \['0'\] \(got \['1'\]\)"):
        other.load_state_dict({"1": torch.zeros(1, 2, 3)})
    other.load_state_dict(untouched)
    with pytest.raises(ValueError, match="record must come before reading"):
        other["0"]
    other.record()
    assert torch.equal(other["0"], gradients["0"][2:])
