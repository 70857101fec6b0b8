"""`pytest --device`: the tests of ops, optimizers and curvature on another device than the CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def run_pytest(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_tests_run_on_a_device_that_is_not_the_cpu() -> None:
    """A few of them: `pytest --device pretend` runs the rest, in twice the time of the CPU."""
    files = [
        "test_pretend_device.py",
        "ops/test_accelerator.py",
        "ops/test_precondition.py",
        "optim/test_graph_capture.py",
    ]
    run = run_pytest("--device", "pretend", *(f"tests/{file}" for file in files))
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout


def test_what_needs_no_device_stays_away() -> None:
    run = run_pytest("--device", "pretend", "tests", "--collect-only")
    assert "test_values_of_every_shape" in run.stdout
    assert "tests/emulator" not in run.stdout
    assert "test_cuda_module" not in run.stdout


@pytest.mark.parametrize(
    ("device", "message"),
    [("tpu", "must be cpu, cuda or pretend (got device=tpu)"), ("cuda", "must find a GPU")],
)
def test_a_device_that_is_not_there_is_refused_at_once(device: str, message: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    run = run_pytest("--device", device, "tests/ops")
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert message in run.stderr
