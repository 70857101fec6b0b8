"""Timing that a noisy machine cannot fool: contestants take turns, medians of ratios are kept."""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kronext import build_info


@dataclass
class Case:
    """One line of the suite.

    `ours` and each of `rivals` do the same job on input set number `i`. The `sets` are walked
    through in turn, so that caches are as a training step leaves them. `error` is the relative
    error of our result against float64, `flops` what the job needs at least.
    """

    op: str
    label: str
    ours: Callable[[int], object]
    rivals: dict[str, Callable[[int], object]]
    flops: float
    error: Callable[[], float]
    sets: int = 1


@dataclass
class Result:
    """Medians of one case; ratios are rival time over ours."""

    op: str
    label: str
    microseconds: float
    ratios: dict[str, float]
    spread: dict[str, tuple[float, float]]
    gigaflops: float
    error: float
    rounds: int = field(default=0)

    def line(self) -> str:
        """The case on one line of a report."""
        ratios = "  ".join(f"{ratio:5.2f}x {name}" for name, ratio in self.ratios.items())
        return (
            f"{self.op:<18} {self.label:<22} {self.microseconds:>10.1f} us {self.gigaflops:>6.1f} "
            f"GF/s  error {self.error:.1e}  {ratios}"
        )


def run(case: Case, *, seconds: float = 1.0) -> Result:
    """Times a case for about `seconds`, contestants interleaved."""
    contestants = {"ours": case.ours, **case.rivals}
    for call in contestants.values():
        for index in range(case.sets):
            call(index)
    slowest = max(_time(call, case.sets, 1) for call in contestants.values())
    rounds = max(5, min(200, int(seconds / (len(contestants) * max(slowest, 1e-7) * case.sets))))
    # Calls of a microsecond are timed in runs long enough for the clock, and for a device's queue.
    repeats = max(1, int(2e-4 / max(slowest * case.sets, 1e-9)))
    rounds = max(5, rounds // repeats)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            times[name].append(_time(call, case.sets, repeats))
    ratios = {
        name: [rival / ours for rival, ours in zip(times[name], times["ours"], strict=True)]
        for name in case.rivals
    }
    mine = statistics.median(times["ours"])
    return Result(
        case.op,
        case.label,
        mine * 1e6,
        {name: statistics.median(values) for name, values in ratios.items()},
        {name: _quartiles(values) for name, values in ratios.items()},
        case.flops / mine / 1e9,
        case.error(),
        rounds,
    )


def _time(call: Callable[[int], object], sets: int, repeats: int) -> float:
    """Seconds of one call, over all sets."""
    started = time.perf_counter()
    for _ in range(repeats):
        for index in range(sets):
            call(index)
    _wait_for_device()
    return (time.perf_counter() - started) / (repeats * sets)


def _wait_for_device() -> None:
    if torch.get_default_device().type == "cuda":
        torch.cuda.synchronize()


def _quartiles(values: list[float]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(values, n=4)
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


Cases = Iterator[Case]
