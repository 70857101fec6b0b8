"""Builds the emulator with CMake, in a tree of its own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
# Of its own for each worker of pytest-xdist: the mutants of two would meet in one.
TREE = ROOT / "build" / os.environ.get("PYTEST_XDIST_WORKER", "") / "emulator"
FOLDER = TREE / "tests" / "emulator"  # programs and modules


def run(*command: object) -> None:
    result = subprocess.run([str(c) for c in command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, f"{command}:\n{result.stdout}\n{result.stderr}"


def tool(name: str) -> str:
    return shutil.which(name, path=str(Path(sys.executable).parent)) or name


def configure() -> None:
    run(tool("cmake"), "-S", ".", "-B", TREE, "-G", "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", f"-DPython_EXECUTABLE={sys.executable}",
        "-DKRONEXT_EMULATOR=ON")  # fmt: skip


def build(target: str) -> None:
    run(tool("cmake"), "--build", TREE, "--target", target)


def load_module() -> ModuleType:
    build("emulator")
    (path,) = FOLDER.glob("_emulator*.so")
    spec = importlib.util.spec_from_file_location("_emulator", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
