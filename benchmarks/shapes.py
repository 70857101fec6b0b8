"""Layer shapes of real models, as an optimizer with blocks of at most 1024 sees them."""

from __future__ import annotations

# (out, in) of the weights that a block of the model repeats.
MODELS: dict[str, list[tuple[int, int]]] = {
    "resnet50": [(64, 64), (64, 576), (256, 64), (128, 512), (512, 256), (1024, 512)],
    "vit-b": [(768, 768), (768, 1024), (1024, 768)],
    "gpt2": [(768, 768), (768, 768), (1024, 768), (768, 1024)],
    "llama-7b": [(1024, 1024)],
}
SQUARE = [(64, 64), (128, 512), (256, 256), (512, 512), (512, 2048), (1024, 1024)]
# Ragged lists of many small parameters: (count, rows, columns).
SMALL = [(1000, 16, 16), (1000, 64, 64), (200, 32, 128)]
ROOT_SIZES = [4, 8, 16, 32, 64, 96, 128, 256, 512]
SAMPLES = [(256, 32, 32), (256, 64, 64), (256, 128, 128), (64, 256, 256)]
