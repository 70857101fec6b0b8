"""Whole runs: interrupted ones end as others do, and no file is taken for another run's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kronext.curvature import StepGradients
from kronext.reproduce import sources
from kronext.reproduce.experiments import EXPERIMENTS, PRESETS
from kronext.reproduce.runs import Run

HERE = Path(__file__).parent


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


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("resnet", {"measurements": 3}),
        ("vit", {"measurements": 3, "probes": 4, "keep_every": 2}),
    ],
)
def test_a_run_goes_on_on_another_device(tmp_path, name, changes):
    """Its probes are those of before, and what was kept moves there."""
    command = [sys.executable, HERE / "change_device.py", name, json.dumps(changes), tmp_path]
    paths = os.pathsep.join(map(str, (HERE.parents[1], HERE.parent)))
    run = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True)
    assert run.returncode == 0, run.stderr.decode()
    whole, *changed = json.loads(run.stdout)
    for measurements in changed:
        for there, here in zip(measurements, whole, strict=True):
            assert there["loss"] == pytest.approx(here["loss"], rel=1e-5)
            for layer, values in here["layers"].items():
                expected = pytest.approx(values["adagrad"], abs=1e-5)
                assert there["layers"][layer]["adagrad"] == expected


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


def test_nothing_of_a_run_whose_results_are_removed_goes_into_another(tmp_path):
    whole = quick_run("vit", tmp_path / "whole", seed=1)()
    folder = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        quick_run("vit", folder)(Interrupter(1))
    with pytest.raises(ValueError, match="or be removed"):
        quick_run("vit", folder, seed=1)
    (folder / "vit.json").unlink()
    steps = Interrupter()
    assert without_times(quick_run("vit", folder, seed=1)(steps)) == without_times(whole)
    assert steps.steps == [1, 2, 3, 4]
    assert [path.name for path in folder.iterdir()] == ["vit.json"]


def test_files_are_compared_before_a_step_is_made(tmp_path):
    for seed in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            quick_run("vit", tmp_path / str(seed), seed=seed)(Interrupter(1))
    (tmp_path / "0" / "vit.state").replace(tmp_path / "1" / "vit.state")
    with pytest.raises(ValueError, match=r"vit.state must be of the same run.*seed=0 there.*1 h"):
        quick_run("vit", tmp_path / "1", seed=1)


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
