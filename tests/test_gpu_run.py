"""`make gpu` on a pretended machine: stages, their time, what is kept."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu import Outcome, Stage

pytestmark = pytest.mark.cpu


class Machine:
    """Runs no command: says how long each took, on a clock of its own, and how it ended."""

    def __init__(self, takes: dict[str, float], fails: Sequence[str] = ()) -> None:
        self.takes, self.fails = takes, fails
        self.now = 100.0
        self.allowed: dict[str, float] = {}

    def execute(self, command: Sequence[str], seconds: float) -> tuple[int | None, str]:
        (name,) = command
        self.allowed[name] = seconds
        took = self.takes.get(name, 0.0)
        self.now += min(took, seconds)
        output = "\n".join(f"{name} {line}" for line in range(100))
        return (None if took > seconds else int(name in self.fails)), output

    def clock(self) -> float:
        return self.now

    def run(self, todo: list[Stage], seconds: float) -> tuple[list[Outcome], list[int]]:
        kept: list[int] = []
        outcomes = gpu.run(
            todo,
            seconds,
            lambda so_far: kept.append(len(so_far)),
            execute=self.execute,
            clock=self.clock,
            which=lambda program: None if program == "missing" else program,
        )
        return outcomes, kept


def stage(name: str, weight: float = 1, program: str = "") -> Stage:
    return Stage(name, lambda seconds: [name], weight, program)


def test_time_that_is_not_needed_goes_to_the_later_stages() -> None:
    machine = Machine({"first": 10.0, "second": 40.0})
    outcomes, kept = machine.run([stage("first"), stage("second", 2), stage("third")], 400.0)
    assert [outcome.status for outcome in outcomes] == ["passed"] * 3
    assert kept == [1, 2, 3], "the record is written after every stage"
    stop = gpu.SECONDS_TO_STOP
    expected = {"first": 100 - stop, "second": 390 * 2 / 3 - stop, "third": 350 - stop}
    assert machine.allowed == pytest.approx(expected)


def test_a_stage_that_fails_or_runs_over_does_not_end_the_run() -> None:
    machine = Machine({"slow": 1e9}, fails=["broken"])
    outcomes, _ = machine.run([stage("slow"), stage("broken"), stage("good")], 300.0)
    assert [outcome.status for outcome in outcomes] == ["stopped", "failed", "passed"]
    assert machine.now <= 100.0 + 300.0
    assert outcomes[0].seconds == pytest.approx(95.0)
    lines = outcomes[1].output.splitlines()
    assert lines[-1] == "broken 99"
    assert len(lines) == gpu.LINES_KEPT


def test_a_program_that_is_missing_is_no_failure_and_takes_no_time() -> None:
    machine = Machine({})
    outcomes, kept = machine.run([stage("sanitizer", 5, "missing"), stage("rest")], 60.0)
    assert [outcome.status for outcome in outcomes] == ["absent", "passed"]
    assert "missing" in outcomes[0].output
    assert machine.allowed == pytest.approx({"rest": 60.0 - gpu.SECONDS_TO_STOP})
    assert kept == [1, 2]


def test_without_time_nothing_is_started() -> None:
    machine = Machine({})
    outcomes, _ = machine.run([stage("first"), stage("second")], gpu.SECONDS_TO_STOP)
    assert [outcome.status for outcome in outcomes] == ["stopped"] * 2
    assert machine.allowed == {}


def test_the_stages_and_their_time_fit_nine_minutes() -> None:
    todo = gpu.stages("cuda", Path("results.json"))
    names = [stage.name for stage in todo]
    assert len(set(names)) == len(names)
    commands = {stage.name: " ".join(stage.command(120.0)) for stage in todo}
    assert "--device cuda --minutes 1.20 --json results.json" in commands["benchmarks"]
    assert "--device cuda" in commands["tests"]
    for tool in ("memcheck", "racecheck", "synccheck"):
        assert f"--tool {tool} --error-exitcode 1" in commands[f"compute-sanitizer {tool}"]
    paths = [word for command in commands.values() for word in command.split() if "tests/" in word]
    assert all((gpu.ROOT / path.removeprefix("--ignore=")).exists() for path in paths)
    slow = Machine(dict.fromkeys(names, 1e9))
    named = [Stage(s.name, lambda _, name=s.name: [name], s.weight) for s in todo]
    slow.run(named, 540.0)
    assert slow.now - 100.0 <= 540.0


def test_a_command_is_stopped_with_what_it_has_printed() -> None:
    script = "import time; print('started', flush=True); time.sleep(60)"
    assert gpu.execute([sys.executable, "-c", script], 3.0) == (None, "started\n")
    assert gpu.execute([sys.executable, "-c", "print(1); raise SystemExit(3)"], 60.0) == (3, "1\n")


def test_the_record_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "gpu.json"
    for number in (1, 2):
        gpu.write(path, {"number": number})
        assert json.loads(path.read_text()) == {"number": number}
    assert list(path.parent.iterdir()) == [path]


def test_a_run_on_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.json"
    arguments = ["--device", "cpu", "--minutes", "2", "--stage", "doctor", "--json", str(path)]
    assert gpu.main(arguments) == 0
    record = json.loads(path.read_text())
    assert [stage["status"] for stage in record["stages"]] == ["passed"]
    assert record["machine"]["device"]
    assert "passed" in capsys.readouterr().out


def test_errors_come_before_any_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--device", "cpu", "--stage", "nothing"]) == 2
    assert "--stage must be of build, doctor" in capsys.readouterr().err
