"""What the machine code of each kernel must look like, and what it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sass import Kernel

ARCHITECTURES = ("80", "90a", "100", "120")


@dataclass(frozen=True)
class Multiprocessor:
    """Limits of one multiprocessor (CUDA programming guide, compute capabilities)."""

    shared_bytes: int
    threads: int
    registers: int = 65536
    reserved_shared_bytes: int = 1024  # of each block


MULTIPROCESSORS = {
    "80": Multiprocessor(shared_bytes=164 * 1024, threads=2048),
    "90a": Multiprocessor(shared_bytes=228 * 1024, threads=2048),
    "100": Multiprocessor(shared_bytes=228 * 1024, threads=2048),
    "120": Multiprocessor(shared_bytes=100 * 1024, threads=1536),
}
WARP_REGISTERS = 256  # registers are given to a warp in such pieces


class KernelShape(Protocol):
    """How a kernel is launched; the emulator's module knows (`kernels`)."""

    op: str
    name: str
    symbol: str  # part of its demangled name
    threads: int
    shared_bytes: int
    blocks: int  # on a multiprocessor
    sizes: dict[str, int]  # what the op's costs are counted from


@dataclass(frozen=True)
class Rule:
    name: str  # regular expression over KernelShape.name
    registers: int
    required: tuple[str, ...]
    forbidden: tuple[str, ...]
    spill_bytes: int = 0
    reason: str = ""  # for spills, which are never allowed in an inner loop


DOUBLE_ARITHMETIC = ("D(ADD|MUL|FMA|SETP|MNMX)", "F2F.*F64", "I2F.*F64", "F2I.*F64")
TENSOR_CORES = (
    "LDSM.16.M88.4",
    "LDSM.16.MT88.4",
    r"LDGSTS.*\.128",
    r"LDG.*\.128",
    r"STG.*\.128",
)


def blocks_by_shared_memory(shape: KernelShape, architecture: str) -> int:
    limits = MULTIPROCESSORS[architecture]
    return limits.shared_bytes // (shape.shared_bytes + limits.reserved_shared_bytes)


def occupancy(kernel: Kernel, shape: KernelShape) -> int:
    """Blocks of the kernel that fit a multiprocessor."""
    limits = MULTIPROCESSORS[kernel.architecture]
    of_warp = -(-kernel.registers * 32 // WARP_REGISTERS) * WARP_REGISTERS
    by_registers = limits.registers // of_warp // (shape.threads // 32)
    by_shared = blocks_by_shared_memory(shape, kernel.architecture)
    return min(by_registers, by_shared, limits.threads // shape.threads)


def problems(kernel: Kernel, shape: KernelShape, rule: Rule) -> list[str]:
    """What is wrong with the kernel; nothing, if all is as the rule wants it."""
    found = []
    if kernel.registers > rule.registers:
        found.append(f"{kernel.registers} registers, at most {rule.registers}")
    if kernel.spill_bytes > rule.spill_bytes:
        found.append(f"{kernel.spill_bytes} bytes of spills, at most {rule.spill_bytes}")
    if kernel.stack_bytes > rule.spill_bytes:
        found.append(f"{kernel.stack_bytes} bytes of stack: an array lies in local memory")
    for loop in kernel.inner_loops:
        local = sum(i.opcode.startswith(("LDL", "STL")) for i in loop)
        if local:
            found.append(f"{local} accesses to local memory in the loop at {loop[0].address:#x}")
    intended = min(shape.blocks, blocks_by_shared_memory(shape, kernel.architecture))
    if intended < 1:
        found.append(f"{shape.shared_bytes} bytes of shared memory do not fit")
    if occupancy(kernel, shape) < intended:
        found.append(f"{occupancy(kernel, shape)} blocks on a multiprocessor, {intended} intended")
    found += [f"no {opcode}" for opcode in rule.required if not kernel.count(opcode)]
    found += [f"has {opcode}" for opcode in rule.forbidden if kernel.count(opcode)]
    return found
