"""`python -m kronext reproduce fig1`: the paper's figures, measured anew.

Figures 1 to 4 show different sides of the same three runs, so that a run is made once for all of
them; Figure 5 has a run of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from kronext.datasets import Images
from kronext.reproduce.experiments import EXPERIMENTS, PRESETS, Preset
from kronext.reproduce.figures import FIGURES, draw, table
from kronext.reproduce.runs import Run
from kronext.reproduce.sources import bundled, find

__all__ = ["FIGURES", "PRESETS", "reproduce"]


def reproduce(
    names: Sequence[str],
    output: Path,
    *,
    preset: Preset = "small",
    data: Path | None = None,
    panels: Sequence[str] | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, dict[str, Any]]:
    """Makes the runs behind some figures, and draws these.

    Writes `<experiment>.json` for each run, and `<figure>.png` and `.svg` for each figure. An
    interrupted run goes on at its last measurement, and a complete one is only drawn.

    Args:
        names: "fig1" to "fig5".
        output: folder of the results.
        preset: "quick", "small" or "paper".
        data: a folder that holds the data sets, or one of them; None for the digits of
            scikit-learn, with the preset "quick" only.
        panels: which columns of the figures; None for all.
        seed: of everything random.
        device: of the models and measurements, "cpu" or "cuda".

    Returns:
        The results by the names of the experiments.

    Raises:
        ValueError: an unknown figure, preset or panel, no data, no such device, or results of
            another configuration in the folder.
        FileNotFoundError: a data set is not where it is expected.
    """
    where = _device(device)
    wanted = {name: _panels(name, panels) for name in names}
    if preset not in PRESETS:
        raise ValueError(f"reproduce: preset must be one of {list(PRESETS)} (got {preset!r})")
    experiments = dict.fromkeys(
        experiment
        for name, chosen in wanted.items()
        for experiment in FIGURES[name].experiments(chosen)
    )
    loaders = {experiment: _loader(experiment, preset, data) for experiment in experiments}
    # All data are read and all files compared before the first step.
    runs = [
        Run(experiment, preset, load(), output, seed=seed, device=where)
        for experiment, load in loaders.items()
    ]
    console = Console()
    results = {run.name: result for run, result in zip(runs, _run(runs, console), strict=True)}
    for name, chosen in wanted.items():
        draw(FIGURES[name], chosen, results, output / name)
        console.print(table(FIGURES[name], chosen, results))
        console.print(f"Wrote {output / name}.png and .svg")
    return results


def _device(device: torch.device | str) -> torch.device:
    try:
        found = torch.device(device)
        known = found.type in ("cpu", "cuda")
    except RuntimeError:
        known = False
    if not known:
        raise ValueError(f"reproduce: device must be cpu or cuda (got device={device})")
    count = torch.cuda.device_count()
    if found.type == "cuda" and not 0 <= (found.index or 0) < count:
        raise ValueError(f"reproduce: device must be present (got device={device}, {count} GPUs)")
    return found


def _panels(name: str, panels: Sequence[str] | None) -> list[str]:
    if name not in FIGURES:
        raise ValueError(f"reproduce: figure must be one of {', '.join(FIGURES)} (got {name!r})")
    known = FIGURES[name].panels
    for panel in panels or ():
        if panel not in known:
            raise ValueError(
                f"reproduce: panels of {name} must be among {', '.join(known)} (got {panel!r})"
            )
    return [panel for panel in known if panels is None or panel in panels]


def _loader(experiment: str, preset: Preset, data: Path | None) -> Callable[[], Images]:
    kind, size = EXPERIMENTS[experiment].data, PRESETS[preset][experiment].image_size
    if data is not None:
        load = find(kind, data)
        return lambda: load(size)
    if preset != "quick":
        raise ValueError(
            f"reproduce: --data must name the data sets for --preset {preset} (got none); --preset "
            "quick runs without, on the digits of scikit-learn"
        )
    return lambda: bundled(kind, size)


def _run(runs: Sequence[Run], console: Console) -> list[dict[str, Any]]:
    columns = (
        TextColumn("{task.description:<44}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    results = []
    with Progress(*columns, console=console) as progress:
        for run in runs:
            task = progress.add_task(run.title, total=run.settings.steps)
            results.append(run(_reporter(progress, task)))
            progress.update(task, completed=run.settings.steps)
    return results


def _reporter(progress: Progress, task: TaskID) -> Callable[[int], None]:
    return lambda step: progress.update(task, completed=step)
