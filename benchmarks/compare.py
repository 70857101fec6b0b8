"""Regressions between two runs, beyond the noise of both."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.runner import Result

# Quartiles of few rounds can lie close together by chance.
LEAST_CHANGE = 0.05
FORMAT = 2


def record(machine: Mapping[str, Any], results: Sequence[Result]) -> dict[str, Any]:
    """Return what is written as JSON."""
    return {
        "format": FORMAT,
        "machine": dict(machine),
        "results": [asdict(result) for result in results],
    }


def read(path: Path) -> dict[str, Any]:
    """Return what `record` made.

    Raises:
        ValueError: the file is of another format.
    """
    content = json.loads(path.read_text())
    if content.get("format") != FORMAT:
        raise ValueError(
            f"benchmarks: {path} must be of format {FORMAT} (got format={content.get('format')})"
        )
    return dict(content)


def regressions(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return a line for each case that has become slower.

    A case has, if its interquartile range lies on the slow side of the old one and the medians are
    5% apart. Where both runs timed the same rivals, what counts are the ratios to them, and all of
    them must say so: a machine that is slower today is not slower code.
    """
    before = {_key(result): result for result in old["results"]}
    lines = []
    for result in new["results"]:
        earlier = before.get(_key(result))
        if earlier is None:
            continue
        common = [name for name in result["rivals"] if name in earlier["rivals"]]
        pairs = [(earlier["rivals"][name], result["rivals"][name]) for name in common]
        changes = [
            (f"{name}: {was['ratio']:.2f}x, now {now['ratio']:.2f}x", _ratio_fell(was, now))
            for name, (was, now) in zip(common, pairs, strict=True)
        ] or [
            (
                f"{earlier['microseconds']:.1f} us, now {result['microseconds']:.1f} us",
                _time_rose(earlier, result),
            )
        ]
        if all(is_worse for _, is_worse in changes):
            lines.append(" | ".join([*map(str, _key(result)), *(text for text, _ in changes)]))
    return lines


def _key(result: Mapping[str, Any]) -> tuple[str, str, str, int]:
    return result["op"], result["label"], result["dtype"], result["threads"]


def _ratio_fell(was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return bool(
        now["quartiles"][1] < was["quartiles"][0]
        and now["ratio"] < was["ratio"] * (1 - LEAST_CHANGE)
    )


def _time_rose(was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return bool(
        now["quartiles"][0] > was["quartiles"][1]
        and now["microseconds"] > was["microseconds"] * (1 + LEAST_CHANGE)
    )
