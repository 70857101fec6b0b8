"""What was built, what is loaded, and why something is not."""

from __future__ import annotations

from typing import Any

import torch

from kronext import _bindings
from kronext.ops._library import WHY_NO_CUDA


def version() -> str:
    """The version that the native modules were built for: that of the package."""
    return str(_bindings.build()["version"])


def build_info() -> dict[str, Any]:
    """Versions, compiler, CPU capability in use, and CUDA: loaded, or why not.

    Returns:
        A dictionary of plain values: `version`, `torch` (running), `torch_built_against`,
        `compiler`, `build_type`, `cpu_capabilities` (built), `cpu_capability` (in use),
        `cpu_detected` (the best this machine runs), `threads`, `cuda` (whether CUDA ops are
        loaded; without a GPU they refuse to run), `cuda_reason` (why not), `cuda_compiler`,
        `cuda_architectures` (built for).
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
        "cuda": not WHY_NO_CUDA,
        "cuda_reason": WHY_NO_CUDA,
        "cuda_compiler": built["cuda_compiler"],
        "cuda_architectures": built["cuda_architectures"],
    }
