"""`python -m benchmarks.monitor`: the part of a training step that `curvature.Monitor` takes.

Steps that record are timed apart from others and weighed by how often they come.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.runner import machine
from kronext import curvature, optim


class Block(nn.Module):
    """A transformer block of width `d` with four heads."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(d), nn.LayerNorm(d)])
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        """Attention, then the MLP, each on top of its input."""
        q, k, v = (
            part.unflatten(-1, (4, -1)).transpose(1, 2)
            for part in self.qkv(self.norms[0](x)).chunk(3, -1)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norms[1](x))))


def mlp() -> nn.Module:
    """784-512-512-10."""
    return nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )


def transformer() -> nn.Module:
    """Four blocks of width 256 between linear maps from and to 64 channels."""
    return nn.Sequential(nn.Linear(64, 256), *(Block(256) for _ in range(4)), nn.Linear(256, 64))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "MLP 784-512-512-10, batch 128": (mlp, (128, 784), 10),
    "transformer d=256 x 4, batch 8 x 128": (transformer, (8, 128, 64), 64),
}
OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "AdamW": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3),
    "Shampoo": lambda model: optim.Shampoo(model.parameters(), lr=1e-3, update_interval=10),
}


def seconds(call: Callable[[], object]) -> float:
    """The time of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def line(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> str:
    """What a step and the parts of the monitor take, medians of rounds in which they take turns."""

    def train() -> None:
        # Ten steps hold one refresh of the roots, whose cost is part of the mean step.
        for _ in range(10):
            optimizer.zero_grad()
            F.cross_entropy(model(x).flatten(0, -2), y).backward()
            optimizer.step()

    train()
    defaults = curvature.Monitor(optimizer)
    products_only = curvature.Monitor(optimizer, every=1, factors_every=10**9)
    factors_only = curvature.Monitor(optimizer, every=10**9, factors_every=1)
    for monitor in (defaults, products_only, factors_only):
        monitor.close()
        monitor.record()  # the first step of each kind
        monitor.record()
    rounds = []
    for _ in range(9):
        step = seconds(train) / 10
        products = seconds(products_only.record)
        factors = seconds(factors_only.record)
        share = products / defaults.every + factors / defaults.factors_every
        rounds.append((step, products, factors, share / step))
    step, products, factors, share = map(statistics.median, zip(*rounds, strict=True))
    return (
        f"step {1e3 * step:.1f} ms | products {1e3 * products:.1f} ms every {defaults.every} | "
        f"factors {1e3 * factors:.1f} ms every {defaults.factors_every} | {share:.2%} of a step"
    )


def main() -> None:
    """Prints one line a model and optimizer."""
    about = machine()
    print(f"{about['processor']}, {about['threads']} threads, torch {about['torch']}\n")
    for label, (make, shape, classes) in MODELS.items():
        for name, make_optimizer in OPTIMIZERS.items():
            torch.manual_seed(0)
            model = make()
            x, y = torch.randn(shape), torch.randint(classes, shape[:-1]).flatten()
            print(f"{label} | {name} | {line(model, make_optimizer(model), x, y)}", flush=True)


if __name__ == "__main__":
    main()
