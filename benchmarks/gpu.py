"""`make gpu`: what a machine with a GPU can tell, in nine minutes and one JSON file.

Builds, asks the doctor, captures graphs, runs the tests on the GPU and some of them under
compute-sanitizer, and times every op. A stage may take its share of the time that is left when it
begins, so what one leaves over is shared by those after it; one that takes longer is stopped. The
file is written after every stage: whatever happens, what was learned so far is in it.

The exit status is 1 where a stage failed, was stopped or did not get its turn; one whose program is
not installed is recorded as absent and is no failure.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# Shares of the ops, known before anything is built; `benchmarks.cases.CASES` has the same names.
OPS = {
    "outer_update": 8, "outer_update_list": 8, "precondition": 8, "precondition_list": 8,
    "eigh": 25, "inverse_root": 25, "kron_matvec": 8, "kron_matvec_factored": 8,
    "rearranged_matvec": 8, "power_iteration": 8, "power_iteration_list": 8, "optimizer": 20,
}  # fmt: skip
PASSED, FAILED, STOPPED, ABSENT, NOT_RUN = "passed", "failed", "timed out", "absent", "not run"
LEAST_SECONDS = 1.0
TAIL = {PASSED: 3, FAILED: 60, STOPPED: 60}  # lines of output that are kept


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        name: what the report calls it.
        command: program and arguments; "{minutes}" stands for the time it should take.
        share: its part of the time, in seconds of nine minutes.
        environment: variables that it sees besides the usual ones.
        results: a JSON file that it writes.
        required: whether the others make no sense without it.
    """

    name: str
    command: tuple[str, ...]
    share: float
    environment: Mapping[str, str] = field(default_factory=dict)
    results: Path | None = None
    required: bool = False


@dataclass(frozen=True)
class Execution:
    """How a command ended: its exit status, None where it was stopped, and all it printed."""

    status: int | None
    output: str


@dataclass(frozen=True)
class Outcome:
    """What the report says of a stage."""

    name: str
    status: str
    command: str = ""
    seconds: float = 0.0
    limit: float = 0.0
    tail: str = ""
    results: Any = None


Execute = Callable[[Sequence[str], Mapping[str, str], float], Execution]


def stages(device: str, folder: Path) -> list[Stage]:
    """Return what there is to do, in order; on the CPU without what takes a GPU."""
    python = sys.executable
    pytest = (python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--device", device)
    one_call_of_each_op = (*pytest, "tests/ops/test_accelerator.py", "-k", "does_not_wait")
    install = ("-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "-e", ".")
    # All architectures would take all of the time.
    chosen = os.environ.get("KRONEXT_CUDA_ARCHITECTURES", "native")
    architectures = {"KRONEXT_CUDA_ARCHITECTURES": chosen}
    about = folder / "device.json"
    describe = (python, "-m", "benchmarks.device", "--device", device, "--json", str(about))
    found = [
        Stage("build", (python, *install), 140, architectures, required=True),
        Stage("device", describe, 10, results=about, required=True),
        Stage("doctor", (python, "-m", "kronext", "doctor"), 15),
    ]
    if device != "cpu":
        graphs = ("tests/ops/test_accelerator.py", "tests/optim/test_graph_capture.py")
        found.append(Stage("graph capture", (*pytest, *graphs), 35))
    found.append(Stage("tests", (*pytest, "--maxfail=30", "--numprocesses=4"), 110))
    if device != "cpu":
        for tool in ("memcheck", "racecheck", "synccheck"):
            # Kernels of torch and its libraries are not ours to check.
            sanitizer = ("compute-sanitizer", "--tool", tool, "--error-exitcode", "86")
            ours = ("--kernel-name", "kernel_substring=kronext")
            # Behind torch's cache every access within it would look right.
            plain = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"} if tool == "memcheck" else {}
            found.append(Stage(tool, (*sanitizer, *ours, *one_call_of_each_op), 30, plain))
    for op, share in OPS.items():
        results = folder / f"{op}.json"
        timing = (python, "-m", "benchmarks", "--device", device, "--op", op)
        command = (*timing, "--minutes", "{minutes}", "--json", str(results))
        found.append(Stage(f"benchmark {op}", command, share, results=results))
    return found


def run(
    chosen: Sequence[Stage],
    seconds: float,
    save: Callable[[dict[str, Any]], None],
    *,
    execute: Execute,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Runs the stages within `seconds`; returns the report, which is saved after each of them."""
    outcomes: list[Outcome] = []
    report: dict[str, Any] = {"device": None, "stages": []}
    deadline = clock() + seconds
    goes_on = True
    for place, stage in enumerate(chosen):
        left = deadline - clock()
        limit = left * stage.share / sum(other.share for other in chosen[place:])
        if goes_on and limit >= LEAST_SECONDS:
            outcome = _run_stage(stage, limit, execute, clock)
        else:
            outcome = Outcome(stage.name, NOT_RUN)
        goes_on = goes_on and (outcome.status == PASSED or not stage.required)
        outcomes.append(outcome)
        if stage.name == "device":
            report["device"] = outcome.results
        report["stages"] = [asdict(o) for o in outcomes]
        save(report)
        print(_line(outcome), flush=True)
    return report


def _run_stage(stage: Stage, limit: float, execute: Execute, clock: Callable[[], float]) -> Outcome:
    # Loading torch and building inputs take their time too.
    minutes = f"{0.6 * limit / 60:.3f}"
    command = [part.replace("{minutes}", minutes) for part in stage.command]
    if stage.results:
        stage.results.unlink(missing_ok=True)
    started = clock()
    try:
        execution = execute(command, stage.environment, limit)
    except FileNotFoundError:
        missing = f"{command[0]} is not installed"
        return Outcome(stage.name, ABSENT, shlex.join(command), limit=limit, tail=missing)
    status = {0: PASSED, None: STOPPED}.get(execution.status, FAILED)
    tail = "\n".join(execution.output.splitlines()[-TAIL[status] :])
    took, results = clock() - started, _read(stage.results)
    return Outcome(stage.name, status, shlex.join(command), took, limit, tail, results)


def _read(path: Path | None) -> Any:
    """What a stage wrote, nothing where it was stopped before."""
    if path is None or not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError:
        return None


def _line(outcome: Outcome) -> str:
    time_taken = f"{outcome.seconds:6.1f} s of {outcome.limit:5.1f}" if outcome.seconds else ""
    line = f"{outcome.name:<32} {outcome.status:<10} {time_taken}".rstrip()
    return f"{line}\n{outcome.tail}" if outcome.status in (FAILED, STOPPED) else line


def exit_status(report: dict[str, Any]) -> int:
    """0 where every stage passed, or needs a program that is not installed."""
    return int(any(stage["status"] not in (PASSED, ABSENT) for stage in report["stages"]))


# ---- the real world ------------------------------------------------------------------------------


def execute(command: Sequence[str], environment: Mapping[str, str], limit: float) -> Execution:
    """Runs a command, and stops it with all that it started when its time is over."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        return Execution(status, output.read().decode(errors="replace"))


def save_to(path: Path) -> Callable[[dict[str, Any]], None]:
    """Return what writes a report to `path`, where there is a whole one at any time."""

    def save(report: dict[str, Any]) -> None:
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(report, indent=1) + "\n")
        unfinished.replace(path)

    return save


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the chosen stages; returns the exit status."""
    options = _parser().parse_args(arguments)
    path: Path = options.json.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    known = stages(options.device, path.parent)
    names = [stage.name for stage in known]
    if unknown := set(options.stages) - set(names):
        print(f"gpu: stages must be among {', '.join(names)} (got {', '.join(sorted(unknown))})")
        return 2
    chosen = [stage for stage in known if not options.stages or stage.name in options.stages]
    report = run(chosen, 60 * options.minutes, save_to(path), execute=execute)
    print(f"wrote {path}")
    return exit_status(report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--device", default="cuda", choices=("cuda", "cpu"), help="cpu tries it without a GPU")
    add("--minutes", type=float, default=8.8, help="time for everything (default: 8.8)")
    add("--stages", nargs="+", default=[], metavar="STAGE", help="only these")
    add("--json", type=Path, default=ROOT / "gpu-output" / "results.json", help="the report")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
