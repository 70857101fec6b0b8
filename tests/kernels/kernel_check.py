"""Holds what nvcc makes of csrc/cuda against the rules, and writes the table of docs/kernels.md.

`make kernels-check` runs it. It needs nvcc and the disassemblers of the package index, but no GPU.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

from kernel_costs import DEVICES, SIZES, cost
from kernel_rules import ARCHITECTURES, KernelShape, occupancy, problems, rule_for
from sass import ROOT, Kernel, compile_kernels, missing_tools

sys.path.insert(0, str(ROOT / "tests" / "emulator"))
import building

PROCESSES = 2
DOCUMENT = ROOT / "docs" / "kernels.md"
BEGIN, END = "<!-- kernels-check: begin -->", "<!-- kernels-check: end -->"
Checked = dict[tuple[str, str], tuple[Kernel, KernelShape]]  # by kernel name and architecture


def load_emulator() -> ModuleType:
    building.configure()
    return building.load_module()


def find_shape(kernel: Kernel, shapes: list[KernelShape]) -> KernelShape:
    squeezed = kernel.name.replace(" ", "")
    matches = [s for s in shapes if f"<{s.tile.replace(' ', '')}>" in squeezed]
    if len(matches) != 1:
        raise RuntimeError(f"{kernel.name} is in no table of kernels")
    return matches[0]


def compile_all(shapes: list[KernelShape]) -> Checked:
    sources = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
    jobs = [(source, architecture) for source in sources for architecture in ARCHITECTURES]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(PROCESSES) as pool:
        results = pool.map(lambda job: compile_kernels(*job, Path(folder)), jobs)
        kernels = [kernel for result in results for kernel in result]
    pairs = [(kernel, find_shape(kernel, shapes)) for kernel in kernels]
    return {(shape.name, kernel.architecture): (kernel, shape) for kernel, shape in pairs}


def row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def separator(columns: int) -> str:
    return row(*["---"] * columns)


def build_table(checked: Checked, shapes: list[KernelShape]) -> list[str]:
    """One line a kernel; four numbers are those of the four architectures."""
    lines = [
        row("kernel of outer_update", "threads", "shared KB", "registers", "spill bytes", "blocks"),
        separator(6),
    ]
    for shape in shapes:
        kernels = [checked[shape.name, a][0] for a in ARCHITECTURES]
        spills = " / ".join(str(k.spill_bytes) for k in kernels)
        reason = rule_for(shape).reason
        lines.append(
            row(
                shape.name,
                shape.threads,
                f"{shape.shared_bytes / 1024:.0f}",
                " / ".join(str(k.registers) for k in kernels),
                f"{spills} ({reason})" if any(k.spill_bytes for k in kernels) else 0,
                " / ".join(str(occupancy(k, shape)) for k in kernels),
            )
        )
    return lines


def cost_table(shapes: list[KernelShape]) -> list[str]:
    headings = ["kernel", "list", "read MB", "written MB", "Gflop"]
    lines = [row(*headings, *(f"{d.name} us" for d in DEVICES)), separator(5 + len(DEVICES))]
    for size, count, m, n in SIZES:
        for shape in shapes:
            if shape.name.endswith("large") == (m == 64):
                continue
            c = cost(shape, count, m, n)
            times = [c.seconds(d, shape.name == "float64") * 1e6 for d in DEVICES]
            numbers = (c.read_bytes / 1e6, c.written_bytes / 1e6, c.operations / 1e9)
            cells = [f"{number:.1f}" for number in (*numbers, *times)]
            lines.append(row(shape.name, size, *cells))
    return lines


def write_document(checked: Checked, shapes: list[KernelShape]) -> None:
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout
    release = version.split("release ")[1].split(",")[0]
    lines = [
        BEGIN,
        f"Written by `make kernels-check` with nvcc {release}. Numbers in fours are those of "
        + ", ".join(f"sm_{a}" for a in ARCHITECTURES)
        + "; blocks are those that fit a multiprocessor.",
        "",
        *build_table(checked, shapes),
        "",
        "### Expected, not measured",
        "",
        "The larger of bytes over peak bandwidth and operations over peak rate, from the vendors' "
        "data sheets. No kernel here has run on a GPU; a real time is longer.",
        "",
        *cost_table(shapes),
        END,
    ]
    text = DOCUMENT.read_text()
    head, rest = text.split(BEGIN)
    DOCUMENT.write_text(head + "\n".join(lines) + rest.split(END)[1])


def main() -> int:
    if missing := missing_tools():
        print(f"kernels-check: {missing}")
        return 2
    shapes: list[KernelShape] = load_emulator().outer_kernels()
    checked = compile_all(shapes)
    failures = 0
    for (name, architecture), (kernel, shape) in checked.items():
        found = problems(kernel, shape)
        failures += bool(found)
        print(f"sm_{architecture:<4} {name:<24} {kernel.registers:>3} registers  "
              f"{'; '.join(found) or 'ok'}")  # fmt: skip
    if len(checked) != len(shapes) * len(ARCHITECTURES):
        print(f"kernels-check: {len(checked)} kernels of {len(shapes) * len(ARCHITECTURES)}")
        return 1
    if not failures:
        write_document(checked, shapes)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
