"""Holds what nvcc makes of csrc/cuda against the rules, and writes the table of docs/kernels.md.

`make kernels-check` runs it. It needs nvcc and the disassemblers of the package index, but no GPU.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kernel_costs import DEVICES, Cost
from kernel_rules import ARCHITECTURES, KernelShape, Rule, occupancy, problems
from sass import ROOT, Kernel, compile_kernels, missing_tools

sys.path.insert(0, str(ROOT / "tests" / "emulator"))
import building

PROCESSES = 2
DOCUMENT = ROOT / "docs" / "kernels.md"
BEGIN, END = "<!-- kernels-check: begin -->", "<!-- kernels-check: end -->"
OPS = [
    importlib.import_module(path.stem) for path in sorted(Path(__file__).parent.glob("rules_*.py"))
]


@dataclass(frozen=True)
class Checked:
    """A kernel for one architecture, how it is launched, and what it must be like."""

    kernel: Kernel
    shape: KernelShape
    rule: Rule

    def problems(self) -> list[str]:
        return problems(self.kernel, self.shape, self.rule)


def load_shapes() -> list[KernelShape]:
    building.configure()
    shapes: list[KernelShape] = building.load_module().kernels()
    return shapes


def rule_for(shape: KernelShape) -> Rule:
    (rules,) = [op.RULES for op in OPS if shape.op == op.OP]
    rule: Rule = next(rule for rule in rules if re.match(rule.name, shape.name))
    return rule


def find_shape(kernel: Kernel, shapes: list[KernelShape]) -> KernelShape:
    squeezed = kernel.name.replace(" ", "")
    matches = [s for s in shapes if s.symbol.replace(" ", "") in squeezed]
    if len(matches) != 1:
        raise RuntimeError(f"{kernel.name} is in {len(matches)} tables of kernels")
    return matches[0]


def compile_all(
    shapes: list[KernelShape], architectures: Sequence[str] = ARCHITECTURES
) -> list[Checked]:
    sources = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
    jobs = [(source, architecture) for source in sources for architecture in architectures]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(PROCESSES) as pool:
        results = pool.map(lambda job: compile_kernels(*job, Path(folder)), jobs)
        kernels = [kernel for result in results for kernel in result]
    pairs = [(kernel, find_shape(kernel, shapes)) for kernel in kernels]
    pairs.sort(key=lambda pair: shapes.index(pair[1]))
    checked = [Checked(kernel, shape, rule_for(shape)) for kernel, shape in pairs]
    expected = len(shapes) * len(architectures)
    if len(checked) != expected:
        raise RuntimeError(f"{len(checked)} kernels were compiled, {expected} are launched")
    return checked


def row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def separator(columns: int) -> str:
    return row(*["---"] * columns)


def machine_code_table(checked: list[Checked]) -> list[str]:
    """One line a kernel; four numbers are those of the four architectures."""
    headings = ["kernel", "threads", "shared KB", "registers", "spill bytes", "blocks"]
    lines = [row(*headings), separator(len(headings))]
    for name in dict.fromkeys(c.shape.name for c in checked):
        same = {c.kernel.architecture: c for c in checked if c.shape.name == name}
        each = [same[architecture] for architecture in ARCHITECTURES]
        shape, reason = each[0].shape, each[0].rule.reason
        spills = " / ".join(str(c.kernel.spill_bytes) for c in each)
        lines.append(
            row(
                name,
                shape.threads,
                f"{shape.shared_bytes / 1024:.0f}",
                " / ".join(str(c.kernel.registers) for c in each),
                f"{spills} ({reason})" if any(c.kernel.spill_bytes for c in each) else 0,
                " / ".join(str(occupancy(c.kernel, c.shape)) for c in each),
            )
        )
    return lines


def cost_table(costs: Iterable[tuple[str, str, Cost]]) -> list[str]:
    headings = ["kernel", "input", "read MB", "written MB", "Gflop"]
    headings += [f"{device.name} us" for device in DEVICES]
    lines = [row(*headings), separator(len(headings))]
    for name, size, cost in costs:
        times = [cost.seconds(device) * 1e6 for device in DEVICES]
        numbers = (cost.read_bytes / 1e6, cost.written_bytes / 1e6, cost.operations / 1e9)
        lines.append(row(name, size, *(f"{number:.1f}" for number in (*numbers, *times))))
    return lines


def write_document(checked: list[Checked], shapes: list[KernelShape]) -> None:
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout
    release = version.split("release ")[1].split(",")[0]
    lines = [
        BEGIN,
        "## Registers, shared memory, occupancy",
        "",
        f"Written by `make kernels-check` with nvcc {release}. Numbers in fours are those of "
        + ", ".join(f"sm_{a}" for a in ARCHITECTURES)
        + "; blocks are those that fit a multiprocessor.",
    ]
    for op in OPS:
        mine = [c for c in checked if c.shape.op == op.OP]
        lines += ["", f"### {op.TITLE}", "", *machine_code_table(mine)]
    lines += [
        "",
        "## Expected, not measured",
        "",
        "The larger of bytes over peak bandwidth and operations over peak rate, from the vendors' "
        "data sheets. No kernel here has run on a GPU; a real time is longer.",
    ]
    for op in OPS:
        costs = op.costs([shape for shape in shapes if shape.op == op.OP])
        lines += ["", f"### {op.TITLE}", "", *cost_table(costs)]
    head, rest = DOCUMENT.read_text().split(BEGIN)
    DOCUMENT.write_text(head + "\n".join([*lines, END]) + rest.split(END)[1])


def main() -> int:
    if missing := missing_tools():
        print(f"kernels-check: {missing}")
        return 2
    shapes = load_shapes()
    checked = compile_all(shapes)
    failures = 0
    for c in checked:
        found = c.problems()
        failures += bool(found)
        print(f"sm_{c.kernel.architecture:<4} {c.shape.op:<16} {c.shape.name:<24} "
              f"{c.kernel.registers:>3} registers  {'; '.join(found) or 'ok'}")  # fmt: skip
    if not failures:
        write_document(checked, shapes)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
