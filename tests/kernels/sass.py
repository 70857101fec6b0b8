"""What nvcc makes of a kernel: registers, spills, and its instructions with their loops."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
DISASSEMBLERS = Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cu13" / "bin"

STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
FLAGS = ("-std=c++20", "-O3", "-cubin", "-Xptxas", "-v")
INSTRUCTION = re.compile(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)(.*?);")
BRANCH_TARGET = re.compile(r"0x([0-9a-f]+)\s*$")


@dataclass(frozen=True)
class Instruction:
    address: int
    opcode: str
    operands: str


@dataclass
class Kernel:
    name: str  # demangled
    architecture: str
    registers: int = 0
    stack_bytes: int = 0
    spill_bytes: int = 0
    instructions: list[Instruction] = field(default_factory=list)

    @cached_property
    def opcodes(self) -> Counter[str]:
        return Counter(i.opcode for i in self.instructions)

    def count(self, pattern: str) -> int:
        return sum(n for opcode, n in self.opcodes.items() if re.match(pattern, opcode))

    @cached_property
    def inner_loops(self) -> list[list[Instruction]]:
        """The bodies of loops that hold no other loop: a branch back, and what it jumps over."""
        spans = set()
        for i in self.instructions:
            target = BRANCH_TARGET.search(i.operands) if i.opcode.startswith("BRA") else None
            if target and int(target.group(1), 16) < i.address:
                spans.add((int(target.group(1), 16), i.address))
        inner = [
            (a, b) for a, b in spans
            if not any((c, d) != (a, b) and a <= c and d <= b for c, d in spans)
        ]  # fmt: skip
        return [[i for i in self.instructions if a <= i.address <= b] for a, b in sorted(inner)]


def missing_tools() -> str | None:
    """What `compile_kernels` needs and this machine lacks."""
    if shutil.which("nvcc") is None:
        return "nvcc is not on the path"
    if not (DISASSEMBLERS / "cuobjdump").exists():
        return "the disassemblers are not installed (make kernels-check installs them)"
    return None


def compile_kernels(
    source: Path, architecture: str, folder: Path, include: tuple[Path, ...] = (ROOT,)
) -> list[Kernel]:
    """Compiles for sm_<architecture> into `folder` and reads the kernels back."""
    cubin = folder / f"{source.stem}_{architecture}.cubin"
    target = f"arch=compute_{architecture},code=sm_{architecture}"
    includes = [f"-I{path}" for path in include]
    command = ["nvcc", *FLAGS, *includes, "-gencode", target, "-o", str(cubin), str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(
            f"{source.name} does not compile for sm_{architecture}:\n{result.stderr}"
        )
    kernels = read_ptxas(result.stderr, architecture)
    read_instructions(cubin, kernels)
    return list(kernels.values())


def demangle(text: str) -> str:
    return subprocess.run(
        ["c++filt"], input=text, capture_output=True, text=True, check=True
    ).stdout


def read_ptxas(log: str, architecture: str) -> dict[str, Kernel]:
    kernels: dict[str, Kernel] = {}
    current = None
    for line in log.splitlines():
        if found := re.search(r"Compiling entry function '(\S+)'", line):
            name = demangle(found.group(1)).strip()
            current = kernels[found.group(1)] = Kernel(name, architecture)
        if current is None:
            continue
        if found := re.search(
            r"(\d+) bytes stack.*?(\d+) bytes spill st.*?(\d+) bytes spill", line
        ):
            stack, stores, loads = map(int, found.groups())
            current.stack_bytes = max(current.stack_bytes, stack)
            current.spill_bytes += stores + loads
        if found := re.search(r"Used (\d+) registers", line):
            current.registers = int(found.group(1))
    return kernels


def read_instructions(cubin: Path, kernels: dict[str, Kernel]) -> None:
    environment = {**os.environ, "PATH": f"{DISASSEMBLERS}:{os.environ['PATH']}"}
    command = [str(DISASSEMBLERS / "cuobjdump"), "-sass", str(cubin)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    current = None
    for line in listing.stdout.splitlines():
        if found := re.match(r"\s+Function : (\S+)", line):
            current = kernels[found.group(1)]
        if current and (found := INSTRUCTION.match(line)):
            current.instructions.append(
                Instruction(int(found.group(1), 16), found.group(2), found.group(3))
            )
