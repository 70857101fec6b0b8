"""Carry the engine's state inside the per-parameter state of an optimizer's `state_dict`.

The entry sits beside the base's own, `state_dict["state"][parameter]["kronecker"]`, so that tools
which rename or shard optimizer state parameter by parameter take it along.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEY = "kronecker"


def merge(state_dict: dict[str, Any], entries: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """Return `state_dict` with each parameter's entry added; the argument is left as it is."""
    state = dict(state_dict["state"])
    for index, entry in entries.items():
        state[index] = {**state.get(index, {}), KEY: entry}
    return {**state_dict, "state": state}


def split(state_dict: Mapping[str, Any]) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """Return the state dict as it was before `merge`, and the entries."""
    state: dict[Any, Any] = {}
    entries: dict[int, dict[str, Any]] = {}
    for index, values in state_dict["state"].items():
        rest = {name: value for name, value in values.items() if name != KEY}
        if KEY in values:
            entries[index] = values[KEY]
        if rest or KEY not in values:
            state[index] = rest
    return {**state_dict, "state": state}, entries
