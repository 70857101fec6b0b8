"""nvcc's code of every kernel keeps the rules, and the rules notice a kernel that is made worse."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
from kernel_check import OPS, compile_all, find_shape, load_shapes, rule_for
from kernel_rules import KernelShape, Rule, occupancy, problems
from sass import Kernel, missing_tools, read_ptxas
from worse import Worse, compile_example

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on the path")


@dataclass(frozen=True)
class Shape:
    op: str = "outer"
    name: str = "kernel"
    symbol: str = ""
    threads: int = 256
    shared_bytes: int = 65648
    blocks: int = 1
    sizes: dict[str, int] = field(default_factory=dict)


@pytest.fixture(scope="module")
def shapes() -> list[KernelShape]:
    return load_shapes()


def example_problems(op: ModuleType, kernels: list[Kernel], shapes: list[KernelShape]) -> list[str]:
    (shape,) = [s for s in shapes if (s.op, s.name) == (op.OP, op.EXAMPLE)]
    (kernel,) = [k for k in kernels if find_shape(k, shapes) == shape]
    return problems(kernel, shape, rule_for(shape))


@needs_nvcc
def test_the_disassemblers_are_installed() -> None:
    assert missing_tools() is None


@needs_nvcc
def test_every_kernel_keeps_its_rules(shapes: list[KernelShape]) -> None:
    """For one architecture: `make kernels-check` takes minutes for all of them."""
    found = {
        f"{c.shape.op} {c.shape.name} sm_{c.kernel.architecture}": c.problems()
        for c in compile_all(shapes, ["90a"])
    }
    broken = {kernel: problems for kernel, problems in found.items() if problems}
    assert not broken


@needs_nvcc
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.OP)
def test_the_unchanged_kernel_passes(
    op: ModuleType, shapes: list[KernelShape], tmp_path: Path
) -> None:
    assert example_problems(op, compile_example(op.EXAMPLE_SOURCE, tmp_path), shapes) == []


@needs_nvcc
@pytest.mark.parametrize(
    ("op", "worse"),
    [pytest.param(op, w, id=f"{op.OP}: {name}") for op in OPS for name, w in op.WORSE.items()],
)
def test_a_worse_kernel_is_noticed(
    op: ModuleType, worse: Worse, shapes: list[KernelShape], tmp_path: Path
) -> None:
    found = example_problems(op, compile_example(op.EXAMPLE_SOURCE, tmp_path, worse), shapes)
    assert any(worse.complaint in problem for problem in found), found


def test_occupancy_counts_registers_shared_memory_and_threads() -> None:
    def blocks(registers: int, **shape: int) -> int:
        return occupancy(Kernel("k", "80", registers=registers), Shape(**shape))

    assert blocks(128) == 2  # 64 K registers: two blocks of 256 threads
    assert blocks(129) == 1
    assert blocks(32, shared_bytes=40 * 1024) == 4  # 164 KB, 41 KB each
    assert blocks(32, shared_bytes=0) == 8  # 2048 threads


def test_too_few_blocks_and_too_much_shared_memory_are_problems() -> None:
    kernel, rule = Kernel("k", "90a", registers=255), Rule("", 255, (), ())
    assert any("intended" in p for p in problems(kernel, Shape(blocks=2), rule))
    assert any("do not fit" in p for p in problems(kernel, Shape(shared_bytes=240 * 1024), rule))


def test_the_log_of_ptxas_is_read() -> None:
    log = """ptxas info    : Compiling entry function '_Z1kv' for 'sm_90a'
ptxas info    : Function properties for _Z1kv
    24 bytes stack frame, 20 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 168 registers, used 1 barriers, 24 bytes cumulative stack size
"""
    kernel = read_ptxas(log, "90a")["_Z1kv"]
    assert (kernel.name, kernel.registers) == ("k()", 168)
    assert (kernel.stack_bytes, kernel.spill_bytes) == (24, 36)
