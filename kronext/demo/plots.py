"""The demo's pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from kronext.demo.similarity import SimilarityTrace
from kronext.demo.training import TITLES, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = {"adamw": "#555555", "shampoo": "#d1495b", "shampoo2": "#00798c", "optimal": "#edae49"}
NAMES = {"optimal": "optimal Kronecker product", "shampoo2": "Shampoo²", "shampoo": "Shampoo"}


def plot_training(runs: Sequence[Run], data_name: str, path: Path) -> None:
    """Training loss against steps and against seconds."""
    figure, (by_step, by_time) = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for run in runs:
        style = {
            "color": COLORS[run.optimizer],
            "label": f"{TITLES[run.optimizer]}, lr {run.learning_rate:g}",
        }
        count = len(run.losses)
        by_step.semilogy(range(1, count + 1), run.losses, **style)
        by_time.semilogy([run.seconds * (i + 1) / count for i in range(count)], run.losses, **style)
    by_step.set(xlabel="step", ylabel="training loss")
    by_time.set(xlabel="seconds")
    by_step.legend(frameon=False)
    figure.suptitle(f"Training loss on {data_name}")
    _save(figure, (by_step, by_time), path)


def plot_similarity(trace: SimilarityTrace, data_name: str, path: Path) -> None:
    """Cosine similarity to `H_GN` and to `H_Ada` along the run."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    panels = (("$H_{GN}$", trace.gauss_newton), ("$H_{Ada}$", trace.adagrad))
    for axis, (truth, similarities) in zip(axes, panels, strict=True):
        for name, values in similarities.items():
            axis.plot(trace.steps, values, ".-", color=COLORS[name], label=NAMES[name])
        axis.set(xlabel="step", title=f"to {truth}", ylim=(0, 1.02))
    axes[0].set(ylabel="cosine similarity")
    axes[0].legend(frameon=False, loc="lower right")
    figure.suptitle(f"Kronecker products against the true matrix, hidden layer, {data_name}")
    _save(figure, axes, path)


def _save(figure: Figure, axes: Sequence[Axes], path: Path) -> None:
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
