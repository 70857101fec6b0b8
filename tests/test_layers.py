"""The layers point one way: core -> cpu, cuda -> torch, bindings -> Python."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"

# What a room may include from the project, and whether it may see torch.
ROOMS = {
    "core": ({"core"}, False),
    "cpu": ({"core", "cpu"}, False),
    "cuda": ({"core", "cuda"}, False),
    "torch": ({"core", "cpu", "cuda", "torch"}, True),
    "bindings": ({"core", "cpu", "cuda", "bindings"}, False),
}
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
STABLE = re.compile(r"^torch/(csrc/stable|headeronly|csrc/inductor/aoti_torch/c)/")


def sources() -> list[Path]:
    return [p for p in CSRC.rglob("*") if p.suffix in {".h", ".cpp", ".cu", ".cuh"}]


def breaches(room: str, text: str) -> list[str]:
    """The includes of a file in `room` that its layer may not have."""
    rooms, torch_allowed = ROOMS[room]
    found = []
    for include in INCLUDE.findall(text):
        if include.startswith("csrc/"):
            if include.split("/")[1] not in rooms:
                found.append(include)
        elif re.match(r"(torch|ATen|c10)/", include) and not (
            torch_allowed and STABLE.match(include)
        ):
            found.append(include)
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(CSRC)))
def test_includes_stay_in_their_layer(path: Path) -> None:
    room = path.relative_to(CSRC).parts[0]
    assert room in ROOMS, f"{path}: a room that the design does not know"
    found = breaches(room, path.read_text())
    assert not found, f"{path.relative_to(ROOT)} includes {found}"


def test_a_breach_is_seen() -> None:
    assert breaches("core", '#include "csrc/cpu/simd.h"') == ["csrc/cpu/simd.h"]
    assert breaches("cpu", "#include <torch/csrc/stable/ops.h>") == ["torch/csrc/stable/ops.h"]
    assert breaches("torch", "#include <torch/extension.h>") == ["torch/extension.h"]
    assert breaches("torch", "#include <torch/csrc/stable/ops.h>") == []


def test_kernels_instantiate_no_standard_library_template() -> None:
    """Of several copies of a shared inline function the linker may keep the AVX-512 one."""
    allowed = {"immintrin.h", "math.h", "stddef.h", "stdint.h", "string.h", "xmmintrin.h"}
    compiled_per_set = [
        p for p in (CSRC / "cpu").iterdir() if p.stem not in {"capability", "dispatch"}
    ]
    for path in [*compiled_per_set, *(CSRC / "core").iterdir()]:
        system = {i for i in INCLUDE.findall(path.read_text()) if not i.startswith("csrc/")}
        assert system <= allowed, f"{path.relative_to(ROOT)} includes {sorted(system - allowed)}"


def test_python_ops_do_not_know_their_users() -> None:
    for path in (ROOT / "kronext" / "ops").glob("*.py"):
        text = path.read_text()
        for user in ("kronext.optim", "kronext.curvature", "kronext.demo", "kronext.reference"):
            assert not re.search(rf"^\s*(from|import) {user}", text, re.MULTILINE), (
                f"{path} -> {user}"
            )
