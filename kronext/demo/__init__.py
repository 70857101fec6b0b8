"""`python -m kronext demo`: a real model on real digits, AdamW beside every estimator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from math import inf, isfinite
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import nn

from kronext import build_info
from kronext.datasets import Digits
from kronext.demo.plots import NAMES, plot_similarity, plot_training
from kronext.demo.similarity import SimilarityProbe, SimilarityTrace
from kronext.demo.training import OPTIMIZERS, TITLES, Run, Settings, train

__all__ = ["OPTIMIZERS", "Settings", "run_demo"]


def run_demo(
    data: Digits, settings: Settings, output: Path, optimizers: Sequence[str] = tuple(OPTIMIZERS)
) -> list[Run]:
    """Trains, prints the tables, and writes `training.png`, `similarity.png` and `results.json`.

    Each optimizer is tuned alike: it runs at every learning rate, and the run that ends with the
    lowest training loss is kept. The similarities are measured along the first optimizer's run.
    """
    console = Console()
    output.mkdir(parents=True, exist_ok=True)
    info = build_info()
    console.print(
        f"{data.name}: {len(data.train_labels)} training and {len(data.test_labels)} test images; "
        f"{info['threads']} threads, {info['cpu_capability']} kernels, torch {info['torch']}"
    )
    probe = SimilarityProbe(data, interval=max(1, settings.steps // 20), seed=settings.seed)
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        runs = [_tune(name, data, settings, progress) for name in optimizers]
        _probe(runs[0], data, settings, probe, progress)
    console.print(_table(runs))
    console.print(_similarity_table(probe.trace))
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


def _tune(name: str, data: Digits, settings: Settings, progress: Progress) -> Run:
    """The best of one run at each learning rate."""
    rates = settings.learning_rates
    task = progress.add_task(TITLES[name], total=settings.steps * len(rates))

    def on_step(_: int, __: nn.Module) -> None:
        progress.advance(task)

    runs = [train(name, rate, data, settings, on_step) for rate in rates]
    best = min(runs, key=lambda run: run.losses[-1] if isfinite(run.losses[-1]) else inf)
    if not isfinite(best.losses[-1]):
        raise ValueError(
            f"{name} must end with a finite loss at one learning rate (got lr={rates})"
        )
    return best


def _probe(
    run: Run, data: Digits, settings: Settings, probe: SimilarityProbe, progress: Progress
) -> None:
    """Repeats a run, this time with the similarities measured along it."""
    task = progress.add_task("similarity to H", total=settings.steps)

    def on_step(step: int, model: nn.Module) -> None:
        probe.observe(step, model)
        progress.advance(task)

    train(run.optimizer, run.learning_rate, data, settings, on_step)


def _table(runs: Sequence[Run]) -> Table:
    target = runs[0].losses[-1]
    table = Table(title=f"target loss {target:.4f}: where {TITLES[runs[0].optimizer]} ends")
    table.add_column("optimizer", no_wrap=True)
    for heading in ("lr", "loss", "accuracy", "seconds", "steps to target", "seconds to target"):
        table.add_column(heading, justify="right")
    for run in runs:
        reached = run.steps_to(target)
        per_step = run.seconds / len(run.losses)
        table.add_row(
            TITLES[run.optimizer],
            f"{run.learning_rate:g}",
            f"{run.losses[-1]:.4f}",
            f"{run.accuracy:.1%}",
            f"{run.seconds:.2f}",
            "-" if reached is None else str(reached + 1),
            "-" if reached is None else f"{(reached + 1) * per_step:.2f}",
        )
    return table


def _similarity_table(trace: SimilarityTrace) -> Table:
    table = Table(title="cosine similarity, hidden layer, mean over the run")
    table.add_column("Kronecker product")
    table.add_column("to H_GN", justify="right")
    table.add_column("to H_Ada", justify="right")
    for name, values in trace.gauss_newton.items():
        row = [sum(column) / len(column) for column in (values, trace.adagrad[name])]
        table.add_row(NAMES[name], *(f"{mean:.3f}" for mean in row))
    return table
