from __future__ import annotations

import pytest
import torch
from helpers import draw_normal


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def normal(rng):
    """Standard normal tensors, the same in every run."""

    def draw(*shape, dtype=torch.float64):
        return draw_normal(rng, *shape, dtype=dtype)

    return draw


@pytest.fixture
def gradients(normal):
    """Samples whose rows and columns have unequal scale, so that `H` is far from the identity."""

    def draw(count, m, n, dtype=torch.float64):
        rows = torch.linspace(1, 0.2, m, dtype=torch.float64)[:, None]
        columns = torch.linspace(0.3, 2, n, dtype=torch.float64)
        mixing = torch.eye(m).double() + 0.5 * normal(m, m)
        return (mixing @ (rows * normal(count, m, n) * columns)).to(dtype)

    return draw


@pytest.fixture
def kronecker_samples(normal):
    """Samples whose second moment is exactly `A (x) B`, as `(samples, A, B)`."""

    def draw(m, n, dtype=torch.float64):
        left, right = normal(m, m), normal(n, n)
        units = torch.eye(m * n).double().view(m * n, m, n)
        samples = (m * n) ** 0.5 * left @ units @ right.mT
        return samples.to(dtype), left @ left.mT, right @ right.mT

    return draw
