"""`python -m benchmarks`: one line a case, ratios to named rivals in the same run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.cases import CASES
from benchmarks.runner import Result, geometric_mean, machine, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the chosen cases and prints or writes what they measured."""
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.set_default_device(options.device)
    about = machine()
    print(
        f"{about['device']}, {about['threads']} threads, {about['cpu_capability']}, "
        f"torch {about['torch']}, commit {about['commit']}\n"
        "medians of interleaved runs; ratios are rival time / our time, above 1 we are faster\n"
    )
    results: list[Result] = []
    for name in options.ops:
        of_op = []
        for case in CASES[name]():
            if options.match in case.label:
                of_op.append(run(case, seconds=options.seconds))
                print(of_op[-1].line(), flush=True)
        _print_means(of_op)
        results += of_op
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        record = {"machine": about, "results": [asdict(result) for result in results]}
        options.output.write_text(json.dumps(record, indent=1) + "\n")
        print(f"wrote {options.output}")
    return 0


def _print_means(results: list[Result]) -> None:
    by_rival: dict[str, list[float]] = {}
    for result in results:
        for rival, ratio in result.ratios.items():
            by_rival.setdefault(rival, []).append(ratio)
    for rival, ratios in by_rival.items():
        print(f"{'':<16} geometric mean of {len(ratios)}: {geometric_mean(ratios):.2f}x {rival}")
    print()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--ops", nargs="+", choices=CASES, default=list(CASES), help="which ops")
    add("--match", default="", help="only cases whose label contains this")
    add("--device", default="cpu", help="cpu, or a CUDA device")
    add("--threads", type=int, default=0, help="threads; 0 leaves torch's choice")
    add("--seconds", type=float, default=1.0, help="time for each case")
    add("--output", type=Path, help="JSON file for the results and the machine")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
