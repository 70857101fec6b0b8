"""`python -m benchmarks`: one line a case, ratios to named rivals in the same run."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks import ceilings, compare
from benchmarks.cases import CASES, select
from benchmarks.runner import Case, Result, geometric_mean, machine, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the chosen cases; 1 where `--compare` finds a regression, else 0."""
    options = _parser().parse_args(arguments)
    torch.set_default_device(options.device)
    cases = select(options.op, options.case, options.dtype)
    if not cases:
        print("benchmarks: no case has this op, label and dtype; see --list")
        return 2
    if options.list:
        print("\n".join(f"{case.op} | {case.label} | {case.dtype}" for case in cases))
        return 0
    old = compare.read(options.compare) if options.compare else None
    about = machine()
    print(
        f"{about['device']}, {about['cpu_capability']}, torch {about['torch']}, commit "
        f"{about['commit']}\n"
        "medians of interleaved runs; ratios are rival time / our time, above 1 we are faster"
    )
    results: list[Result] = []
    threads = list(dict.fromkeys(options.threads)) or [torch.get_num_threads()]
    deadline = time.monotonic() + 60 * options.minutes
    about |= {"threads": threads, "ceilings": {}}

    def keep(result: Result) -> None:
        # After every case: a run that is stopped leaves what it has.
        results.append(result)
        if options.json:
            options.json.write_text(json.dumps(compare.record(about, results), indent=1) + "\n")

    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
    for place, count in enumerate(threads):
        torch.set_num_threads(count)
        limits = ceilings.measure()
        about["ceilings"][count] = asdict(limits)
        print(
            f"\n{count} thread{'s' * (count > 1)}; limits measured: {limits.float32 / 1e9:.0f} "
            f"GFLOP/s in float32, {limits.float64 / 1e9:.0f} in float64, "
            f"{limits.bfloat16 / 1e9:.0f} in bfloat16, copies "
            f"{limits.copy / 1e9:.0f} GB/s\n"
        )
        seconds_left = (deadline - time.monotonic()) / (len(threads) - place)
        _run_all(cases, limits, time.monotonic() + seconds_left, options.rival, keep)
    if options.json:
        print(f"wrote {options.json}")
    if options.plot:
        from benchmarks.plots import plot  # matplotlib is wanted for nothing else

        plot(results, about, options.plot)
        print(f"wrote {options.plot}")
    if old is None:
        return 0
    slower = compare.regressions(old, json.loads(json.dumps(compare.record(about, results))))
    print("\n".join(["slower than before:", *slower] if slower else ["nothing is slower"]))
    return bool(slower)


def _run_all(
    cases: list[Case],
    limits: ceilings.Ceilings,
    deadline: float,
    rivals: list[str],
    keep: Callable[[Result], None],
) -> None:
    """Runs and prints the cases; each gets its part of the time that is left."""

    def wants(name: str) -> bool:
        return not rivals or any(part.lower() in name.lower() for part in rivals)

    results: list[Result] = []
    for place, case in enumerate(cases):
        seconds = max(0.0, deadline - time.monotonic()) / (len(cases) - place)
        results.append(run(case, limits, seconds=0.7 * seconds, wants=wants))
        keep(results[-1])
        print(results[-1].line(), flush=True)
        if place + 1 == len(cases) or cases[place + 1].op != case.op:
            _print_means([result for result in results if result.op == case.op])


def _print_means(results: list[Result]) -> None:
    by_rival: dict[str, list[float]] = {}
    for result in results:
        for name, rival in result.rivals.items():
            by_rival.setdefault(name, []).append(rival.ratio)
    for name, ratios in by_rival.items():
        print(f"{'':<20}   geometric mean of {len(ratios)}: {geometric_mean(ratios):.2f}x {name}")
    print()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--op", nargs="+", choices=CASES, default=[], metavar="OP", help=", ".join(CASES))
    add("--case", nargs="+", default=[], help="only cases whose label holds one of these")
    add("--dtype", nargs="+", default=[], help="only these dtypes: float32, bfloat16, float64")
    add("--rival", nargs="+", default=[], help="only rivals whose name holds one of these")
    add("--threads", nargs="+", type=int, default=[], help="thread counts; none: torch's choice")
    add("--device", default="cpu", help="cpu, or a CUDA device")
    add("--minutes", type=float, default=10.0, help="time for everything, three rounds at least")
    add("--json", type=Path, help="file for the results and the machine")
    add("--plot", type=Path, help="PNG file for how cost grows")
    add("--compare", type=Path, help="a file from --json; names what is slower now, exits with 1")
    add("--list", action="store_true", help="name the cases and stop")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
