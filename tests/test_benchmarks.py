"""The benchmark suite: what it selects, records and compares. Nothing here is about time."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import compare, rivals, shapes
from benchmarks.cases import CASES, select
from benchmarks.ceilings import Ceilings
from benchmarks.runner import Case, Job, Rival, run

LIMITS = Ceilings(float32=2e11, float64=1e11, bfloat16=4e11, copy=4e10)


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("op", CASES)
def test_labels_are_unique(op: str) -> None:
    """They are what one run is compared with another by."""
    keys = [(case.op, case.label, case.dtype) for case in CASES[op]()]
    assert len(keys) == len(set(keys)) > 0


def test_selection() -> None:
    assert len(select([], [], [])) == sum(len(list(cases())) for cases in CASES.values())
    chosen = select(["outer_update", "precondition"], ["64 x 64", "256 x 256"], ["float32"])
    assert [(case.op, case.label) for case in chosen] == [
        ("outer_update_", "64 x 64"),
        ("outer_update_", "256 x 256"),
        ("precondition", "64 x 64"),
        ("precondition", "256 x 256"),
    ]
    assert {case.dtype for case in select(["outer_update"], [], ["bfloat16"])} == {"bfloat16"}
    assert select([], ["no such label"], []) == []


SMALLEST = {
    "outer_update": "64 x 64",
    "outer_update_list": "shapes of the tests",
    "precondition": "64 x 64",
    "precondition_list": "shapes of the tests",
    "eigh": "512 of 4",
    "inverse_root": "1 of 64",
    "kron_matvec": "16 of 64 x 64",
    "kron_matvec_factored": "T = 1",
    "rearranged_matvec": "mn = 256",
    "power_iteration": "256 of 32 x 32",
    "power_iteration_list": "resnet50",
    "optimizer": "1 of 64 x 64",
}


@pytest.mark.parametrize("op", CASES)
def test_every_op_runs_and_is_right(op: str) -> None:
    case = select([op], [SMALLEST[op]], [])[0]
    result = run(case, LIMITS, seconds=0.0, wants=lambda name: "pytorch-optimizer" not in name)
    assert result.error < 1e-5
    assert result.rounds == 3
    assert result.microseconds > 0
    assert result.quartiles[0] <= result.microseconds <= result.quartiles[1]
    assert result.rivals or op == "optimizer"
    for text in (result.op, result.label, result.dtype, *result.rivals):
        assert text in result.line()


def test_rivals_are_left_out_that_are_not_wanted() -> None:
    case = select(["inverse_root"], ["1 of 64"], [])[0]
    assert list(case.build(lambda name: "64" in name).rivals) == ["eigh float64"]


def test_an_average_weighs_its_parts() -> None:
    """A call that does nothing, nine times out of ten, makes the mean step shorter."""
    calls: list[str] = []
    job = Job(
        [lambda i: calls.append(f"refresh {i}"), lambda i: calls.append(f"plain {i}")],
        {},
        lambda: 0.0,
        sets=2,
        weights=(0.1, 0.9),
    )
    run(Case("op", "label", lambda wants: job), LIMITS, seconds=0.0)
    assert calls[:4] == ["refresh 0", "refresh 1", "plain 0", "plain 1"]
    assert calls.count("refresh 0") == calls.count("plain 1")


def test_the_limit_is_the_slower_of_arithmetic_and_memory() -> None:
    assert LIMITS.least_seconds(2e11, 1e11, 4e10) == (2.0, "FMA")
    assert LIMITS.least_seconds(2e11, 0.0, 8e10) == (2.0, "memory")
    assert LIMITS.least_seconds(0.0, 0.0, 2e10, 4e11) == (1.0, "FMA")
    assert Ceilings(0.0, 0.0, 0.0, 4e10).least_seconds(2e11, 0.0, 4e10) == (1.0, "memory")


def test_blocks_are_those_of_the_optimizer() -> None:
    from kronext.optim.blocks import BlockedParameter
    from kronext.optim.options import Options

    layers = shapes.transformer(256, 1)
    members = [BlockedParameter(torch.zeros(shape), Options(block_size=256)) for shape in layers]
    assert shapes.blocks(layers, 256) == [s for member in members for s in member.block_shapes]


def test_rivals_are_found_where_installed() -> None:
    absent = rivals.OptimizerRival("Nothing", "no_such_module", rivals._soap, False, False)
    assert not absent.is_installed()
    assert rivals.OptimizerRival("torch", "torch", rivals._soap, False, False).is_installed()


RESULT: dict[str, Any] = {
    "op": "outer_update_",
    "label": "64 x 64",
    "dtype": "float32",
    "threads": 1,
    "microseconds": 10.0,
    "quartiles": [9.0, 11.0],
    "rivals": {"lerp_": {"ratio": 2.0, "quartiles": [1.9, 2.1]}},
}


def changed(**changes: Any) -> dict[str, Any]:
    return {"results": [{**copy.deepcopy(RESULT), **changes}]}


def ratio(value: float, low: float, high: float) -> dict[str, Any]:
    return {"lerp_": {"ratio": value, "quartiles": [low, high]}}


@pytest.mark.parametrize(
    ("changes", "is_slower"),
    [
        ({}, False),
        ({"rivals": ratio(1.5, 1.4, 1.6)}, True),
        ({"rivals": ratio(1.5, 1.4, 1.95)}, False),  # the ranges overlap
        ({"rivals": ratio(1.92, 1.89, 1.895)}, False),  # less than 5%
        ({"rivals": ratio(3.0, 2.9, 3.1)}, False),  # faster
        ({"microseconds": 30.0, "quartiles": [29.0, 31.0]}, False),  # so is the rival
        ({"rivals": {}, "microseconds": 30.0, "quartiles": [29.0, 31.0]}, True),
        ({"rivals": {}, "microseconds": 30.0, "quartiles": [10.0, 31.0]}, False),
        ({"rivals": ratio(1.5, 1.4, 1.6), "threads": 2}, False),  # another case
        ({"rivals": {**ratio(1.5, 1.4, 1.6), "new": {"ratio": 9.0, "quartiles": [8, 9]}}}, True),
    ],
)
def test_regressions_are_named_beyond_noise(changes: dict[str, Any], is_slower: bool) -> None:
    lines = compare.regressions(changed(), changed(**changes))
    assert bool(lines) == is_slower
    assert all("outer_update_ | 64 x 64 | float32 | 1" in line for line in lines)


def test_all_common_rivals_must_agree() -> None:
    two = {**ratio(2.0, 1.9, 2.1), "other": {"ratio": 5.0, "quartiles": [4.9, 5.1]}}
    one_fell = {**ratio(1.0, 0.9, 1.1), "other": {"ratio": 5.0, "quartiles": [4.9, 5.1]}}
    assert not compare.regressions(changed(rivals=two), changed(rivals=one_fell))


def test_the_command_writes_what_it_can_compare(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.json"
    arguments = ["--op", "inverse_root", "--case", "1 of 64", "--minutes", "0", "--threads", "1"]
    assert command.main([*arguments, "--json", str(path)]) == 0
    record = compare.read(path)
    machine = record["machine"]
    assert {"device", "commit", "torch", "python", "cpu_capability", "ceilings"} <= set(machine)
    assert machine["threads"] == [1]
    assert machine["ceilings"]["1"]["copy"] > 0
    (result,) = record["results"]
    assert (result["op"], result["label"], result["threads"]) == ("inverse_root_", "1 of 64", 1)
    assert set(result["rivals"]) == {"eigh float32", "eigh float64"}
    assert set(result["rivals"]["eigh float32"]) == set(Rival.__dataclass_fields__)
    # Against a run that was a thousand times as fast by every yardstick, there is a regression.
    result["microseconds"] /= 1000
    result["quartiles"] = [0.0, 0.0]
    for rival in result["rivals"].values():
        rival.update(ratio=1000 * rival["ratio"], quartiles=[1e6, 1e6])
    path.write_text(json.dumps(record))
    capsys.readouterr()
    assert command.main([*arguments, "--compare", str(path)]) == 1
    assert "slower than before:\ninverse_root_ | 1 of 64" in capsys.readouterr().out


def test_a_run_that_is_stopped_leaves_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, started = tmp_path / "results.json", []

    def stopped_in_the_third(*arguments: Any, **options: Any) -> Any:
        started.append(arguments)
        if len(started) == 3:
            raise KeyboardInterrupt
        return run(*arguments, **options)

    monkeypatch.setattr(command, "run", stopped_in_the_third)
    arguments = ["--op", "eigh", "--case", "of 4", "of 8", "of 16", "--minutes", "0"]
    with pytest.raises(KeyboardInterrupt):
        command.main([*arguments, "--json", str(path)])
    assert len(compare.read(path)["results"]) == 2


def test_other_formats_and_empty_selections_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"must be of format 2 \(got format=None\)"):
        command.main(["--compare", str(path)])
    assert command.main(["--case", "no such label"]) == 2
    assert "no case has this" in capsys.readouterr().out


def test_listing_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--op", "eigh", "--list"]) == 0
    assert "eigh | 512 of 4 | float32" in capsys.readouterr().out.splitlines()


def test_growth_is_plotted(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks.plots import plot

    cases = select(["outer_update"], ["64 x 64", "128 x 128"], ["float32"])
    results = [run(case, LIMITS, seconds=0.0) for case in cases]
    about = {"device": "a machine", "cpu_capability": "any", "torch": "2", "commit": "none"}
    plot(results, about, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="two sizes or two thread counts"):
        plot(results[:1], about, tmp_path / "none.png")
