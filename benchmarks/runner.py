"""Timing that a noisy machine cannot fool: contestants take turns, medians of ratios are kept."""

from __future__ import annotations

import platform
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.ceilings import Ceilings
from benchmarks.clock import clock, wait_for_device
from kronext import build_info

Call = Callable[[int], object]


@dataclass(frozen=True)
class Job:
    """What a case does, ready to run.

    A contestant is a call that does the job on input set number `i`; the `sets` are walked through
    in turn, so that caches are as a training step leaves them. Where a job is an average of several
    (a step that refreshes roots and those that do not) it is one call for each of the `weights`.

    Attributes:
        ours: our calls, one for each weight.
        rivals: calls of others that do the same.
        error: relative error of our result against float64.
        flops: operations that the job needs at least, in float32.
        wide_flops: those that it needs in float64.
        bfloat16_flops: those that it needs between bfloat16 numbers.
        moved: bytes that it reads and writes at least.
        rival_errors: the errors of rivals, where they are asked for the same.
        sets: how many input sets there are.
        weights: the parts of the average.
    """

    ours: Sequence[Call]
    rivals: Mapping[str, Sequence[Call]]
    error: Callable[[], float]
    flops: float = 0.0
    wide_flops: float = 0.0
    bfloat16_flops: float = 0.0
    moved: float = 0.0
    rival_errors: Mapping[str, Callable[[], float]] = field(default_factory=dict)
    sets: int = 1
    weights: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class Growth:
    """A place in a plot of how cost grows.

    Attributes:
        family: what is kept.
        variable: what is varied.
        value: its value.
        count: how many problems the case holds; the plot shows the time of one.
    """

    family: str
    variable: str
    value: int
    count: int = 1


@dataclass(frozen=True)
class Case:
    """One line of the suite, with no tensor before it is its turn.

    Attributes:
        op: what is timed.
        label: the sizes, as the report shows them.
        build: makes the job; takes a filter that says which rivals are wanted.
        dtype: of the input.
        growth: its place in a plot, for some.
    """

    op: str
    label: str
    build: Callable[[Callable[[str], bool]], Job]
    dtype: str = "float32"
    growth: Growth | None = None


@dataclass(frozen=True)
class Rival:
    """A rival's time over ours: median, quartiles, and its own median time and error."""

    ratio: float
    quartiles: tuple[float, float]
    microseconds: float
    error: float | None


@dataclass(frozen=True)
class Result:
    """Medians of one case.

    Attributes:
        clock: which of Python's clocks was read, see `clock`.
        quartiles: of our time, in microseconds.
        limit: what bounds it, "FMA" or "memory".
        part_of_limit: the least time that the machine's ceilings allow, over ours. Data that stay
            in caches can beat the ceiling of memory.
    """

    op: str
    label: str
    dtype: str
    threads: int
    clock: str
    growth: Growth | None
    microseconds: float
    quartiles: tuple[float, float]
    gigaflops: float
    gigabytes: float
    limit: str
    part_of_limit: float
    error: float
    rounds: int
    rivals: dict[str, Rival]

    def line(self) -> str:
        """The case on one line of a report."""
        ratios = "".join(f" | {rival.ratio:5.2f}x {name}" for name, rival in self.rivals.items())
        return (
            f"{self.op:<20} | {self.label:<34} | {self.dtype:<8} | {self.microseconds:>10.1f} us | "
            f"{self.gigaflops:>6.1f} GFLOP/s | {self.gigabytes:>5.1f} GB/s | "
            f"{self.part_of_limit:>4.0%} of {self.limit:<6} | error {self.error:.1e}{ratios}"
        )


def run(
    case: Case,
    ceilings: Ceilings,
    *,
    seconds: float = 1.0,
    wants: Callable[[str], bool] = lambda rival: True,
) -> Result:
    """Times a case for about `seconds`, contestants interleaved, three rounds at least."""
    job = case.build(wants)
    contestants = {"ours": job.ours, **job.rivals}
    slowest = max(_warm_up(calls, job) for calls in contestants.values())
    # Calls of a microsecond are timed in runs long enough for the clock, and for a device's queue.
    repeats = max(1, int(2e-4 / max(slowest, 1e-9)))
    round_seconds = len(contestants) * slowest * repeats
    rounds = max(3, min(200, int(seconds / max(round_seconds, 1e-7))))
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, calls in contestants.items():
            times[name].append(_average(calls, job, repeats))
    return _result(case, job, ceilings, times)


def _warm_up(calls: Sequence[Call], job: Job) -> float:
    """Seconds of one round, timed on the second: the first compiles, allocates, fills caches."""
    _average(calls, job, 1)
    return _average(calls, job, 1) * job.sets * len(calls)


def _average(calls: Sequence[Call], job: Job, repeats: int) -> float:
    """Seconds of the job, over all sets and weighed over all calls."""
    parts = [
        weight * _time(call, job.sets, repeats)
        for call, weight in zip(calls, job.weights, strict=True)
    ]
    return sum(parts)


def _time(call: Call, sets: int, repeats: int) -> float:
    now = clock()
    started = now()
    for _ in range(repeats):
        for index in range(sets):
            call(index)
    wait_for_device()
    return (now() - started) / (repeats * sets)


def _result(case: Case, job: Job, ceilings: Ceilings, times: dict[str, list[float]]) -> Result:
    mine = statistics.median(times["ours"])
    least, limit = ceilings.least_seconds(job.flops, job.wide_flops, job.moved, job.bfloat16_flops)
    rivals = {}
    for name in job.rivals:
        ratios = [rival / ours for rival, ours in zip(times[name], times["ours"], strict=True)]
        rivals[name] = Rival(
            statistics.median(ratios),
            _quartiles(ratios),
            1e6 * statistics.median(times[name]),
            job.rival_errors[name]() if name in job.rival_errors else None,
        )
    return Result(
        op=case.op,
        label=case.label,
        dtype=case.dtype,
        threads=torch.get_num_threads(),
        clock=clock().__name__,
        growth=case.growth,
        microseconds=1e6 * mine,
        quartiles=_quartiles([1e6 * seconds for seconds in times["ours"]]),
        gigaflops=(job.flops + job.wide_flops + job.bfloat16_flops) / mine / 1e9,
        gigabytes=job.moved / mine / 1e9,
        limit=limit,
        part_of_limit=least / mine,
        error=job.error(),
        rounds=len(times["ours"]),
        rivals=rivals,
    )


def _quartiles(values: list[float]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def machine() -> dict[str, Any]:
    """What a result depends on besides the code: device, threads, versions, commit."""
    on_cuda = torch.get_default_device().type == "cuda"
    return {
        "device": torch.cuda.get_device_name() if on_cuda else _processor(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "commit": _commit(),
        **build_info(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "unknown"
    )


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    root = Path(__file__).parent
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"


def geometric_mean(values: list[float]) -> float:
    """Of ratios."""
    return statistics.geometric_mean(values)
