"""Every keyword is checked, by name and value, before anything is made."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import assert_refused, normal
from torch import nn

from kronext.optim import KroneckerPreconditioner, Preconditioned, Shampoo

BAD_VALUES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"exponent": -1}, ValueError, "exponent must be > 0 (got exponent=-1)"),
    ({"exponent": 0}, ValueError, "exponent must be > 0"),
    ({"exponent": float("nan")}, ValueError, "exponent must be finite"),
    ({"exponent": float("inf")}, ValueError, "exponent must be finite"),
    ({"exponent": "half"}, TypeError, "exponent must be a number (got exponent='half')"),
    ({"beta": 1.5}, ValueError, "beta must be <= 1 (got beta=1.5)"),
    ({"beta": -0.1}, ValueError, "beta must be >= 0"),
    ({"eps": -1e-3}, ValueError, "eps must be >= 0"),
    ({"relative_eps": -1.0}, ValueError, "relative_eps must be >= 0"),
    ({"relative_eps": True}, TypeError, "relative_eps must be a number"),
    ({"block_size": 0}, ValueError, "block_size must be >= 1 (got block_size=0)"),
    ({"block_size": 8.0}, TypeError, "block_size must be an int (got block_size=8.0)"),
    ({"update_interval": 0}, ValueError, "update_interval must be >= 1"),
    ({"start_step": 0}, ValueError, "start_step must be >= 1"),
    ({"start_step": True}, TypeError, "start_step must be an int"),
    ({"estimator": "kfac"}, ValueError, "estimator must be one of 'shampoo', 'shampoo2'"),
    ({"block": 8}, TypeError, "options must be among estimator, exponent"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD_VALUES)
@pytest.mark.parametrize("kind", ["engine", "wrapper", "ready-made", "group"])
def test_shared_options(
    kind: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    weight = nn.Parameter(normal(3, 3))

    def make() -> object:
        match kind:
            case "engine":
                return KroneckerPreconditioner([weight], **options)
            case "wrapper":
                return Preconditioned(torch.optim.SGD([weight], lr=0.1), **options)
            case "ready-made":
                return Shampoo([weight], **options)
            case _:
                return Shampoo([{"params": [weight], "preconditioner": options}])

    caller = {"engine": "KroneckerPreconditioner", "wrapper": "Preconditioned"}.get(kind, "Shampoo")
    assert_refused(make, error, f"{caller}: {message}")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"graft": "adam"}, ValueError, "graft must be one of 'base', 'grad', None"),
        ({"momentum": 1.0}, ValueError, "momentum must be < 1 (got momentum=1.0)"),
        ({"momentum": 0.9, "graft": None}, ValueError, "momentum must be None unless graft='base'"),
        ({"momentum": "much"}, TypeError, "momentum must be a number"),
    ],
)
def test_options_of_preconditioned(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    base = torch.optim.SGD([nn.Parameter(normal(3, 3))], lr=0.1)
    assert_refused(lambda: Preconditioned(base, **options), error, f"Preconditioned: {message}")


def test_bases_that_cannot_be_wrapped() -> None:
    weight = nn.Parameter(normal(3, 3))
    assert_refused(
        lambda: Preconditioned([weight]),  # type: ignore[arg-type]
        TypeError,
        "Preconditioned: base must be a torch.optim.Optimizer (got list)",
    )
    assert_refused(
        lambda: Preconditioned(torch.optim.LBFGS([weight])),
        TypeError,
        "Preconditioned: base must step without a closure (got LBFGS)",
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lr": -1.0}, ValueError, "lr must be >= 0 (got lr=-1.0)"),
        ({"lr": torch.tensor(-1.0)}, ValueError, "lr must be >= 0 (got lr=-1.0)"),
        ({"lr": torch.ones(2)}, TypeError, "lr must be a number (got lr=tensor([1., 1.]"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay must be >= 0"),
        ({"graft_eps": -1.0}, ValueError, "graft_eps must be >= 0"),
        ({"betas": (0.9, 1.0)}, ValueError, "betas[1] must be < 1"),
        ({"betas": (-0.1, 0.9)}, ValueError, "betas[0] must be >= 0"),
        ({"betas": 0.9}, TypeError, "betas must be two numbers (got betas=0.9)"),
        ({"graft": "base"}, ValueError, "graft must be one of 'adam', 'adagrad'"),
    ],
)
def test_options_of_shampoo(options: dict[str, Any], error: type[Exception], message: str) -> None:
    weight = nn.Parameter(normal(3, 3))
    assert_refused(lambda: Shampoo([weight], **options), error, f"Shampoo: {message}")


def test_lists_of_gradients_must_fit() -> None:
    engine = KroneckerPreconditioner([torch.zeros(3, 3), torch.zeros(3)])
    assert_refused(
        lambda: engine.update([torch.zeros(3, 3)]),
        ValueError,
        "gradients must be one per param",
    )
    assert_refused(
        lambda: engine.update([torch.zeros(9), None]), ValueError, "must keep the shape (3, 3)"
    )
    engine.update([normal(3, 3), None])
    assert_refused(
        lambda: engine.precondition([]), ValueError, "tensors must be one per parameter (got 0"
    )
    assert_refused(
        lambda: engine.precondition([normal(9), None]),
        ValueError,
        "parameter 0 and its tensor must keep the shape (3, 3)",
    )
    assert_refused(
        lambda: KroneckerPreconditioner([1.0]),  # type: ignore[list-item]
        TypeError,
        "parameters must be tensors (got float)",
    )
