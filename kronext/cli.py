"""The command line: `python -m kronext`, or `kronext`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (EOFError, ImportError, OSError, ValueError) as error:
        print(f"kronext {options.command}: {error}")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kronext", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    doctor = commands.add_parser(
        "doctor", help="what was built, what is loaded, and whether it computes what it should"
    )
    doctor.set_defaults(run=_doctor)
    _add_demo(commands)
    _add_reproduce(commands)
    return parser


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, except where there is none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="train on real digits with AdamW and every estimator",
        description="Trains one model from one start on the same batches with each optimizer, and "
        "measures how near each Kronecker product is to the true matrix H along the first run.",
        formatter_class=_Formatter,
    )
    add = demo.add_argument
    add("--data", type=Path, help="MNIST, a .npz file or IDX folder; else scikit-learn's digits")
    add("--output", type=Path, default=Path("demo-output"), help="folder of the plots")
    add("--optimizers", nargs="+", choices=_OPTIMIZERS, default=list(_OPTIMIZERS),
        help="which ones, the first being the one to beat")  # fmt: skip
    add("--steps", type=_count, default=300, help="training steps")
    add("--batch-size", type=_count, default=128, help="images a step")
    add("--lr", nargs="+", type=float, default=[1e-3, 3e-3, 1e-2, 3e-2],
        help="learning rates; each optimizer keeps its best")  # fmt: skip
    add("--weight-decay", type=float, default=1e-2, help="decoupled weight decay")
    add("--update-interval", type=_count, default=5, help="steps between new roots")
    add("--seed", type=int, default=0, help="of the start, the batches and the labels")
    demo.set_defaults(run=_demo)


def _add_reproduce(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    reproduce = commands.add_parser(
        "reproduce",
        help="the figures of the paper",
        description="Trains the paper's models, measures along the way, and draws its figures. "
        "Figures 1 to 4 share their runs. An interrupted run goes on where it stopped.",
        formatter_class=_Formatter,
    )
    add = reproduce.add_argument
    add("figure", choices=[*_FIGURES, "all"], help="which figure")
    add("--preset", choices=_PRESETS, default="small",
        help="quick: seconds, no more than a test; small: minutes on two cores; paper: as "
        "published, for a GPU")  # fmt: skip
    add("--data", type=Path,
        help="a folder that holds the data sets, or one of them: MNIST (.npz or IDX files); "
        "CIFAR-5M (.npz) or CIFAR-10 (pickles, image folders or a tar archive of them); ImageNet "
        "or Imagenette (likewise). The preset quick runs without, on small digits")  # fmt: skip
    add("--panels", nargs="+", metavar="PANEL",
        help="columns of the figure: mnist, resnet, convnext; of fig5 ffn1, ffn2, qk")  # fmt: skip
    add("--output", type=Path, help="folder of the results (default: reproduction/PRESET)")
    add("--seed", type=int, default=0, help="of the start, the batches, the labels and the probes")
    add("--device", default="cpu", help="where the models are: cpu or cuda")
    reproduce.set_defaults(run=_reproduce)


_FIGURES = ("fig1", "fig2", "fig3", "fig4", "fig5")
_PRESETS = ("quick", "small", "paper")
_OPTIMIZERS = ("adamw", "shampoo", "shampoo2", "optimal")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1 (got {value})")
    return value


def _doctor(_: argparse.Namespace) -> int:
    from kronext.doctor import doctor

    return doctor()


def _demo(options: argparse.Namespace) -> int:
    from kronext import datasets, demo

    data = datasets.load_mnist(options.data) if options.data else datasets.load_digits()
    settings = demo.Settings(
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rates=tuple(options.lr),
        weight_decay=options.weight_decay,
        update_interval=options.update_interval,
        seed=options.seed,
    )
    demo.run_demo(data, settings, options.output, options.optimizers)
    return 0


def _reproduce(options: argparse.Namespace) -> int:
    from kronext.reproduce import reproduce

    try:
        reproduce(
            _FIGURES if options.figure == "all" else [options.figure],
            options.output or Path("reproduction") / options.preset,
            preset=options.preset,
            data=options.data,
            panels=options.panels,
            seed=options.seed,
            device=options.device,
        )
    except KeyboardInterrupt:
        print("kronext reproduce: interrupted; the same command goes on from the last measurement")
        return 130
    return 0
