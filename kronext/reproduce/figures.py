"""The paper's five figures, drawn from the results of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator
from rich.table import Table

from kronext.reproduce.experiments import EXPERIMENTS, PRESETS, Settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Curve(NamedTuple):
    """A measured quantity, and how it is drawn (colours of Okabe and Ito, and a marker each)."""

    key: str
    label: str
    color: str
    marker: str


OPTIMAL = Curve("optimal", "optimal Kronecker product", "#000000", "o")
SHAMPOO2 = Curve("shampoo2", "Shampoo²", "#0072B2", "s")
SHAMPOO = Curve("shampoo", "Shampoo", "#D55E00", "^")
KFAC = Curve("kfac", "K-FAC (reduce)", "#009E73", "D")
LEFT = Curve("left", "left factor $L$", "#CC79A7", "<")
RIGHT = Curve("right", "right factor $R$", "#E69F00", ">")


# The optimum stays visible where another curve coincides with it.
_ON_TOP: dict[str, Any] = {
    "linestyle": "--",
    "markersize": 7,
    "markerfacecolor": "none",
    "zorder": 3,
}


class Row(NamedTuple):
    """One row of panels: what it shows, of which `H`."""

    label: str
    matrix: str
    curves: tuple[Curve, ...]


class Panel(NamedTuple):
    """One column: a run, and the number of its layer."""

    experiment: str
    layer: int = 0


@dataclass(frozen=True)
class Figure:
    """A figure of the paper: panels by their names for `--panels`, and rows."""

    title: str
    panels: dict[str, Panel]
    rows: tuple[Row, ...]

    def experiments(self, panels: Sequence[str]) -> list[str]:
        """The runs behind some panels, each once."""
        return list(dict.fromkeys(self.panels[panel].experiment for panel in panels))


_GAUSS_NEWTON, _ADAGRAD = "Gauss-Newton", "Adagrad"
_RUNS = {name: Panel(name) for name in ("mnist", "resnet", "convnext")}
_LAYERS = {name: Panel("vit", layer) for layer, name in enumerate(("ffn1", "ffn2", "qk"))}
_PRODUCTS = (OPTIMAL, SHAMPOO2, SHAMPOO)
_ALIGNMENTS = (OPTIMAL, LEFT, RIGHT)


def _labels(batch: str) -> tuple[Curve, ...]:
    return (
        OPTIMAL,
        Curve(f"shampoo2_sampled{batch}", "Shampoo², sampled labels", "#0072B2", "s"),
        Curve(f"shampoo2_real{batch}", "Shampoo², real labels", "#CC79A7", "v"),
    )


FIGURES = {
    "fig1": Figure(
        "Figure 1: Kronecker products against the true matrix",
        _RUNS,
        (
            Row(_GAUSS_NEWTON, "gauss_newton", _PRODUCTS),
            Row(_ADAGRAD, "adagrad", _PRODUCTS),
        ),
    ),
    "fig2": Figure(
        "Figure 2: one step from the identity against the leading singular vectors",
        _RUNS,
        (
            Row(_GAUSS_NEWTON, "gauss_newton", _ALIGNMENTS),
            Row(_ADAGRAD, "adagrad", _ALIGNMENTS),
        ),
    ),
    "fig3": Figure(
        "Figure 3: batch gradients and real labels in place of examples and sampled labels",
        _RUNS,
        (
            Row("batch size 1", "gauss_newton", _labels("")),
            Row("batch size {large_batch}", "gauss_newton", _labels("_batch")),
        ),
    ),
    "fig4": Figure(
        "Figure 4: with K-FAC",
        _RUNS,
        (Row(_GAUSS_NEWTON, "gauss_newton", (*_PRODUCTS, KFAC)),),
    ),
    "fig5": Figure(
        "Figure 5: three layers of a vision transformer",
        _LAYERS,
        (
            Row(_GAUSS_NEWTON, "gauss_newton", (*_PRODUCTS, KFAC)),
            Row(_ADAGRAD, "adagrad", _PRODUCTS),
        ),
    ),
}


def draw(
    figure: Figure, panels: Sequence[str], results: dict[str, dict[str, Any]], path: Path
) -> None:
    """Draws `<path>.png` and `<path>.svg`.

    Args:
        figure: what to show.
        panels: which of its columns.
        results: of the runs behind them, by the names of the experiments.
        path: without the suffix.
    """
    rows, columns = len(figure.rows), len(panels)
    canvas, grid = plt.subplots(
        rows,
        columns,
        squeeze=False,
        sharey=True,
        figsize=(3.4 * columns + 0.6, 2.5 * rows + 1.3),
        layout="constrained",
    )
    for column, name in enumerate(panels):
        panel = figure.panels[name]
        result = results[panel.experiment]
        for axis, row in zip(grid[:, column], figure.rows, strict=True):
            _draw_panel(axis, row, result, panel)
            if column == 0:
                axis.set_ylabel(f"{_row_label(row, result)}\ncosine similarity")
        grid[0, column].set_title(_heading(panel, result), fontsize=10)
        grid[-1, column].set_xlabel(f"step\n{_what_was_run(result)}", fontsize=8.5)
    # Rows may differ in their curves; each curve is named once.
    handles = {
        label: handle
        for axis in grid[:, 0]
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    canvas.suptitle(figure.title, fontsize=12)
    canvas.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False
    )
    canvas.savefig(path.with_suffix(".png"), dpi=130)
    # Without date and random names, so that the same results give the same file.
    with matplotlib.rc_context({"svg.hashsalt": figure.title}):
        canvas.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    plt.close(canvas)


def table(figure: Figure, panels: Sequence[str], results: dict[str, dict[str, Any]]) -> Table:
    """The mean of each curve over the run, and its last value."""
    rows = Table(title=f"{figure.title} (mean over the run, last step)")
    rows.add_column("")
    for panel in panels:
        rows.add_column(panel, justify="right")
    for row in figure.rows:
        for curve in row.curves:
            cells = []
            for experiment, layer in (figure.panels[panel] for panel in panels):
                values = _values(results[experiment], layer, row, curve)
                cells.append(f"{sum(values) / len(values):.3f}, {values[-1]:.3f}")
            rows.add_row(f"{_row_label(row, results[experiment])}: {curve.label}", *cells)
    return rows


def _values(result: dict[str, Any], layer: int, row: Row, curve: Curve) -> list[float]:
    """A curve of a panel, one value a measurement."""
    return [
        list(measurement["layers"].values())[layer][row.matrix][curve.key]
        for measurement in result["measurements"]
    ]


def _draw_panel(axis: Axes, row: Row, result: dict[str, Any], panel: Panel) -> None:
    steps = [measurement["step"] for measurement in result["measurements"]]
    for curve in row.curves:
        axis.plot(
            steps,
            _values(result, panel.layer, row, curve),
            color=curve.color,
            marker=curve.marker,
            label=curve.label,
            **(_ON_TOP if curve is OPTIMAL else {"markersize": 4}),
        )
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.set(ylim=(0, 1.03))
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)


def _row_label(row: Row, result: dict[str, Any]) -> str:
    return row.label.format(large_batch=result["settings"]["large_batch"])


def _heading(panel: Panel, result: dict[str, Any]) -> str:
    settings = Settings(**result["settings"])
    experiment = EXPERIMENTS[panel.experiment]
    layer = list(experiment.layers(settings).values())[panel.layer]
    data = result["data"]["name"]
    if data != experiment.paper_data:
        data += f", paper: {experiment.paper_data}"
    return f"{data}\n{experiment.describe(settings)}\n{layer}"


def _what_was_run(result: dict[str, Any]) -> str:
    """One line: how this run is smaller than the paper's, or that it is not."""
    settings = Settings(**result["settings"])
    paper = PRESETS["paper"][result["experiment"]]
    steps = f"{settings.steps:,}"
    if settings.steps != paper.steps:
        steps += f" of {paper.steps:,}"
    batch = settings.batch_size or result["data"]["images"]
    examples = settings.examples or result["data"]["images"]
    return f"{result['preset']}: {steps} steps of {batch:,} images, $H_{{GN}}$ of {examples:,}"
