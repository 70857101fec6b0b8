"""The CUDA module: built, loadable, and honest where there is no GPU.

A CPU build of torch lacks the one library that the module asks for; the build keeps a stand-in of
that name for the linker, and with it the module loads here too, as under a CUDA build of torch.
"""

from __future__ import annotations

import ast
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
BUILT_WITH = kronext.build_info()["cuda_compiler"]
needs_module = pytest.mark.skipif(not BUILT_WITH, reason="built without nvcc")
# Their kernels run on the emulator; they are no ops on CUDA yet.
CPU_ONLY = {
    "kron_matvec", "kron_matvec_factored", "power_iteration", "power_iteration_dense",
    "power_iteration_factored", "power_iteration_list_", "power_iteration_normalise",
    "power_iteration_triples", "rearranged_matvec",
}  # fmt: skip

LOAD = f"""
WANTED = "tensors must be on a CUDA device (got device=cpu)"
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
    assert MODULE.exists() == bool(BUILT_WITH), "the module belongs to another build"
    assert info["cuda"] == (bool(BUILT_WITH) and HAS_CUDA_TORCH)
    assert info["cuda"] == (info["cuda_reason"] == "")
    if BUILT_WITH:
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
    assert set(ast.literal_eval(missing)) == CPU_ONLY


@needs_module
def test_a_call_without_a_cuda_tensor_is_refused() -> None:
    """Forced onto the CUDA kernel, past the dispatcher that would choose the CPU's."""
    messages = run("""
cuda = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
A, G = torch.eye(3), torch.ones(3, 4)
calls = {
    "outer_update_": ((A, None, G), dict(decay=0.0, weight=1.0)),
    "outer_update_list_": (([A], [], [G]), dict(decay=[0.0], weight=[1.0])),
    "precondition": ((G, A, None), {}),
    "precondition_list": (([G], [A], []), {}),
    "eigh": ((A,), {}),
    "inverse_root": ((A, 4.0), {}),
    "inverse_root_list": (([A], 4.0), dict(bases=[])),
    "inverse_root_": ((A, torch.eye(3), 4.0), {}),
    "inverse_root_list_": (([A], [torch.eye(3)], 4.0), dict(bases=[])),
}
for name, (arguments, options) in calls.items():
    try:
        getattr(torch.ops.kronext, name).default.redispatch(cuda, *arguments, **options)
    except RuntimeError as error:
        print(str(error).splitlines()[0] == f"{name}: " + WANTED or error)
assert torch.equal(A, torch.eye(3)), "it was written"
""")
    assert messages.split() == ["True"] * 9, messages
