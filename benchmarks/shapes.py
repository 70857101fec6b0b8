"""Sizes of the cases: layers of real models as an optimizer's blocks see them, and sweeps."""

from __future__ import annotations

Shape = tuple[int, int]

# (out, in) of the weights that a block of the model repeats, cut to blocks of at most 1024.
MODELS: dict[str, list[Shape]] = {
    "resnet50": [(64, 64), (64, 576), (256, 64), (128, 512), (512, 256), (1024, 512)],
    "vit-b": [(768, 768), (768, 1024), (1024, 768)],
    "gpt2": [(768, 768), (768, 768), (1024, 768), (768, 1024)],
    "llama-7b": [(1024, 1024)],
}
SQUARE: list[Shape] = [(64, 64), (128, 128), (256, 256), (512, 512), (1024, 1024)]
OBLONG: list[Shape] = [(128, 512), (512, 2048)]
# Ragged lists of many small parameters: (count, rows, columns).
SMALL = [(1000, 16, 16), (1000, 64, 64), (200, 32, 128)]
ROOT_SIZES = [4, 8, 16, 32, 64, 96, 128, 256, 512]
ROOT_BATCHES = [1, 4, 16, 64, 256]
SINGLE_ROOT_SIZES = [32, 128, 256, 512, 1024]
# (samples, rows, columns)
SAMPLES = [(256, 32, 32), (256, 64, 64), (256, 128, 128), (64, 256, 256)]
# Further counts of 64 x 64 samples, for the plot.
SAMPLE_COUNTS = [16, 64, 1024]
# (samples, positions, rows, columns)
FACTORED = [(256, 1, 128, 128), (256, 8, 128, 128), (64, 64, 256, 256)]
DENSE: list[Shape] = [(16, 16), (32, 32), (64, 48)]


def transformer(d: int, layers: int) -> list[Shape]:
    """The matrices of a transformer of width `d`."""
    return [(3 * d, d), (d, d), (4 * d, d), (d, 4 * d)] * layers


def blocks(shapes: list[Shape], side: int) -> list[Shape]:
    """The blocks that the shapes are cut into where `side` divides what is larger."""
    return [
        (min(m, side), min(n, side))
        for m, n in shapes
        for _ in range(-(-m // side) * -(-n // side))
    ]
