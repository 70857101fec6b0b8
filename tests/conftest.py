"""Puts the shared helpers on the path, chooses the device and keeps every test seeded."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Before torch loads its thread library: waiting threads that spin make tests crawl where anything
# else uses the machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch

from kronext import build_info

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

# What runs on the chosen device; the rest needs the CPU, a compiler or files, and no device.
ON_DEVICE = (
    "ops",
    "optim",
    "curvature",
    "test_benchmarks.py",
    "test_reference.py",
    "test_pretend_device.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        default="cpu",
        help="where the tests of ops, optimizers and curvature keep their tensors: cpu, cuda, or "
        "pretend, a device that computes on the CPU but fails where a GPU would",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cpu: of the CPU alone, left out with another --device")
    config.addinivalue_line("markers", "real: of a device that is there, left out with pretend")
    config.addinivalue_line("markers", "accelerator: of any device but the CPU")
    device = config.getoption("device")
    if device == "pretend":
        import pretend_device

        pretend_device.install()
    elif reason := _why_not(device):
        raise pytest.UsageError(f"--device: {reason} (got device={device})")
    if device != "cpu":
        # Constructors obey it, in test modules as they are imported too.
        torch.set_default_device(device)


def _why_not(device: str) -> str:
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = device
    if kind not in ("cpu", "cuda"):
        return "must be cpu, cuda or pretend"
    if kind == "cuda" and not torch.cuda.is_available():
        return f"torch {torch.__version__} must find a GPU"
    if kind == "cuda" and not build_info()["cuda"]:
        return f"the ops must be built for CUDA, but {build_info()['cuda_reason']}"
    return ""


def pytest_report_header(config: pytest.Config) -> str:
    device = config.getoption("device")
    return f"device: {device}" + ("" if device == "cpu" else f" (tests: {', '.join(ON_DEVICE)})")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if config.getoption("device") == "cpu" or collection_path == HERE:
        return None
    return collection_path.relative_to(HERE).parts[0] not in ON_DEVICE or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    device = config.getoption("device")
    left_out = {"cpu": ["accelerator"], "pretend": ["cpu", "real"]}.get(device, ["cpu"])
    others = [item for item in items if any(map(item.get_closest_marker, left_out))]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
