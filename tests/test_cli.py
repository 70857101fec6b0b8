"""The command line and the data sets behind it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kronext import datasets
from kronext.cli import main


def mnist_like(folder: Path) -> dict[str, np.ndarray]:
    """A tiny MNIST: two classes that differ in their bright half."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 60), ("test", 20)):
        labels = rng.integers(0, 2, count).astype(np.uint8)
        images = rng.integers(0, 60, (count, 28, 28)).astype(np.uint8)
        images[labels == 0, :14] += 150
        images[labels == 1, 14:] += 150
        arrays |= {f"x_{part}": images, f"y_{part}": labels}
    np.savez(folder / "mnist.npz", **arrays)
    return arrays


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(s.to_bytes(4, "big") for s in array.shape)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wb") as file:
        file.write(header + array.tobytes())


def test_digits_that_ship_with_scikit_learn() -> None:
    digits = datasets.load_digits()
    assert digits.train_images.shape == (1438, 64)
    assert digits.test_images.shape == (359, 64)
    assert 0 <= float(digits.train_images.min()) < float(digits.train_images.max()) <= 1
    assert set(digits.test_labels.tolist()) == set(range(10))
    pair = digits.only(3, 8)
    assert set(pair.train_labels.tolist()) == {0, 1}
    threes = (digits.train_labels == 3).sum()
    assert int((pair.train_labels == 0).sum()) == int(threes)


def test_mnist_from_npz_and_from_idx_files_is_the_same(tmp_path: Path) -> None:
    arrays = mnist_like(tmp_path)
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", arrays["x_train"])
    write_idx(tmp_path / "train-labels-idx1-ubyte", arrays["y_train"])
    write_idx(tmp_path / "t10k-images-idx3-ubyte", arrays["x_test"])
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", arrays["y_test"])
    npz, idx = datasets.load_mnist(tmp_path / "mnist.npz"), datasets.load_mnist(tmp_path)
    assert torch.equal(npz.train_images, idx.train_images)
    assert torch.equal(npz.test_labels, idx.test_labels)
    assert npz.train_images.shape == (60, 784)
    assert npz.train_images.max() <= 1


def test_broken_data_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"path must exist \(got path="):
        datasets.load_mnist(tmp_path / "nothing.npz")
    with pytest.raises(FileNotFoundError, match="must hold train-images-idx3-ubyte"):
        datasets.load_mnist(tmp_path)
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match=r"must hold x_train.*\(got a\)"):
        datasets.load_mnist(tmp_path / "other.npz")
    whole = (tmp_path / "other.npz").read_bytes()
    with open(tmp_path / "array.npz", "wb") as file:
        np.save(file, np.zeros(3))
    (tmp_path / "torn.npz").write_bytes(whole[: len(whole) // 2])
    mnist_like(tmp_path)
    whole = bytearray((tmp_path / "mnist.npz").read_bytes())
    whole[1000] ^= 1
    (tmp_path / "damaged.npz").write_bytes(whole)
    for name, reason in (("array", "File is not"), ("torn", "File is not"), ("damaged", "Bad CRC")):
        with pytest.raises(ValueError, match=rf"{name}.npz must be a whole .* \(got {reason}"):
            datasets.load_mnist(tmp_path / f"{name}.npz")
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x09abc")
    with pytest.raises(ValueError, match=r"must hold \[9\] values \(got 3 values\)"):
        datasets.load_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"GIF8")
    with pytest.raises(ValueError, match="must be an IDX file"):
        datasets.load_mnist(tmp_path)


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    assert "cpu_capability" in output
    assert output.count(" cpu   ok ") >= 5
    assert "FAILED" not in output


def test_demo_writes_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert main(["demo", "--steps", "25", "--lr", "1e-3", "3e-3", "--output", str(output)]) == 0
    text = capsys.readouterr().out
    for name in ("AdamW", "Shampoo", "Shampoo²", "optimal"):
        assert name in text
    for plot in ("training.png", "similarity.png"):
        assert (output / plot).read_bytes().startswith(b"\x89PNG")
    results = json.loads((output / "results.json").read_text())
    assert [run["optimizer"] for run in results["runs"]] == [
        "adamw",
        "shampoo",
        "shampoo2",
        "optimal",
    ]
    for run in results["runs"]:
        assert len(run["losses"]) == 25
        assert run["losses"][-1] < run["losses"][0]
    similarity = results["similarity"]["gauss_newton"]
    assert all(0 < value <= 1 + 1e-6 for values in similarity.values() for value in values)
    for optimal, shampoo2 in zip(similarity["optimal"], similarity["shampoo2"], strict=True):
        assert optimal >= shampoo2 - 1e-4


def test_demo_on_a_copy_of_mnist(tmp_path: Path) -> None:
    mnist_like(tmp_path)
    arguments = ["demo", "--data", str(tmp_path / "mnist.npz"), "--steps", "3"]
    assert main([*arguments, "--optimizers", "shampoo2", "--output", str(tmp_path / "o")]) == 0
    assert json.loads((tmp_path / "o" / "results.json").read_text())["data"] == "MNIST"


def test_bad_arguments_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "missing.npz")
    assert main(["demo", "--data", missing, "--output", str(tmp_path / "o")]) == 2
    assert "path must exist" in capsys.readouterr().out
    assert not (tmp_path / "o").exists(), "nothing may be written before the data are there"
    (tmp_path / "file").touch()
    assert main(["demo", "--output", str(tmp_path / "file")]) == 2
    assert main(["demo", "--data", str(tmp_path / "file")]) == 2
    diverging = ["demo", "--lr", "1e30", "--steps", "3", "--optimizers", "adamw"]
    assert main([*diverging, "--output", str(tmp_path / "d")]) == 2
    assert "finite loss" in capsys.readouterr().out
    for bad in (["demo", "--steps", "0"], ["demo", "--optimizers", "adam"], ["nothing"], []):
        with pytest.raises(SystemExit) as caught:
            main(bad)
        assert caught.value.code == 2
