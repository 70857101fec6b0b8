"""Builds the emulator and hands it to the tests; sanitized runs wait for `make sanitize`."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import building
import pytest

SECONDS = 300  # a mutant may never end

if platform.machine() not in ("x86_64", "AMD64"):
    collect_ignore_glob = ["test_*.py"]  # the context switch is written for x86-64


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "sanitize: minutes long; `make sanitize` runs it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "sanitize" in config.getoption("markexpr"):
        return
    slow = [item for item in items if item.get_closest_marker("sanitize")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]


@pytest.fixture(scope="session")
def tree() -> Path:
    """The folder that programs and modules are built in."""
    building.configure()
    return building.FOLDER


@pytest.fixture(scope="session")
def program(tree: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Builds one of the programs (program.cpp) and runs it."""
    options = {"ASAN_OPTIONS": "detect_stack_use_after_return=0", "TSAN_OPTIONS": "halt_on_error=1"}

    def run_program(target: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        building.build(target)
        command = [str(tree / target), *arguments]
        environment = {**os.environ, **options}
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=SECONDS
        )

    return run_program


@pytest.fixture(scope="session")
def module(tree: Path) -> ModuleType:
    return building.load_module()


@pytest.fixture
def emulator(module: ModuleType) -> Iterator[ModuleType]:
    """The emulator's module, with its threads and blocks in forward order."""
    module.set_schedule(module.Order.FORWARD)
    yield module
    module.set_schedule(module.Order.FORWARD)


@pytest.fixture
def schedules(emulator: ModuleType) -> Callable[[], Iterator[str]]:
    """Walks the orders of threads and blocks under which a kernel must give the same bits."""

    def walk() -> Iterator[str]:
        orders = [(emulator.Order.FORWARD, 0), (emulator.Order.REVERSE, 0)]
        for order, seed in [*orders, *((emulator.Order.RANDOM, seed) for seed in (1, 2, 3))]:
            emulator.set_schedule(order, seed)
            yield f"{order.name.lower()} {seed}"

    return walk
