"""Build information, the package's surface, and the CPU capabilities."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kronext
from kronext import _bindings, ops

ROOT = Path(__file__).parents[1]
ORDER = ["portable", "avx2", "avx512", "avx512_bf16", "amx"]
DETECTED = _bindings.detected_cpu_capability()


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def test_build_info() -> None:
    info = kronext.build_info()
    assert info["version"] == kronext.__version__
    assert re.match(r"\d+\.\d+", info["torch_built_against"])
    assert info["torch"] == torch.__version__
    assert info["cpu_capability"] in info["cpu_capabilities"]
    assert ORDER.index(info["cpu_capability"]) <= ORDER.index(info["cpu_detected"])
    assert info["cuda"] or info["cuda_reason"], "it must say why CUDA is absent"


def test_every_op_of_the_interface_is_there_and_documented() -> None:
    for name in ops.__all__:
        assert getattr(ops, name).__doc__, f"{name} has no docstring"
    contract = {
        "outer_update_", "outer_update_list_", "eigh", "inverse_root", "inverse_root_list",
        "inverse_root_", "precondition", "precondition_list", "kron_matvec",
        "kron_matvec_factored", "rearranged_matvec", "power_iteration",
    }  # fmt: skip
    assert contract <= set(ops.__all__)


def test_every_registered_op_has_a_schema_that_names_what_it_mutates() -> None:
    packets = [getattr(torch.ops.kronext, name) for name in dir(torch.ops.kronext)]
    schemas = [p.default._schema for p in packets if hasattr(p, "default")]
    assert len(schemas) >= 12
    for schema in schemas:
        mutates = any(a.alias_info is not None and a.alias_info.is_write for a in schema.arguments)
        assert mutates == schema.name.endswith("_"), schema


def test_importing_kronext_imports_nothing_but_its_ops() -> None:
    """What takes time beside torch: other packages, the optimizers, the measurements."""
    code = (
        "import sys, torch; before = set(sys.modules); import kronext;"
        "print([m for m in set(sys.modules) - before if not m.startswith('kronext')]);"
        "print([m for m in ('optim', 'curvature', 'demo') if f'kronext.{m}' in sys.modules])"
    )
    result = python("-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["[]", "[]"]


CURRENT = kronext.build_info()["cpu_capability"]
RUNNABLE = ORDER[: ORDER.index(DETECTED) + 1]
# Sets with the kernels of avx512, but for products of their own.
SHARING = ["avx512", "avx512_bf16", "amx", "amx_emulated"]
OUTER = ["tests/ops/test_outer.py", "tests/ops/test_outer_bfloat16.py"]
if DETECTED in ("avx512_bf16", "amx"):
    RUNNABLE.append("amx_emulated")


@pytest.mark.parametrize("capability", [c for c in RUNNABLE if c != CURRENT])
def test_the_op_tests_pass_under_each_capability(capability: str) -> None:
    """In a process of its own: the capability is chosen once, when the ops are first used."""
    same = CURRENT in SHARING and capability in SHARING
    result = python(
        "-m", "pytest", "-q", "-x", *(OUTER if same else ["tests/ops"]),
        "-k", "not opcheck and not compiles and not large", KRONEXT_CPU_CAPABILITY=capability,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-4000:]
    assert " passed" in result.stdout


@pytest.mark.parametrize("capability", RUNNABLE)
def test_the_environment_chooses_the_capability(capability: str) -> None:
    code = "import kronext; print(kronext.build_info()['cpu_capability'])"
    result = python("-c", code, KRONEXT_CPU_CAPABILITY=capability)
    assert result.stdout.strip() == capability, result.stderr


def test_an_unknown_capability_is_a_clear_error() -> None:
    result = python("-c", "import kronext; kronext.build_info()", KRONEXT_CPU_CAPABILITY="sse9")
    assert result.returncode != 0
    message = "must be portable, avx2, avx512, avx512_bf16 or amx (got KRONEXT_CPU_CAPABILITY=sse9)"
    assert message in result.stderr


@pytest.mark.skipif(DETECTED == "amx", reason="this machine runs all of them")
def test_a_capability_beyond_the_machine_is_a_clear_error() -> None:
    result = python("-c", "import kronext; kronext.build_info()", KRONEXT_CPU_CAPABILITY="amx")
    assert result.returncode != 0
    assert f"up to {DETECTED} (got KRONEXT_CPU_CAPABILITY=amx)" in result.stderr


@pytest.mark.skipif(DETECTED != "amx", reason="this machine has no matrix tiles")
def test_emulated_tiles_compute_what_amx_does() -> None:
    code = (
        "import hashlib, torch; from kronext import ops; torch.manual_seed(0);"
        "G = torch.randn(130, 1100); L, R = torch.zeros(130, 130), torch.zeros(1100, 1100);"
        "levels = ('highest', 'high', 'medium');"
        "numbers = {'decay': 0.9, 'weight': 0.1}; set_to = torch.set_float32_matmul_precision;"
        "[(set_to(level), ops.outer_update_(L, R, G, **numbers)) for level in levels];"
        "outs = [(set_to(level), ops.precondition(G, L, R))[1] for level in levels];"
        "print(hashlib.sha256(b''.join(x.numpy().tobytes() for x in (L, R, *outs))).hexdigest())"
    )
    results = [python("-c", code, KRONEXT_CPU_CAPABILITY=c) for c in ("amx", "amx_emulated")]
    assert results[0].returncode == 0, results[0].stderr
    assert results[0].stdout == results[1].stdout


def test_ops_that_are_not_built_are_a_clear_error() -> None:
    code = "from kronext.ops import _library; _library._load_cpu(_library.Path('nowhere.so'))"
    result = python("-c", code)
    assert "ImportError: kronext: the compiled ops must be built" in result.stderr
