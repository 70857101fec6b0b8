"""The C++ host tests, built and run through ctest."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*command: object) -> str:
    result = subprocess.run([str(c) for c in command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, f"{command}:\n{result.stdout}\n{result.stderr}"
    return result.stdout


def test_host_tests_pass() -> None:
    scripts = Path(sys.executable).parent
    cmake, ctest = (shutil.which(tool, path=str(scripts)) or tool for tool in ("cmake", "ctest"))
    tree = ROOT / "build" / "host-tests"
    ninja = shutil.which("ninja", path=str(scripts)) or "ninja"
    run(cmake, "-S", ".", "-B", tree, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}",
        f"-DPython_EXECUTABLE={sys.executable}", "-DKRONEXT_HOST_TESTS=ON")  # fmt: skip
    run(cmake, "--build", tree, "--target", "host_tests")
    output = run(ctest, "--test-dir", tree, "--output-on-failure")
    assert "100% tests passed" in output
    assert "No tests were found" not in output
