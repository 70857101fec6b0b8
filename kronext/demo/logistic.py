"""`python -m kronext reproduce logistic`: digits 0 and 1 of MNIST, Figure 1's first column."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from kronext.curvature.logistic import LogisticStep, logistic_regression
from kronext.datasets import load_mnist
from kronext.demo.plots import COLORS, NAMES

PANELS = {"gauss_newton": "$H_{GN}$", "sampled": "$H_{GN}$, sampled labels", "adagrad": "$H_{Ada}$"}


def reproduce_logistic(
    data: Path, output: Path, *, steps: int = 25, learning_rate: float = 0.01, seed: int = 0
) -> list[LogisticStep]:
    """Runs the experiment, prints a table, and writes `logistic.png` and `logistic.json`."""
    console = Console()
    output.mkdir(parents=True, exist_ok=True)
    digits = load_mnist(data).only(0, 1)
    console.print(f"{digits.name}: {len(digits.train_labels)} images, {steps} full-batch steps")
    with Progress(console=console) as progress:
        task = progress.add_task("gradient descent", total=steps)
        results = logistic_regression(
            digits.train_images,
            digits.train_labels,
            steps=steps,
            learning_rate=learning_rate,
            seed=seed,
            on_step=lambda _: progress.advance(task),
        )
    console.print(_table(results))
    _plot(results, digits.name, output / "logistic.png")
    record = {
        "data": digits.name,
        "images": len(digits.train_labels),
        "settings": {"steps": steps, "learning_rate": learning_rate, "seed": seed},
        "steps": [
            {
                "step": result.step,
                "loss": result.loss,
                **{panel: getattr(result, panel)._asdict() for panel in PANELS},
            }
            for result in results
        ],
    }
    (output / "logistic.json").write_text(json.dumps(record, indent=1) + "\n")
    console.print(f"Wrote {output}/logistic.png and logistic.json")
    return results


def _table(results: list[LogisticStep]) -> Table:
    table = Table(title="cosine similarity, lowest and highest of the run")
    table.add_column("Kronecker product")
    for title in ("to H_GN", "to H_GN, sampled labels", "to H_Ada"):
        table.add_column(title, justify="right")
    for name, label in NAMES.items():
        row = []
        for panel in PANELS:
            values = [getattr(getattr(result, panel), name) for result in results]
            row.append(f"{min(values):.6f} to {max(values):.6f}")
        table.add_row(label, *row)
    return table


def _plot(results: list[LogisticStep], data_name: str, path: Path) -> None:
    figure, axes = plt.subplots(1, len(PANELS), figsize=(12, 3.6), sharey=True)
    for axis, (panel, title) in zip(axes, PANELS.items(), strict=True):
        for name, label in NAMES.items():
            values = [getattr(getattr(result, panel), name) for result in results]
            axis.plot([r.step for r in results], values, ".-", color=COLORS[name], label=label)
        axis.set(xlabel="step", title=title, ylim=(0, 1.05))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    axes[0].set(ylabel="cosine similarity")
    axes[0].legend(frameon=False, loc="lower left")
    figure.suptitle(f"Logistic regression, {data_name}")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
