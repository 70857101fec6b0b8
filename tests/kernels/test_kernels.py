"""nvcc's code of every kernel keeps the rules, and the rules notice a kernel that is made worse."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import kernel_check
import pytest
from kernel_rules import ARCHITECTURES, occupancy, problems
from sass import ROOT, Kernel, compile_kernels, missing_tools, read_ptxas

needs_nvcc = pytest.mark.skipif(missing_tools() is not None, reason=str(missing_tools()))

LARGE_TILE = """
#include "csrc/cuda/outer_kernel.cuh"
#include "csrc/cuda/outer_tiles.cuh"
namespace kronext::cuda {
template __global__ void outer_kernel<BFloat16Large>(const OuterTask*, const OuterCut*, float*,
                                                     int*);
}
"""


@dataclass(frozen=True)
class Shape:
    name: str = "bfloat16 large"
    tile: str = ""
    threads: int = 256
    shared_bytes: int = 65648
    blocks: int = 1
    tile_size: int = 128
    depth: int = 32


@pytest.fixture(scope="module")
def shapes() -> list[kernel_check.KernelShape]:
    return kernel_check.load_emulator().outer_kernels()


@needs_nvcc
def test_every_kernel_keeps_its_rules(shapes: list[kernel_check.KernelShape]) -> None:
    checked = kernel_check.compile_all(shapes)
    assert len(checked) == len(shapes) * len(ARCHITECTURES)
    found = {key: problems(*pair) for key, pair in checked.items()}
    assert not any(found.values()), found


COPY = "cp.async.{}.shared.global [%0], [%1], {}"

# What is changed in which header, and what the rules must say.
WORSE = {
    "registers for three blocks": (
        "outer_kernel.cuh",
        [("Tile::kThreads, Tile::kBlocks)", "Tile::kThreads, 3)")],
        "local memory in the loop",
    ),
    "copies of four bytes": (
        "ptx.cuh",
        [(COPY.format("cg", size), COPY.format("ca", size.replace("16", "4")))
         for size in ("16;", "16, %2;")],
        r"no LDGSTS.*\.128",
    ),
    "no turning of matrices": ("ptx.cuh", [(".x4.trans.", ".x4.")], "no LDSM.16.MT88.4"),
    "epilogue in float64": (
        "outer_kernel.cuh",
        [("fma(decay, old, weight * sum)", "T(double(decay) * old + weight * sum)")],
        "has D(ADD",
    ),
    "epilogue number by number": (
        "outer_kernel.cuh",
        [("      if (vector) {", "      if (false) {")],
        r"no STG.*\.128",
    ),
}  # fmt: skip


def compile_large_tile(folder: Path, header: str, changes: list[tuple[str, str]]) -> Kernel:
    """One kernel from the project's headers, with changes in one of them."""
    shutil.copytree(ROOT / "csrc", folder / "csrc")
    text = (folder / "csrc" / "cuda" / header).read_text()
    for old, new in changes:
        assert old in text, f"{old!r} is not in {header}"
        text = text.replace(old, new)
    (folder / "csrc" / "cuda" / header).write_text(text)
    source = folder / "large_tile.cu"
    source.write_text(LARGE_TILE)
    (kernel,) = compile_kernels(source, "90a", folder, include=(folder,))
    return kernel


@needs_nvcc
def test_the_unchanged_kernel_passes(tmp_path: Path) -> None:
    assert problems(compile_large_tile(tmp_path, "ptx.cuh", []), Shape()) == []


@needs_nvcc
@pytest.mark.parametrize("change", WORSE)
def test_a_worse_kernel_is_noticed(change: str, tmp_path: Path) -> None:
    header, changes, complaint = WORSE[change]
    found = problems(compile_large_tile(tmp_path, header, changes), Shape())
    assert any(complaint in problem for problem in found), found


def test_occupancy_counts_registers_shared_memory_and_threads() -> None:
    def blocks(registers: int, **shape: int) -> int:
        return occupancy(Kernel("k", "80", registers=registers), Shape(**shape))

    assert blocks(128) == 2  # 64 K registers: two blocks of 256 threads
    assert blocks(129) == 1
    assert blocks(32, shared_bytes=40 * 1024) == 4  # 164 KB, 41 KB each
    assert blocks(32, shared_bytes=0) == 8  # 2048 threads


def test_too_few_blocks_and_too_much_shared_memory_are_problems() -> None:
    kernel = Kernel("k", "90a", registers=255)
    assert any("intended" in p for p in problems(kernel, Shape(blocks=2)))
    assert any("do not fit" in p for p in problems(kernel, Shape(shared_bytes=240 * 1024)))


def test_the_log_of_ptxas_is_read() -> None:
    log = """ptxas info    : Compiling entry function '_Z1kv' for 'sm_90a'
ptxas info    : Function properties for _Z1kv
    24 bytes stack frame, 20 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 168 registers, used 1 barriers, 24 bytes cumulative stack size
"""
    kernel = read_ptxas(log, "90a")["_Z1kv"]
    assert (kernel.name, kernel.registers) == ("k()", 168)
    assert (kernel.stack_bytes, kernel.spill_bytes) == (24, 36)
