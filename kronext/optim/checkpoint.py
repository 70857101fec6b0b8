"""Carry the engine's state inside the per-parameter state of an optimizer's `state_dict`.

The entry sits beside the base's own, `state_dict["state"][parameter]["kronecker"]`, so that tools
which rename or shard optimizer state parameter by parameter take it along.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor

KEY = "kronecker"


def merge(state_dict: dict[str, Any], entries: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """Return `state_dict` with each parameter's entry added; the argument is left as it is."""
    state = dict(state_dict["state"])
    for index, entry in entries.items():
        state[index] = {**state.get(index, {}), KEY: entry}
    return {**state_dict, "state": state}


def positions(state_dict: Mapping[str, Any]) -> dict[Hashable, int]:
    """Return the position of each parameter by its key in `state_dict["state"]`.

    The key is what the groups call the parameter: a number from torch.optim, a name from
    torch.distributed.checkpoint. Only the order counts.
    """
    keys = (key for group in state_dict["param_groups"] for key in group["params"])
    return {key: position for position, key in enumerate(keys)}


def split(state_dict: Mapping[str, Any]) -> tuple[dict[str, Any], dict[Any, dict[str, Any]]]:
    """Return the state dict as it was before `merge`, and the entries by position.

    An entry of a parameter that no group has stays under its key.
    """
    position_of = positions(state_dict)
    state: dict[Any, Any] = {}
    entries: dict[Any, dict[str, Any]] = {}
    for key, values in state_dict["state"].items():
        rest = {name: value for name, value in values.items() if name != KEY}
        if KEY in values:
            entries[position_of.get(key, key)] = values[KEY]
        if rest or KEY not in values:
            state[key] = rest
    return {**state_dict, "state": state}, entries


def check_buffer(label: str, name: str, buffer: object, parameter: Tensor) -> None:
    """Raise ValueError unless `buffer` is a tensor of the parameter's shape."""
    if not isinstance(buffer, Tensor) or buffer.shape != parameter.shape:
        got = tuple(buffer.shape) if isinstance(buffer, Tensor) else type(buffer).__name__
        raise ValueError(
            f"{label} must have a {name} of shape {tuple(parameter.shape)} (got {name}={got})"
        )
