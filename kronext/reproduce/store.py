"""What a run has found so far, on disk: for readers as JSON, and to go on after an interruption."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from zipfile import is_zipfile

import torch


class Store:
    """One run's files: `<name>.json`, and until the run is complete `<name>.state`.

    Each is replaced at once, so that an interruption leaves the old or the new one. The state
    belongs to the JSON: without it nothing is gone on from.

    Args:
        folder: it is made where it does not exist.
        name: of the run.
        configuration: all that the results depend on, as JSON can hold it.

    Raises:
        ValueError: the folder cannot be made, or nothing can be written there.
    """

    def __init__(self, folder: Path, name: str, configuration: dict[str, Any]) -> None:
        self.path = folder / f"{name}.json"
        self._state = folder / f"{name}.state"
        self._configuration = json.loads(json.dumps(configuration))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise ValueError(
                f"reproduce: --output must be a folder to write in (got {folder}: {error.strerror})"
            ) from error

    def results(self) -> dict[str, Any] | None:
        """What the run has found so far; None if nothing.

        Raises:
            ValueError: a file is of a run with another configuration, or not whole.
        """
        if not self.path.exists():
            return None
        try:
            found: dict[str, Any] = json.loads(self.path.read_text())
            complete = found["complete"]
        except (KeyError, TypeError, ValueError) as error:
            raise _not_whole(self.path, repr(error)) from error
        self._compare(self.path, found)
        if not complete:
            self.state()  # what is wrong with it is an error now, not when the run's turn comes
        return found

    def state(self) -> dict[str, Any] | None:
        """What `save` was given last, on the CPU; None if nothing, or if the results are removed.

        Raises:
            ValueError: the file is of a run with another configuration, or not whole.
        """
        if not (self.path.exists() and self._state.exists()):
            return None
        with self._state.open("rb") as file:
            if not is_zipfile(file):
                raise _not_whole(self._state, f"{self._state.stat().st_size} bytes")
            file.seek(0)
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        self._compare(self._state, state.pop("configuration", {}))
        return {**state, "results": json.loads(state["results"])}

    def save(self, results: dict[str, Any], state: dict[str, Any]) -> None:
        """Writes the results so far, and what the run needs to go on from here."""
        # The state first: it holds the results too, and it alone decides where a run goes on.
        whole = {**state, "configuration": self._configuration, "results": json.dumps(results)}
        _replace(self._state, lambda path: _save(whole, path))
        self._write(results, complete=False)

    def finish(self, results: dict[str, Any]) -> dict[str, Any]:
        """Writes the final results, removes the state, and returns what it wrote."""
        written = self._write(results, complete=True)
        self._state.unlink(missing_ok=True)
        return written

    def _compare(self, path: Path, found: dict[str, Any]) -> None:
        for key, value in self._configuration.items():
            if found.get(key) != value:
                raise ValueError(
                    f"reproduce: {path} must be of the same run, or be removed, or --output be "
                    f"another (got {key}={found.get(key)!r} there, {key}={value!r} here)"
                )

    def _write(self, results: dict[str, Any], *, complete: bool) -> dict[str, Any]:
        written = {**self._configuration, "complete": complete, **results}
        text = json.dumps(written, indent=1) + "\n"
        _replace(self.path, lambda path: path.write_text(text))
        return written


def _not_whole(path: Path, got: str) -> ValueError:
    return ValueError(f"reproduce: {path} must be whole, or be removed (got {got})")


def _save(state: dict[str, Any], path: Path) -> None:
    # Of a path torch would say that it cannot be written by a RuntimeError.
    with path.open("wb") as file:
        torch.save(state, file)


def _replace(target: Path, write: Callable[[Path], object]) -> None:
    unfinished = target.with_name(target.name + ".part")
    try:
        write(unfinished)
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
