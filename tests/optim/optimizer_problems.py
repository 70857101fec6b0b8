"""What the optimizer tests share: a small network with every kind of parameter."""

from __future__ import annotations

from collections.abc import Callable

import torch
from helpers import draw_integers, draw_normal
from torch import Tensor, nn

Problem = tuple[nn.Module, Callable[[int], Tensor]]


def make_problem(seed: int = 0, dtype: torch.dtype = torch.float32) -> Problem:
    """Return a network and the loss of its batch number `t`."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(24, 10), nn.Tanh(), nn.Linear(10, 3)
    ).to(dtype)
    with torch.no_grad():
        for parameter in net.parameters():
            values = draw_normal(generator, *parameter.shape)
            parameter.copy_(values / max(1, parameter[0].numel()) ** 0.5)

    def loss(t: int) -> Tensor:
        batch = torch.Generator().manual_seed(1000 + t)
        x = draw_normal(batch, 16, 2, 4, 4, dtype=dtype)
        target = draw_integers(batch, 0, 3, 16)
        return nn.functional.cross_entropy(net(x), target)

    return net, loss


def train(
    optimizer: torch.optim.Optimizer, loss: Callable[[int], Tensor], start: int, stop: int
) -> None:
    for t in range(start, stop):
        optimizer.zero_grad()
        loss(t).backward()
        optimizer.step()


def values_of(net: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in net.parameters()]
