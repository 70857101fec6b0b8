"""What a run has found so far, on disk: for readers as JSON, and to go on after an interruption."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Store:
    """One run's files: `<name>.json`, and until the run is complete `<name>.state`.

    Each is replaced at once, so that an interruption leaves the old or the new one.

    Args:
        folder: it is made where it does not exist.
        name: of the run.
        configuration: all that the results depend on, as JSON can hold it.
    """

    def __init__(self, folder: Path, name: str, configuration: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.json"
        self._state = folder / f"{name}.state"
        self._configuration = json.loads(json.dumps(configuration))

    def results(self) -> dict[str, Any] | None:
        """What the run has found so far; None if nothing.

        Raises:
            ValueError: the file is of a run with another configuration.
        """
        if not self.path.exists():
            return None
        found: dict[str, Any] = json.loads(self.path.read_text())
        for key, value in self._configuration.items():
            if found.get(key) != value:
                raise ValueError(
                    f"reproduce: {self.path} must be of the same run, or be removed, or --output "
                    f"be another (got {key}={found.get(key)!r} there, {key}={value!r} here)"
                )
        return found

    def state(self) -> dict[str, Any] | None:
        """What `save` was given last, on the CPU; None if nothing, or if the run is complete.

        A state whose results were removed may be that of another run: then it is none either.
        """
        if not self._state.exists():
            return None
        state: dict[str, Any] = torch.load(self._state, map_location="cpu", weights_only=True)
        if state.pop("configuration", None) != json.dumps(self._configuration):
            return None
        return {**state, "results": json.loads(state["results"])}

    def save(self, results: dict[str, Any], state: dict[str, Any]) -> None:
        """Writes the results so far, and what the run needs to go on from here."""
        # The state first: it holds the results too, and it alone decides where a run goes on.
        whole = {
            **state,
            "results": json.dumps(results),
            "configuration": json.dumps(self._configuration),
        }
        _replace(self._state, lambda path: torch.save(whole, path))
        self._write(results, complete=False)

    def finish(self, results: dict[str, Any]) -> dict[str, Any]:
        """Writes the final results, removes the state, and returns what it wrote."""
        written = self._write(results, complete=True)
        self._state.unlink(missing_ok=True)
        return written

    def _write(self, results: dict[str, Any], *, complete: bool) -> dict[str, Any]:
        written = {**self._configuration, "complete": complete, **results}
        text = json.dumps(written, indent=1) + "\n"
        _replace(self.path, lambda path: path.write_text(text))
        return written


def _replace(target: Path, write: Callable[[Path], object]) -> None:
    unfinished = target.with_name(target.name + ".part")
    write(unfinished)
    os.replace(unfinished, target)
