"""What a preconditioner can be told: the keywords all three classes of `kronext.optim` share."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypedDict, get_args

Estimator = Literal["shampoo", "shampoo2", "optimal"]


class PreconditionerOptions(TypedDict, total=False):
    """The keywords as a type, all of them optional."""

    estimator: Estimator
    exponent: float
    beta: float | None
    eps: float
    relative_eps: float
    block_size: int
    update_interval: int
    start_step: int


@dataclass(frozen=True)
class Options:
    """The keywords with their defaults; `KroneckerPreconditioner` says what each means."""

    estimator: Estimator = "shampoo2"
    exponent: float = 0.5
    beta: float | None = 0.999
    eps: float = 0.0
    relative_eps: float = 1e-3
    block_size: int = 1024
    update_interval: int = 10
    start_step: int = 10

    def average_weights(self, step: int) -> tuple[float, float]:
        """Return (decay, weight) that fold sample number `step` into the factors.

        With `w = (1 - beta) / (1 - beta^step)` the running `L <- (1 - w) L + w G GT` equals the
        bias-corrected average `L_t / (1 - beta^t)` at every step, so nothing downstream (damping,
        roots, checkpoints) has to know of a correction.
        """
        if self.beta is None or self.beta == 1:
            return 1.0, 1.0
        return running_average_weights(self.beta, step)

    @property
    def weights_change(self) -> bool:
        """Whether `average_weights` goes by the step count after the first step."""
        return self.beta is not None and 0 < self.beta < 1

    def refreshes_roots(self, step: int) -> bool:
        """Return whether the roots are due at `step`, a parameter's own count from 1."""
        return step >= self.start_step and (step - self.start_step) % self.update_interval == 0


def running_average_weights(beta: float, step: int) -> tuple[float, float]:
    """Return (decay, weight) of a bias-corrected exponential average at its `step`-th sample."""
    weight = (1 - beta) / (1 - beta**step)
    return 1 - weight, weight


def checked_options(caller: str, options: PreconditionerOptions, base: Options) -> Options:
    """Return `base` with `options` laid over it.

    Raises:
        TypeError: a name or type is wrong.
        ValueError: a value is out of range.
    """
    names = [field.name for field in fields(Options)]
    for name in options:
        if name not in names:
            raise TypeError(f"{caller}: options must be among {', '.join(names)} (got {name})")
    merged = replace(base, **options)
    check_choice(caller, "estimator", merged.estimator, get_args(Estimator))
    check_number(caller, "exponent", merged.exponent, above=0)
    if merged.beta is not None:
        check_number(caller, "beta", merged.beta, at_least=0, at_most=1)
    check_number(caller, "eps", merged.eps, at_least=0)
    check_number(caller, "relative_eps", merged.relative_eps, at_least=0)
    for name in ("block_size", "update_interval", "start_step"):
        check_count(caller, name, getattr(merged, name))
    return merged


def check_choice(caller: str, name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        expected = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{caller}: {name} must be one of {expected} (got {name}={value!r})")


def check_count(caller: str, name: str, value: object) -> None:
    """Raise TypeError unless `value` is an int, ValueError unless it is at least 1."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{caller}: {name} must be an int (got {name}={value!r})")
    if value < 1:
        raise ValueError(f"{caller}: {name} must be >= 1 (got {name}={value})")


def check_number(
    caller: str,
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    below: float = math.inf,
) -> None:
    """Raise TypeError unless `value` is a number, ValueError unless it is finite and in range."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{caller}: {name} must be a number (got {name}={value!r})")
    bounds = (
        (math.isfinite(value), "finite"),
        (value > above, f"> {above:g}"),
        (value >= at_least, f">= {at_least:g}"),
        (value <= at_most, f"<= {at_most:g}"),
        (value < below, f"< {below:g}"),
    )
    for holds, expected in bounds:
        if not holds:
            raise ValueError(f"{caller}: {name} must be {expected} (got {name}={value})")
