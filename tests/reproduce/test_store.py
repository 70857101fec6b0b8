"""The files of a run: torn ones, those of other runs, and folders that take none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from kronext.reproduce.store import Store

RESULTS = {"seconds": 0.1, "measurements": [{"step": 1, "loss": float("inf")}]}
STATE = {"trainer": {"step": 1, "weight": torch.arange(3.0)}}


def store(folder: Path, seed: int = 0) -> Store:
    return Store(folder, "vit", {"seed": seed, "settings": {"widths": (1, 2)}})


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_was_saved_is_found_until_the_run_is_complete(tmp_path):
    assert store(tmp_path).results() is store(tmp_path).state() is None
    store(tmp_path).save(RESULTS, STATE)
    found, state = store(tmp_path).results(), store(tmp_path).state()
    assert not found["complete"]
    assert RESULTS.items() <= found.items()
    assert state.keys() == {"trainer", "results"}
    assert state["results"] == RESULTS
    assert torch.equal(state["trainer"]["weight"], STATE["trainer"]["weight"])
    written = store(tmp_path).finish(RESULTS)
    assert store(tmp_path).results() == written
    assert written["complete"]
    assert names(tmp_path) == {"vit.json"}


def test_a_state_from_a_gpu_is_found_on_the_cpu(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("torch.serialization.location_tag", lambda _: "cuda:0")
        store(tmp_path).save(RESULTS, STATE)
    assert torch.equal(store(tmp_path).state()["trainer"]["weight"], STATE["trainer"]["weight"])


@pytest.mark.parametrize("seed", [0, 1])
def test_a_state_without_results_is_of_no_run(tmp_path, monkeypatch, seed):
    """As it stays behind where a process dies between the first writes of the two."""
    replace = os.replace

    def die(source, target):
        if target.suffix == ".json":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("os.replace", die)
    with pytest.raises(KeyboardInterrupt):
        store(tmp_path).save(RESULTS, STATE)
    assert names(tmp_path) == {"vit.state"}
    assert store(tmp_path, seed).results() is store(tmp_path, seed).state() is None


@pytest.mark.parametrize("kept", [0, 3, 0.5, -1])
@pytest.mark.parametrize("suffix", ["json", "state"])
def test_a_file_that_is_not_whole_is_named(tmp_path, suffix, kept):
    store(tmp_path).save(RESULTS, STATE)
    path = tmp_path / f"vit.{suffix}"
    # The last byte of the JSON is the end of a line.
    text = path.read_bytes().rstrip()
    path.write_bytes(text[: int(kept * len(text)) if kept == 0.5 else kept])
    with pytest.raises(ValueError, match=rf"reproduce: \S*vit.{suffix} must be whole, or be rem"):
        store(tmp_path).results()


@pytest.mark.parametrize("text", ["null", "[]", "{}", '"complete"'])
def test_json_of_something_else_is_named(tmp_path, text):
    (tmp_path / "vit.json").write_text(text)
    with pytest.raises(ValueError, match=r"reproduce: \S*vit.json must be whole, or be removed"):
        store(tmp_path).results()


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    store(tmp_path).save(RESULTS, STATE)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(AttributeError, match="pickle"):
        store(tmp_path).save(RESULTS, {"trainer": lambda: None})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_full_disk_is_an_error_of_the_system(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("there is no device that is always full")
    (tmp_path / "vit.state.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        store(tmp_path).save(RESULTS, STATE)


def test_a_folder_that_takes_no_files_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=rf"must be a folder to write in \(got {folder}: "):
            store(folder)

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("kronext.reproduce.store.TemporaryFile", refuse)
    with pytest.raises(ValueError, match=r"to write in \(got .*: Permission denied\)"):
        store(tmp_path)
