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
BUILT_WITH = kronext.build_info()["cuda_compiler"]
needs_module = pytest.mark.skipif(not BUILT_WITH, reason="built without nvcc")

# For any device, or for any but the CPU.
WRITTEN_IN_PYTHON = {"inverse_root_by_linalg", "float32_matmul_precision", "norms"}

LOAD = f"""
WANTED = "tensors must be on a CUDA device (got device=cpu)"
import ctypes, torch, kronext
if torch.version.cuda is None:
    ctypes.CDLL({str(STAND_IN)!r}, mode=ctypes.RTLD_GLOBAL)
    torch.ops.load_library({str(MODULE)!r})
all_ops = torch._C._dispatch_get_all_op_names()
names = {{op.split("::")[1] for op in all_ops if op.startswith("kronext::")}}
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
def test_every_op_has_a_cuda_kernel() -> None:
    output = run("""
has = torch._C._dispatch_has_computed_kernel_for_dispatch_key
print(len(names) >= 18, [name for name in names if not has(f"kronext::{name}", "CUDA")])
""")
    assert output == "True []\n"


@needs_module
def test_a_call_without_a_cuda_tensor_is_refused() -> None:
    """Forced onto the CUDA kernel, past the dispatcher that would choose the CPU's."""
    output = run("""
cuda = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
A, G, S = torch.eye(3), torch.ones(3, 4), torch.ones(2, 3, 4)
L, R, H = torch.eye(3), torch.eye(4), torch.eye(12)
start = (L[None], R[None])
numbers = dict(decay=[0.0], weight=[1.0])
once = dict(steps=1, tol=None)
calls = {
    "outer_update_": ((A, None, G), dict(decay=0.0, weight=1.0)),
    "outer_update_list_": (([A], [], [G]), numbers),
    "precondition": ((G, A, None), {}),
    "precondition_list": (([G], [A], []), {}),
    "precondition_list_with_squares": (([G], [A], []), {}),
    "eigh": ((A,), {}),
    "inverse_root": ((A, 4.0), {}),
    "inverse_root_list": (([A], 4.0), dict(bases=[])),
    "inverse_root_": ((A, torch.eye(3), 4.0), {}),
    "inverse_root_list_": (([A], [torch.eye(3)], 4.0), dict(bases=[])),
    "kron_matvec": ((S, L, R), dict(weights=torch.ones(2))),
    "kron_matvec_factored": ((torch.ones(2, 5, 3), torch.ones(2, 5, 4), L, R), dict(weights=None)),
    "rearranged_matvec": ((H, L, R), {}),
    "power_iteration": ((S, *start), once),
    "power_iteration_factored": ((torch.ones(2, 5, 3), torch.ones(2, 5, 4), *start), once),
    "power_iteration_dense": ((H, *start), once),
    "power_iteration_normalise": ((*start, *start), {}),
    "power_iteration_triples": (
        (*start, start[0], torch.zeros((), dtype=torch.float64)), dict(tol=None)
    ),
    "power_iteration_list_": (([A], [R], [G]), numbers),
}
for name, (arguments, options) in calls.items():
    try:
        getattr(torch.ops.kronext, name).default.redispatch(cuda, *arguments, **options)
        print(f"{name} was not refused")
    except RuntimeError as error:
        # The forms of power_iteration speak with its name.
        op, _, rest = str(error).splitlines()[0].partition(": ")
        if not name.startswith(op) or rest != WANTED:
            print(name, error)
assert torch.equal(A, torch.eye(3)) and torch.equal(R, torch.eye(4)), "it was written"
print(*names - set(calls))
""")
    assert set(output.split()) == WRITTEN_IN_PYTHON
