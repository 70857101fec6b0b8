"""Loaders of images, on tiny files in the formats of their authors."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kronext import datasets
from kronext.reproduce import sources


def write_cifar10(folder: Path) -> np.ndarray:
    folder.mkdir()
    data = np.random.default_rng(0).integers(0, 256, (15, 3072), dtype=np.uint8)
    for number in range(5):
        part = {b"data": data[3 * number : 3 * number + 3], b"labels": [number, 0, 9]}
        # The protocol of the authors' files.
        (folder / f"data_batch_{number + 1}").write_bytes(pickle.dumps(part, protocol=2))
    return data


def write_image(path: Path, size: tuple[int, int], color: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


RED, GREEN = (200, 0, 0), (0, 200, 0)


def write_folders(root: Path) -> None:
    write_image(root / "train" / "cat" / "1.png", (40, 20), RED)
    write_image(root / "train" / "dog" / "2.png", (20, 20), GREEN)
    write_image(root / "train" / "dog" / "1.png", (10, 30), GREEN)
    write_image(root / "test" / "cat" / "1.png", (20, 20), GREEN)
    (root / "train" / "cat" / "notes.txt").write_text("not an image")


def test_cifar10_pickles(tmp_path):
    data = write_cifar10(tmp_path / "cifar-10-batches-py")
    images = datasets.load_cifar10(tmp_path / "cifar-10-batches-py")
    assert (images.name, len(images), images.classes) == ("CIFAR-10", 15, 10)
    assert images.labels[:6].tolist() == [0, 0, 9, 1, 0, 9]
    # Rows hold the red plane first, row by row.
    pixels = images.pixels(torch.tensor([4]))
    assert pixels.shape == (1, 3, 32, 32)
    np.testing.assert_allclose(pixels[0, 1, 2, 3], data[4, 1024 + 2 * 32 + 3] / 255, rtol=1e-6)


def test_a_pickle_can_name_nothing_but_arrays(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar10(folder)
    (folder / "data_batch_3").write_bytes(pickle.dumps({b"data": print}))
    with pytest.raises(ValueError, match=r"data_batch_3 must be a pickle of arrays \(got .*print"):
        datasets.load_cifar10(folder)
    (folder / "data_batch_3").write_bytes(pickle.dumps({b"data": np.zeros((2, 5)), b"labels": [1]}))
    with pytest.raises(ValueError, match=r"must hold b'data' \(N, 3072\)"):
        datasets.load_cifar10(folder)
    (folder / "data_batch_3").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match=r"must hold a dictionary \(got list\)"):
        datasets.load_cifar10(folder)
    (folder / "data_batch_3").unlink()
    with pytest.raises(FileNotFoundError, match="must hold data_batch_3"):
        datasets.load_cifar10(folder)


def test_cifar5m_parts(tmp_path):
    X = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    for part in range(2):
        rows = slice(3 * part, 3 * part + 3)
        np.savez(tmp_path / f"cifar5m_part{part}.npz", X=X[rows], Y=np.arange(6)[rows])
    images = datasets.load_cifar5m(tmp_path)
    assert (images.name, images.labels.tolist()) == ("CIFAR-5M", list(range(6)))
    expected = torch.from_numpy(X[[5, 0]]).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(images.pixels(torch.tensor([5, 0])), expected)
    np.savez(tmp_path / "cifar5m_part1.npz", X=X[:, :16], Y=np.arange(6))
    with pytest.raises(ValueError, match=r"must hold X \(N, 32, 32, 3\) and Y"):
        datasets.load_cifar5m(tmp_path)
    (tmp_path / "cifar5m_part1.npz").write_bytes((tmp_path / "cifar5m_part0.npz").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"cifar5m_part1.npz must be a whole .npz file"):
        datasets.load_cifar5m(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"must hold cifar5m_part0\.npz"):
        datasets.load_cifar5m(tmp_path / "nothing")


@pytest.mark.parametrize("suffix", [None, ".tar", ".tar.xz"])
def test_folders_and_archives_of_image_files(tmp_path, suffix):
    path = tmp_path / "animals"
    write_folders(path)
    if suffix is not None:
        archive = tmp_path / f"animals{suffix}"
        with tarfile.open(archive, "w:xz" if suffix == ".tar.xz" else "w") as tar:
            for member in sorted(path.glob("*/*/*"), reverse=True):
                tar.add(member, member.relative_to(path))
        path = archive
    images = datasets.load_image_files(path, size=16)
    assert (images.name, images.classes) == ("animals", 2)
    assert images.labels.tolist() == [0, 1, 1], "of train alone, in the order of the names"
    pixels = images.pixels(torch.tensor([2, 0]))
    assert pixels.shape == (2, 3, 16, 16)
    expected = torch.tensor([GREEN, RED])[..., None, None] / 255
    torch.testing.assert_close(pixels, expected.expand_as(pixels))


def break_off(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip_bits(data: bytes) -> bytes:
    middle = len(data) // 2
    return (
        data[:middle] + bytes(255 - byte for byte in data[middle : middle + 9]) + data[middle + 9 :]
    )


@pytest.mark.parametrize("damage", [break_off, flip_bits])
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_a_damaged_archive_is_not_read_as_a_smaller_one(tmp_path, mode, damage):
    write_folders(tmp_path / "animals")
    path = tmp_path / "animals.tar"
    with tarfile.open(path, mode) as tar:
        # The archive breaks off, or goes on with what is no header, just after an image.
        image = next((tmp_path / "animals").glob("*/*/*"))
        for number in range(10):
            tar.add(image, f"a/{number}{image.suffix}")
        blocks = tar.offset
    data = path.read_bytes()
    path.write_bytes(damage(data[:blocks] if mode == "w" else data))
    with pytest.raises(ValueError, match=r"tar archive, which must be whole \(got path=.*\.tar\)"):
        datasets.load_image_files(path, size=16)


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_an_image_that_is_not_whole_is_named(tmp_path, kind):
    path = tmp_path / "animals" / "cat" / f"1.{kind}"
    path.parent.mkdir(parents=True)
    Image.effect_noise((40, 40), 50).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:700])
    images = datasets.load_image_files(tmp_path / "animals", size=16)
    with pytest.raises(ValueError, match=rf"animals: each image must be whole \(got .*1\.{kind}: "):
        images.pixels(torch.tensor([0]))


def test_classes_without_a_train_folder_and_nothing_at_all(tmp_path):
    write_image(tmp_path / "flat" / "a" / "1.png", (16, 16), RED)
    assert len(datasets.load_image_files(tmp_path / "flat", size=16)) == 1
    with pytest.raises(ValueError, match=r"path must hold <class>/<image>"):
        datasets.load_image_files(tmp_path / "flat" / "a", size=16)
    with pytest.raises(FileNotFoundError, match="path must exist"):
        datasets.load_image_files(tmp_path / "missing", size=16)
    (tmp_path / "file.tar").write_text("no archive")
    with pytest.raises(ValueError, match="must be a folder or a tar archive"):
        datasets.load_image_files(tmp_path / "file.tar", size=16)


def test_every_image_has_a_label():
    with pytest.raises(ValueError, match=r"images=3, labels=2"):
        datasets.ArrayImages("test", torch.zeros(3, 4), torch.zeros(2))


def test_data_without_images_are_refused():
    with pytest.raises(ValueError, match=r"test: there must be images \(got images=0\)"):
        datasets.ArrayImages("test", torch.zeros(0, 4), torch.zeros(0))


def test_the_checksum_tells_data_apart():
    arrays, labels = torch.arange(40).view(10, 4).to(torch.uint8), torch.arange(10)
    one = datasets.ArrayImages("a", arrays, labels).checksum()
    assert datasets.ArrayImages("b", arrays.clone(), labels.clone()).checksum() == one
    assert datasets.ArrayImages("a", arrays + 1, labels).checksum() != one
    assert datasets.ArrayImages("a", arrays, labels.flip(0)).checksum() != one


def test_data_are_found_by_name_in_a_folder_or_given_directly(tmp_path):
    write_cifar10(tmp_path / "cifar-10-batches-py")
    write_folders(tmp_path / "imagenette64")
    with tarfile.open(tmp_path / "cifar10_jpg.tar", "w") as tar:
        png = io.BytesIO()
        Image.new("RGB", (32, 32)).save(png, "png")
        member = tarfile.TarInfo("train/cat/1.png")
        member.size = png.tell()
        png.seek(0)
        tar.addfile(member, png)

    def name(kind: str, path: Path) -> str:
        return sources.find(kind, path)(8).name

    assert name("cifar", tmp_path) == "CIFAR-10", "pickles come before image files"
    assert name("cifar", tmp_path / "cifar-10-batches-py") == "CIFAR-10"
    assert name("cifar", tmp_path / "cifar10_jpg.tar") == "CIFAR-10 (JPEG)"
    assert name("imagenet", tmp_path) == "Imagenette"
    with pytest.raises(FileNotFoundError) as caught:
        sources.find("mnist", tmp_path)
    for part in ("mnist*.npz", "for mnist", "got", "imagenette64", "--preset quick"):
        assert part in str(caught.value)
    with pytest.raises(FileNotFoundError, match="--data must exist"):
        sources.find("mnist", tmp_path / "missing")


def test_mnist_is_found_as_npz_and_as_idx_files(tmp_path):
    labels = np.arange(6, dtype=np.uint8) % 3
    pixels = np.arange(6 * 784, dtype=np.uint32).astype(np.uint8).reshape(6, 28, 28)
    (tmp_path / "idx").mkdir()
    for part in ("train", "t10k"):
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            header = bytes([0, 0, 8, array.ndim]) + sizes
            (tmp_path / "idx" / f"{part}-{kind}-ubyte").write_bytes(header + array.tobytes())
    arrays = {"x_train": pixels, "y_train": labels, "x_test": pixels, "y_test": labels}
    np.savez(tmp_path / "mnist.npz", **arrays)
    npz, idx = (sources.find("mnist", path)(28) for path in (tmp_path, tmp_path / "idx"))
    assert npz.labels.tolist() == [0, 1, 0, 1], "zeros and ones alone"
    assert npz.checksum() == idx.checksum()


def test_bundled_digits_stand_for_every_data_set():
    two = sources.bundled("mnist", 28)
    assert two.classes == 2
    assert two.pixels(torch.tensor([0])).shape == (1, 64)
    ten = sources.bundled("imagenet", 24)
    assert ten.classes == 10
    assert ten.pixels(torch.tensor([3, 5])).shape == (2, 3, 24, 24)
