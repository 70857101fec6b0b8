"""Where the formula is scale-free, the step is, at any scale that float32 can hold."""

from __future__ import annotations

import pytest
import torch
from helpers import normal, relative_error
from torch import nn

from kronext.optim import Preconditioned


@pytest.mark.parametrize("estimator", ["shampoo", "shampoo2", "optimal"])
@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6, 1e9])
def test_one_step_does_not_depend_on_the_scale_of_the_loss(estimator: str, scale: float) -> None:
    """At exponent 1/2 the first step is `H^{-1/2} g`, of degree 0 in `g`."""
    steps = []
    for factor in (1.0, scale):
        weight = nn.Parameter(torch.zeros(64, 48))
        base = torch.optim.SGD([weight], lr=1.0)
        optimizer = Preconditioned(base, graft=None, estimator=estimator, start_step=1)
        weight.grad = normal(64, 48) * factor
        optimizer.step()
        steps.append(weight.detach())
    assert relative_error(steps[1], steps[0]) <= 1e-4
    assert steps[0].norm() > 1
