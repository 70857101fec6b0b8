"""How cost grows: time over a size, with the machine's limit drawn in; and over threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.runner import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 4
RIVAL_COLORS = ["#d1495b", "#edae49", "#66a182", "#8d96a3"]


def plot(results: Sequence[Result], machine: Mapping[str, Any], path: Path) -> None:
    """Writes one panel for each op and size that was varied, and one for the threads."""
    families: dict[tuple[str, str, str, str, int], list[Result]] = {}
    for result in results:
        if result.growth is not None:
            family, variable, _ = result.growth
            key = (result.op, family, variable, result.dtype, result.threads)
            families.setdefault(key, []).append(result)
    varied = {key: found for key, found in families.items() if len(found) > 1}
    scaled = _speedups(results)
    count = len(varied) + bool(scaled)
    if not count:
        raise ValueError("benchmarks: a plot needs two sizes or two thread counts of a case")
    rows = -(-count // COLUMNS)
    figure, grid = plt.subplots(rows, COLUMNS, figsize=(4 * COLUMNS, 3.2 * rows), squeeze=False)
    panels = list(grid.flat)
    for axis, (key, found) in zip(panels, varied.items(), strict=False):
        _panel(axis, key, sorted(found, key=_value))
    if scaled:
        _threads(panels[len(varied)], scaled)
    for axis in panels:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.set_visible(axis.has_data())
    figure.suptitle(
        f"{machine['device']}, {machine['cpu_capability']}, torch {machine['torch']}, "
        f"commit {machine['commit']}"
    )
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axis: Axes, key: tuple[str, str, str, str, int], found: list[Result]) -> None:
    op, family, variable, dtype, threads = key
    sizes = [_value(result) for result in found]
    axis.loglog(sizes, [r.microseconds for r in found], "o-", color="#00798c", label="kronext")
    names = dict.fromkeys(name for result in found for name in result.rivals)
    for name, color in zip(names, RIVAL_COLORS, strict=False):
        timed = [result for result in found if name in result.rivals]
        times = [result.rivals[name].microseconds for result in timed]
        axis.loglog([_value(r) for r in timed], times, ".-", color=color, label=name)
    limits = [result.microseconds * result.part_of_limit for result in found]
    axis.loglog(sizes, limits, "k--", linewidth=1, label="limit: FMA or memory")
    axis.set(
        title=f"{op}, {family}, {dtype}, {threads} thread{'s' * (threads > 1)}",
        xlabel=variable,
        ylabel="microseconds",
    )
    axis.title.set_fontsize(9)
    axis.legend(frameon=False, fontsize=7)


def _threads(axis: Axes, scaled: Mapping[str, dict[int, float]]) -> None:
    most = max(count for speedups in scaled.values() for count in speedups)
    for op, speedups in scaled.items():
        counts = sorted(speedups)
        axis.plot(counts, [speedups[count] for count in counts], "o-", label=op)
    axis.plot([1, most], [1, most], "k--", linewidth=1, label="ideal")
    axis.set(title="median speed-up over one thread", xlabel="threads", ylabel="times")
    axis.title.set_fontsize(9)
    axis.legend(frameon=False, fontsize=6)


def _speedups(results: Sequence[Result]) -> dict[str, dict[int, float]]:
    """Return for each op and thread count how many times as fast its median case has become."""
    times = {(r.op, r.label, r.dtype, r.threads): r.microseconds for r in results}
    ratios: dict[str, dict[int, list[float]]] = {}
    for (op, label, dtype, threads), microseconds in times.items():
        alone = times.get((op, label, dtype, 1))
        if alone is not None:
            ratios.setdefault(op, {}).setdefault(threads, []).append(alone / microseconds)
    return {
        op: {threads: sorted(found)[len(found) // 2] for threads, found in by_threads.items()}
        for op, by_threads in ratios.items()
        if len(by_threads) > 1
    }


def _value(result: Result) -> int:
    assert result.growth is not None
    return result.growth[2]
