"""Calls CMake and packs what it builds; everything else is in pyproject.toml and CMakeLists.txt."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
FROM_ENVIRONMENT = ("KRONEXT_CUDA", "KRONEXT_CUDA_ARCHITECTURES")  # options of CMakeLists.txt


class CMakeBuild(build_ext):
    """Builds every native module with one CMake tree, kept so that rebuilds take seconds."""

    def run(self) -> None:
        """Configures, builds, and installs next to the Python sources or into the wheel."""
        cmake = _tool("cmake") or _fail("cmake (pip install cmake)")
        ninja = _tool("ninja") or _fail("ninja (pip install ninja)")
        if not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
            _fail("a C++20 compiler (on Debian: apt-get install g++)")
        tree = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
        target = ROOT if self.inplace else Path(self.build_lib).resolve()
        settings = {
            "CMAKE_MAKE_PROGRAM": ninja,
            "KRONEXT_VERSION": self.distribution.get_version(),
            "Python_EXECUTABLE": sys.executable,
        }
        settings |= {name: os.environ[name] for name in FROM_ENVIRONMENT if name in os.environ}
        definitions = [f"-D{name}={value}" for name, value in settings.items()]
        self._call(cmake, "-S", ROOT, "-B", tree, "-G", "Ninja", *definitions)
        self._call(cmake, "--build", tree)
        self._call(cmake, "--install", tree, "--prefix", target)

    def _call(self, *command: object) -> None:
        try:
            subprocess.run([str(part) for part in command], check=True)
        except subprocess.CalledProcessError as error:
            raise SystemExit(
                f"kronext: the native build failed (exit {error.returncode}); see above"
            ) from None


def _tool(name: str) -> str | None:
    """The program of this Python environment, else the one on the path."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def _fail(need: str) -> str:
    raise SystemExit(f"kronext: building from source needs {need}, and it was not found")


setup(
    ext_modules=[Extension("kronext._C_cpu", []), Extension("kronext._bindings", [])],
    cmdclass={"build_ext": CMakeBuild},
)
