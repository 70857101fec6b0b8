"""On an ill-conditioned problem every preconditioned optimizer beats its base, both well tuned."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import pytest
import torch
from helpers import integers, normal
from torch import Tensor, nn

from kronext.optim import Preconditioned, Shampoo

STEPS = 120
BATCH = 128
SOON = {"start_step": 5, "update_interval": 5}
LEARNING_RATES = [10.0**exponent for exponent in (0, 0.5, 1, 1.5, 2)]
Make = Callable[[Iterable[Tensor], float], torch.optim.Optimizer]


@functools.cache
def examples() -> tuple[Tensor, Tensor]:
    """Return inputs scaled over one and a half decades, then rotated, and a teacher's labels.

    What the labels depend on most may be scaled down most, as in images, and the rotation leaves
    no learning rate per coordinate that would even it out.
    """
    rotation, _ = torch.linalg.qr(normal(24, 24, seed=1))
    causes = normal(2048, 24, seed=4)
    labels = (causes @ normal(24, 8, seed=3)).argmax(1)
    return causes * torch.logspace(0, -1.5, 24) @ rotation, labels


def final_loss(make: Make, lr: float) -> float:
    inputs, labels = examples()
    weight = nn.Parameter(torch.zeros(8, 24))
    optimizer = make([weight], lr)
    for t in range(STEPS):
        chosen = integers(0, 2048, BATCH, seed=t)
        optimizer.zero_grad()
        nn.functional.cross_entropy(inputs[chosen] @ weight.mT, labels[chosen]).backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - (t + 1) / STEPS)
    with torch.no_grad():
        return nn.functional.cross_entropy(inputs @ weight.mT, labels).item()


def best(make: Make, factor: float = 1.0) -> float:
    results = [final_loss(make, factor * lr) for lr in LEARNING_RATES]
    return min(result for result in results if result == result)


def base(name: str, params: Iterable[Tensor], lr: float) -> torch.optim.Optimizer:
    if name == "SGD":
        return torch.optim.SGD(params, lr=lr, momentum=0.9)
    return torch.optim.AdamW(params, lr=lr, weight_decay=0.0)


@functools.cache
def best_of_base(name: str) -> float:
    return best(functools.partial(base, name))


@pytest.mark.parametrize("estimator", ["shampoo", "shampoo2", "optimal"])
@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_preconditioned_beats_its_base(name: str, estimator: str) -> None:
    result = best(
        lambda params, lr: Preconditioned(base(name, params, lr), estimator=estimator, **SOON)
    )
    assert result < 0.7 * best_of_base(name)


@pytest.mark.parametrize("graft", ["adam", "adagrad", "rmsprop", "sgd", "grad", None])
def test_shampoo_beats_adamw(graft: str | None) -> None:
    factor = 0.1 if graft == "rmsprop" else 1.0  # its average starts at zero and is not corrected
    result = best(lambda params, lr: Shampoo(params, lr=lr, graft=graft, **SOON), factor)
    assert result < 0.7 * best_of_base("AdamW")
