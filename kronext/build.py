"""What was built, what is loaded, and why something is not."""

from __future__ import annotations

from typing import Any

import torch

from kronext import _bindings


def version() -> str:
    """The version that the native modules were built for: that of the package."""
    return str(_bindings.build()["version"])


def build_info() -> dict[str, Any]:
    """Versions, compiler, CPU capability in use, and CUDA: loaded, or why not.

    Returns:
        A dictionary of plain values: `version`, `torch` (running), `torch_built_against`,
        `compiler`, `build_type`, `cpu_capabilities` (built), `cpu_capability` (in use),
        `cpu_detected` (the best this machine runs), `threads`, `cuda` (whether CUDA ops are
        loaded), `cuda_reason` (why not), `cuda_architectures` (built for).
    """
    built = _bindings.build()
    return {
        "version": built["version"],
        "torch": torch.__version__,
        "torch_built_against": built["torch"],
        "compiler": built["compiler"],
        "build_type": built["build_type"],
        "cpu_capabilities": built["cpu_capabilities"],
        "cpu_capability": _bindings.cpu_capability(),
        "cpu_detected": _bindings.detected_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cuda": False,
        "cuda_reason": "this build has no CUDA module",
        "cuda_architectures": [],
    }
