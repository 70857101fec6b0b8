"""`make gpu`: all that waits for a GPU, in one run of nine minutes: does it work, is it fast?

Stages run one after another: build, doctor, a CUDA graph of an optimizer step, the tests, NVIDIA's
compute-sanitizer on every op, and the benchmarks against torch and the rivals that are installed.
Each may take its share of the time that is left; what one does not need goes to the later ones. The
record is written after every stage, so a run that is cut off keeps what it has.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LINES_KEPT = 40  # of the output of a stage
SECONDS_TO_STOP = 5.0  # what a stage may take beyond its time, for its processes to end

# Runs a command for so many seconds at most: exit status, None where it was stopped, and output.
Execute = Callable[[Sequence[str], float], tuple["int | None", str]]


@dataclass(frozen=True)
class Stage:
    """A command with its part of the time.

    Attributes:
        name: what the record calls it.
        command: the command, for the seconds that it may take.
        weight: its share of the time left is this over the sum of its own and the later weights.
        program: what must be on the path; the stage is absent without it.
    """

    name: str
    command: Callable[[float], list[str]]
    weight: float
    program: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: passed, failed, stopped (out of time) or absent (no such program)."""

    name: str
    status: str
    seconds: float = 0.0
    allowed: float = 0.0
    output: str = ""


def stages(device: str, benchmarks: Path) -> list[Stage]:
    """The stages on a device; the benchmarks leave their results in a file of their own."""

    def pytest(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "pytest", "-q", "--device", device, *arguments]

    def always(*command: str) -> Callable[[float], list[str]]:
        return lambda seconds: list(command)

    def timed(seconds: float) -> list[str]:
        # What is left pays for the start, the making of inputs and rounds that run over.
        minutes = f"{0.6 * seconds / 60:.2f}"
        return [
            *(sys.executable, "-m", "benchmarks", "--device", device),
            *("--minutes", minutes, "--json", str(benchmarks)),
        ]

    capture = "tests/optim/test_graph_capture.py"
    rooms = ["tests/ops", "tests/optim", "tests/curvature"]
    every_op = pytest("tests/ops/test_accelerator.py")
    return [
        Stage("build", always("make", "build"), 8, "make"),
        Stage("doctor", always(sys.executable, "-m", "kronext", "doctor"), 1),
        Stage("graph of an optimizer step", always(*pytest(capture)), 2),
        Stage("tests", always(*pytest(*rooms, f"--ignore={capture}")), 12),
        *(
            Stage(
                f"compute-sanitizer {tool}",
                always("compute-sanitizer", "--tool", tool, "--error-exitcode", "1", *every_op),
                2,
                "compute-sanitizer",
            )
            for tool in ("memcheck", "racecheck", "synccheck")
        ),
        Stage("benchmarks", timed, 10),
    ]


def execute(command: Sequence[str], seconds: float) -> tuple[int | None, str]:
    """Runs a command in a process group of its own, which ends when its time is over."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        status: int | None
        try:
            status = process.wait(seconds)
        except BaseException as reason:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if not isinstance(reason, subprocess.TimeoutExpired):
                raise
            status = None
        output.seek(0)
        return status, output.read()


def run(
    todo: Sequence[Stage],
    seconds: float,
    keep: Callable[[list[Outcome]], None],
    *,
    execute: Execute = execute,
    clock: Callable[[], float] = time.monotonic,
    which: Callable[[str], str | None] = shutil.which,
) -> list[Outcome]:
    """Runs the stages within `seconds`; `keep` gets the outcomes so far after each."""
    deadline = clock() + seconds
    outcomes: list[Outcome] = []
    for place, stage in enumerate(todo):
        if stage.program and not which(stage.program):
            outcomes.append(Outcome(stage.name, "absent", output=f"no {stage.program} on the path"))
            keep(outcomes)
            continue
        start = clock()
        share = stage.weight / sum(later.weight for later in todo[place:])
        allowed = max(0.0, share * (deadline - start) - SECONDS_TO_STOP)
        status, output = execute(stage.command(allowed), allowed) if allowed else (None, "")
        word = "stopped" if status is None else "failed" if status else "passed"
        tail = "\n".join(output.splitlines()[-LINES_KEPT:])
        outcomes.append(Outcome(stage.name, word, clock() - start, allowed, tail))
        keep(outcomes)
    return outcomes


def write(path: Path, record: dict[str, Any]) -> None:
    """Replaces the file at once: whoever reads it finds the old record or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(record, indent=1) + "\n")
    beside.replace(path)


def about(device: str) -> dict[str, Any]:
    """The device and what runs on it."""
    import torch

    from benchmarks.runner import machine

    torch.set_default_device(device)
    found = machine()
    if device != "cpu":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "compute_capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "torch_cuda": torch.version.cuda,
            "driver": _driver(),
        }
    return found


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    if not shutil.which(query[0]):
        return "unknown"
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all stages; 1 where one failed or was stopped, 2 where there is no such device."""
    options = _parser().parse_args(arguments)
    import torch

    if options.device != "cpu" and not torch.cuda.is_available():
        print(f"make gpu: torch must find a GPU (got device={options.device})", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "benchmarks.json"
        todo = stages(options.device, results)
        chosen = [stage for stage in todo if not options.stage or stage.name in options.stage]
        if not chosen:
            names = ", ".join(stage.name for stage in todo)
            print(f"make gpu: --stage must be of {names} (got {options.stage})", file=sys.stderr)
            return 2

        def keep(outcomes: list[Outcome]) -> None:
            last = outcomes[-1]
            print(f"{last.name:<28} {last.status:<8} {last.seconds:6.1f} s", flush=True)
            if last.status != "passed":
                print(last.output, flush=True)
            record: dict[str, Any] = {"format": 1, "machine": about(options.device)}
            record["stages"] = [asdict(outcome) for outcome in outcomes]
            if results.exists():
                record["benchmarks"] = json.loads(results.read_text())
            write(options.json, record)

        outcomes = run(chosen, 60 * options.minutes, keep)
    print(f"wrote {options.json}")
    return int(any(outcome.status in ("failed", "stopped") for outcome in outcomes))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--device", default="cuda", help="cuda; cpu tries the stages where there is no GPU")
    add("--minutes", type=float, default=9.0, help="time for everything")
    add("--stage", nargs="+", default=[], help="only these stages, by their names")
    add("--json", type=Path, default=ROOT / "bench-output" / "gpu.json", help="the record")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
