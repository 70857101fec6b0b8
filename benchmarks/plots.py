"""How cost grows: time over a size, with the machine's limit drawn in; and over threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.runner import Growth, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 4
RIVAL_COLORS = ["#d1495b", "#edae49", "#66a182", "#8d96a3"]


def plot(results: Sequence[Result], machine: Mapping[str, Any], path: Path) -> None:
    """Writes one panel for each op and size that was varied, and one for the threads.

    Sizes are those of float32 on the fewest threads that were timed.
    """
    fewest = min(result.threads for result in results)
    families: dict[tuple[str, str, str], list[tuple[Growth, Result]]] = {}
    for result in results:
        growth = result.growth
        if growth is not None and result.threads == fewest and result.dtype == "float32":
            key = (result.op, growth.family, growth.variable)
            families.setdefault(key, []).append((growth, result))
    varied = {key: found for key, found in families.items() if len(found) > 1}
    scaled = _speedups(results)
    count = len(varied) + bool(scaled)
    if not count:
        raise ValueError("benchmarks: a plot needs two sizes or two thread counts of a case")
    rows = -(-count // COLUMNS)
    figure, grid = plt.subplots(
        rows,
        COLUMNS,
        figsize=(4 * COLUMNS, 3.2 * rows),
        squeeze=False,
        layout="constrained",
    )
    panels = list(grid.flat)
    for axis, (key, found) in zip(panels, varied.items(), strict=False):
        _panel(axis, key, sorted(found, key=lambda pair: pair[0].value))
    if scaled:
        _threads(panels[len(varied)], scaled)
    for axis in panels:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.set_visible(axis.has_data())
    figure.suptitle(
        f"{machine['device']}, {fewest} thread{'s' * (fewest > 1)}, {machine['cpu_capability']}, "
        f"torch {machine['torch']}, float32"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _panel(axis: Axes, key: tuple[str, str, str], found: list[tuple[Growth, Result]]) -> None:
    op, family, variable = key
    sizes = [growth.value for growth, _ in found]

    def draw(times: list[float | None], style: str, **options: Any) -> None:
        timed = [
            (growth.value, time / growth.count)
            for (growth, _), time in zip(found, times, strict=True)
            if time is not None
        ]
        axis.loglog(*zip(*timed, strict=True), style, **options)

    draw([result.microseconds for _, result in found], "o-", color="#00798c", label="kronext")
    names = dict.fromkeys(name for _, result in found for name in result.rivals)
    for name, color in zip(names, RIVAL_COLORS, strict=False):
        rivals = [result.rivals.get(name) for _, result in found]
        times = [None if rival is None else rival.microseconds for rival in rivals]
        draw(times, ".-", color=color, label=name)
    limits = [result.microseconds * result.part_of_limit for _, result in found]
    draw(list(limits), "--", color="black", linewidth=1, label="limit: FMA or memory")
    axis.set(xlabel=variable, ylabel="microseconds")
    axis.set_xticks(sizes, [str(size) for size in sizes], fontsize=7)
    axis.set_xticks([], minor=True)
    axis.set_title(f"{op}, {family}", fontsize=9)
    axis.legend(frameon=False, fontsize=7)


def _threads(axis: Axes, scaled: Mapping[str, dict[int, float]]) -> None:
    most = max(count for speedups in scaled.values() for count in speedups)
    axis.barh(list(scaled), [speedups[most] for speedups in scaled.values()], color="#00798c")
    axis.axvline(most, color="black", linestyle="--", linewidth=1)
    axis.set(xlabel="times as fast as one thread, median of its cases")
    axis.tick_params(axis="y", labelsize=7)
    axis.set_title(f"{most} threads", fontsize=9)


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
