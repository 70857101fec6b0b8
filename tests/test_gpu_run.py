"""`make gpu` without a GPU: its plan, its use of time and its report, by a clock that is set."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu
from benchmarks.cases import CASES
from benchmarks.gpu import Execution, Stage


class FakeMachine:
    """Runs commands that are named in `takes`, each for so many seconds, and tells the time."""

    def __init__(self, takes: dict[str, float], statuses: dict[str, int] | None = None) -> None:
        self.takes, self.statuses = takes, statuses or {}
        self.now = 100.0
        self.limits: dict[str, float] = {}
        self.commands: dict[str, list[str]] = {}

    def clock(self) -> float:
        return self.now

    def execute(
        self, command: Sequence[str], environment: Mapping[str, str], limit: float
    ) -> Execution:
        name = command[0]
        self.limits[name] = limit
        self.commands[name] = list(command)
        if name not in self.takes:
            raise FileNotFoundError(name)
        self.now += min(self.takes[name], limit)
        if self.takes[name] > limit:
            return Execution(None, "".join(f"line {k}\n" for k in range(100)))
        return Execution(self.statuses.get(name, 0), f"{name} says\nthis is\nwhat\nit did\n")


def run(machine: FakeMachine, stages: Sequence[Stage], seconds: float) -> dict[str, Any]:
    saved: list[str] = []
    report = gpu.run(
        stages,
        seconds,
        lambda report: saved.append(json.dumps(report)),
        execute=machine.execute,
        clock=machine.clock,
    )
    assert [len(json.loads(text)["stages"]) for text in saved] == [*range(1, len(stages) + 1)]
    assert json.loads(saved[-1]) == json.loads(json.dumps(report))
    return report


def statuses(report: dict[str, Any]) -> list[str]:
    return [stage["status"] for stage in report["stages"]]


def make_stages(*shares: float, **options: Any) -> list[Stage]:
    return [Stage(f"stage {k}", (f"{k}",), share, **options) for k, share in enumerate(shares)]


def test_what_a_stage_leaves_over_is_shared_by_those_after_it() -> None:
    machine = FakeMachine({"0": 10, "1": 10, "2": 40})
    report = run(machine, make_stages(50, 25, 25), 100)
    assert machine.limits == {"0": 50, "1": 45, "2": 80}
    assert statuses(report) == ["passed"] * 3
    assert [stage["seconds"] for stage in report["stages"]] == [10, 10, 40]
    assert gpu.exit_status(report) == 0


def test_a_stage_that_takes_too_long_is_stopped_and_the_rest_goes_on() -> None:
    machine = FakeMachine({"0": 1000, "1": 10})
    report = run(machine, make_stages(30, 30), 60)
    assert statuses(report) == ["timed out", "passed"]
    first = report["stages"][0]
    assert first["seconds"] == first["limit"] == 30
    assert first["tail"].splitlines() == [f"line {k}" for k in range(40, 100)]
    assert gpu.exit_status(report) == 1


def test_a_stage_that_fails_is_reported_and_the_rest_goes_on() -> None:
    machine = FakeMachine({"0": 1, "1": 1}, {"0": 3})
    report = run(machine, make_stages(30, 30), 60)
    assert statuses(report) == ["failed", "passed"]
    assert report["stages"][0]["tail"].startswith("0 says")
    assert report["stages"][1]["tail"] == "this is\nwhat\nit did"
    assert gpu.exit_status(report) == 1


def test_without_what_is_required_nothing_else_runs() -> None:
    machine = FakeMachine({"0": 1, "1": 1}, {"0": 1})
    report = run(machine, make_stages(30, 30, required=True), 60)
    assert statuses(report) == ["failed", "not run"]
    assert list(machine.commands) == ["0"]
    assert gpu.exit_status(report) == 1


def test_a_program_that_is_not_installed_is_no_failure() -> None:
    machine = FakeMachine({"0": 1})
    report = run(machine, make_stages(30, 30), 60)
    assert statuses(report) == ["passed", "absent"]
    assert report["stages"][1]["tail"] == "1 is not installed"
    assert gpu.exit_status(report) == 0


def test_a_stage_for_which_no_time_is_left_does_not_run() -> None:
    """The one before it took long to die."""
    machine = FakeMachine({"0": 5, "1": 1})
    execute = machine.execute

    def slow(*arguments: Any) -> Execution:
        machine.now += 56
        return execute(*arguments)

    machine.execute = slow  # type: ignore[method-assign]
    report = run(machine, make_stages(30, 30), 60)
    assert statuses(report) == ["passed", "not run"]
    assert gpu.exit_status(report) == 1


def test_results_of_a_stage_are_in_the_report_and_old_ones_are_not(tmp_path: Path) -> None:
    written, old = tmp_path / "written.json", tmp_path / "old.json"
    old.write_text('{"from": "an earlier run"}')
    machine = FakeMachine({"0": 60, "1": 60})
    execute = machine.execute

    def writes(command: Sequence[str], *rest: Any) -> Execution:
        if command[0] == "0":
            written.write_text('{"microseconds": 3}')
        return execute(command, *rest)

    machine.execute = writes  # type: ignore[method-assign]
    stages = [
        Stage("device", ("0", "--minutes", "{minutes}"), 100, results=written),
        Stage("late", ("1",), 20, results=old),
    ]
    report = run(machine, stages, 120)
    assert [stage["results"] for stage in report["stages"]] == [{"microseconds": 3}, None]
    assert report["device"] == {"microseconds": 3}
    assert machine.commands["0"] == ["0", "--minutes", "1.000"]
    assert report["stages"][0]["command"] == "0 --minutes 1.000"


def test_the_plan(tmp_path: Path) -> None:
    assert gpu.OPS.keys() == CASES.keys()
    on_gpu, on_cpu = (gpu.stages(device, tmp_path) for device in ("cuda", "cpu"))
    names = [stage.name for stage in on_gpu]
    tools = ["memcheck", "racecheck", "synccheck"]
    assert names[:5] == ["build", "device", "doctor", "graph capture", "tests"]
    assert names[5:8] == tools
    assert [stage.name for stage in on_cpu] == [
        name for name in names if name not in ("graph capture", *tools)
    ]
    assert 500 <= sum(stage.share for stage in on_gpu) <= 560
    root = Path(gpu.__file__).parents[1]
    for stage in on_gpu:
        assert ("cuda" in stage.command) == (stage.name not in ("build", "doctor")), stage.name
        for file in (part for part in stage.command if part.startswith("tests/")):
            assert (root / file).exists()


def test_a_report_is_whole_at_any_time(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    save = gpu.save_to(path)
    save({"stages": [1]})
    with pytest.raises(TypeError):
        save({"stages": [object()]})
    assert json.loads(path.read_text()) == {"stages": [1]}


def test_commands_are_run_and_stopped_with_what_they_started(tmp_path: Path) -> None:
    printed = gpu.execute([sys.executable, "-c", "print('out'); exit(3)"], {}, 20)
    assert printed == Execution(3, "out\n")
    shown = gpu.execute(["sh", "-c", "echo $GPU_RUN"], {"GPU_RUN": "set"}, 20)
    assert shown == Execution(0, "set\n")
    with pytest.raises(FileNotFoundError):
        gpu.execute(["no such program"], {}, 20)
    mark = tmp_path / "mark"
    stopped = gpu.execute(["sh", "-c", f"(sleep 1; touch {mark}) & echo begun; wait"], {}, 0.3)
    assert stopped == Execution(None, "begun\n")
    time.sleep(1.2)
    assert not mark.exists(), "a child went on"


def test_stages_that_there_are_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.json"
    assert gpu.main(["--device", "cpu", "--stages", "memcheck", "--json", str(path)]) == 2
    assert "(got memcheck)" in capsys.readouterr().out
    assert not path.exists()


def test_the_real_thing_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    path = tmp_path / "results.json"
    chosen = ["device", "doctor", "benchmark rearranged_matvec"]
    arguments = ["--device", "cpu", "--minutes", "0.3", "--json", str(path), "--stages", *chosen]
    assert gpu.main(arguments) == 0
    report = json.loads(path.read_text())
    assert [stage["name"] for stage in report["stages"]] == chosen
    assert report["device"]["torch"]
    assert "ok" in report["stages"][1]["tail"]
    results = report["stages"][2]["results"]["results"]
    assert {result["op"] for result in results} == {"rearranged_matvec"}
