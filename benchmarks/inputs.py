"""Inputs of the cases."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

NAMES = {torch.float64: "float64", torch.float32: "float32", torch.bfloat16: "bfloat16"}


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Normal numbers, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(*shape, generator=generator, device="cpu")
    return numbers.to(torch.get_default_device(), dtype)


def gradients(shapes: Sequence[tuple[int, int]], seed: int = 0) -> list[Tensor]:
    """Matrices with decaying spectra on both sides, as gradients have them."""
    bases = {}
    for side in sorted({side for shape in shapes for side in shape}):
        orthogonal, _ = torch.linalg.qr(normal(side, side, seed=side))
        bases[side] = orthogonal * torch.arange(1, side + 1) ** -0.5
    return [
        bases[m] @ normal(m, n, seed=seed + index) @ bases[n].T
        for index, (m, n) in enumerate(shapes)
    ]


def error_of(result: Tensor, oracle: Tensor) -> float:
    """Relative, in the Frobenius norm."""
    return float((result.double() - oracle.double()).norm() / oracle.double().norm())


def bytes_beyond_caches() -> int:
    """How much data no cache of the device holds much of."""
    device = torch.get_default_device()
    if device.type == "cuda":
        return max(64_000_000, 4 * torch.cuda.get_device_properties(device).L2_cache_size)
    return 64_000_000


def sets_of(bytes_of_one: float) -> int:
    """How many input sets, walked through in turn, leave the caches as a training step does."""
    return max(1, min(16, int(bytes_beyond_caches() / max(bytes_of_one, 1))))
