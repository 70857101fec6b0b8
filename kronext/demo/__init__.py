"""`python -m kronext demo`: a real model on real digits, AdamW beside every estimator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import nn

from kronext import build_info
from kronext.datasets import Digits
from kronext.demo.plots import plot_similarity, plot_training
from kronext.demo.similarity import SimilarityProbe, SimilarityTrace
from kronext.demo.training import OPTIMIZERS, TITLES, Run, Settings, train

__all__ = ["OPTIMIZERS", "Settings", "run_demo"]


def run_demo(
    data: Digits, settings: Settings, output: Path, optimizers: Sequence[str] = tuple(OPTIMIZERS)
) -> list[Run]:
    """Trains, prints the table, and writes `training.png`, `similarity.png` and `results.json`.

    The similarities are measured along the first optimizer's run.
    """
    console = Console()
    output.mkdir(parents=True, exist_ok=True)
    info = build_info()
    console.print(
        f"{data.name}: {len(data.train_labels)} training and {len(data.test_labels)} test images; "
        f"{info['threads']} threads, {info['cpu_capability']} kernels, torch {info['torch']}"
    )
    probe = SimilarityProbe(data, interval=max(1, settings.steps // 20), seed=settings.seed)
    runs = _train_all(data, settings, optimizers, probe, console)
    console.print(_table(runs))
    _print_similarity(probe.trace, console)
    plot_training(runs, data.name, output / "training.png")
    plot_similarity(probe.trace, data.name, output / "similarity.png")
    results = {
        "data": data.name,
        "settings": asdict(settings),
        "build": info,
        "runs": [asdict(run) for run in runs],
        "similarity": asdict(probe.trace),
    }
    (output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    console.print(f"\nPlots and results.json are in {output}/: training.png, similarity.png")
    return runs


def _train_all(
    data: Digits,
    settings: Settings,
    optimizers: Sequence[str],
    probe: SimilarityProbe,
    console: Console,
) -> list[Run]:
    columns = (
        TextColumn("{task.description:<20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    runs: list[Run] = []
    with Progress(*columns, console=console) as progress:
        for name in optimizers:
            task = progress.add_task(TITLES[name], total=settings.steps)
            first = not runs

            def on_step(step: int, model: nn.Module, first: bool = first, task: int = task) -> None:
                if first:
                    probe.observe(step, model)
                progress.advance(task)  # type: ignore[arg-type]

            runs.append(train(name, data, settings, on_step))
    return runs


def _table(runs: Sequence[Run]) -> Table:
    target = runs[0].losses[-1]
    table = Table(title=f"target loss {target:.4f}: where {TITLES[runs[0].optimizer]} ends")
    table.add_column("optimizer")
    for heading in ("loss", "accuracy", "seconds", "steps to target", "seconds to target"):
        table.add_column(heading, justify="right")
    for run in runs:
        reached = run.steps_to(target)
        per_step = run.seconds / len(run.losses)
        table.add_row(
            TITLES[run.optimizer],
            f"{run.losses[-1]:.4f}",
            f"{run.accuracy:.1%}",
            f"{run.seconds:.2f}",
            "-" if reached is None else str(reached + 1),
            "-" if reached is None else f"{(reached + 1) * per_step:.2f}",
        )
    return table


def _print_similarity(trace: SimilarityTrace, console: Console) -> None:
    table = Table(title="cosine similarity of the hidden layer, mean over the run")
    table.add_column("Kronecker product")
    table.add_column("to H_GN", justify="right")
    table.add_column("to H_Ada", justify="right")
    for name, values in trace.gauss_newton.items():
        adagrad = trace.adagrad[name]
        mean = [sum(column) / len(column) for column in (values, adagrad)]
        table.add_row(name, f"{mean[0]:.3f}", f"{mean[1]:.3f}")
    console.print(table)
