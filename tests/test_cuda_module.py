"""The CUDA module: built, loadable, and honest where there is no GPU.

A CPU build of torch lacks the one library that the module asks for; the build keeps a stand-in of
that name for the linker, and with it the module loads here too, as under a CUDA build of torch.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kronext

ROOT = Path(__file__).parents[1]
MODULE = ROOT / "kronext" / "_C_cuda.so"
STAND_IN = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}" / "libtorch_cuda.so"
HAS_CUDA_TORCH = torch.version.cuda is not None
needs_module = pytest.mark.skipif(not MODULE.exists(), reason="built without nvcc")

LOAD = f"""
import ctypes, torch, kronext
if torch.version.cuda is None:
    ctypes.CDLL({str(STAND_IN)!r}, mode=ctypes.RTLD_GLOBAL)
    torch.ops.load_library({str(MODULE)!r})
"""


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", LOAD + code], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_build_info_says_what_is_there() -> None:
    info = kronext.build_info()
    assert info["cuda"] == (MODULE.exists() and HAS_CUDA_TORCH)
    assert info["cuda"] == (info["cuda_reason"] == "")
    if MODULE.exists():
        assert info["cuda_compiler"].startswith("nvcc")
        assert info["cuda_architectures"]
    elif not HAS_CUDA_TORCH:
        assert "no CUDA module" in info["cuda_reason"]


@needs_module
def test_ops_have_cuda_kernels() -> None:
    missing = run("""
names = [name for name in dir(torch.ops.kronext) if hasattr(getattr(torch.ops.kronext, name), "default")]
has = torch._C._dispatch_has_kernel_for_dispatch_key
print([name for name in names if not has(f"kronext::{name}", "CUDA")])
""")  # noqa: E501
    assert "outer_update" not in missing


@needs_module
def test_a_call_without_a_cuda_tensor_is_refused() -> None:
    """Forced onto the CUDA kernel, past the dispatcher that would choose the CPU's."""
    message = run("""
cuda = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
L = torch.zeros(3, 3)
try:
    torch.ops.kronext.outer_update_.default.redispatch(
        cuda, L, None, torch.ones(3, 4), decay=0.0, weight=1.0)
except RuntimeError as error:
    print(error)
assert not L.any(), "it was written"
""")
    assert message.startswith("outer_update_: tensors must be on a CUDA device (got device=cpu)")
