"""`python -m kronext doctor`: what was built and loaded, and whether it computes correctly."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kronext import build_info, ops, reference


def doctor() -> int:
    """Prints the build information and checks ops against float64; returns an exit status."""
    for name, value in build_info().items():
        text = " ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{name:<20} {text if text != '' else '-'}")
    print()
    return int(sum(_failures(device) for device in _devices()) > 0)


def _devices() -> list[torch.device]:
    """What the ops run on here."""
    devices = [torch.device("cpu")]
    if build_info()["cuda"] and torch.cuda.is_available():
        devices.append(torch.device("cuda"))
    return devices


def _failures(device: torch.device) -> int:
    failures = 0
    with device:
        for name, check in _CHECKS.items():
            error, bound = check(), 1e-5
            passed = error <= bound
            failures += not passed
            verdict = "ok" if passed else "FAILED"
            text = f"{device.type:<5} {verdict:<7} relative error {error:.1e}, at most {bound:.0e}"
            print(f"{name:<20} {text}")
    return failures


def _normal(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    numbers = torch.randn(*shape, generator=generator, device="cpu")
    return numbers.to(torch.get_default_device())


def _error(results: Tensor | tuple[Tensor, ...], oracles: Tensor | tuple[Tensor, ...]) -> float:
    pairs = zip(_tuple(results), _tuple(oracles), strict=True)
    return max(float((a.double() - b).norm() / b.norm()) for a, b in pairs)


def _tuple(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else value


def _outer() -> float:
    G, L, R = _normal(40, 70), torch.eye(40), torch.eye(70)
    oracle = 0.9 * L.double() + 0.1 * G.double() @ G.double().mT
    ops.outer_update_(L, R, G, decay=0.9, weight=0.1)
    return _error(L, oracle)


def _inverse_root() -> float:
    x = _normal(5, 40, 60)
    a = x @ x.mT
    return _error(ops.inverse_root(a, 4).root, reference.inverse_root(a, 4))


def _precondition() -> float:
    operands = _normal(40, 70), _normal(40, 40), _normal(70, 70)
    return _error(ops.precondition(*operands), reference.precondition(*operands))


def _kron_matvec() -> float:
    operands = _normal(9, 40, 70), torch.eye(40), torch.eye(70)
    return _error(ops.kron_matvec(*operands), reference.kron_matvec(*operands))


def _power_iteration() -> float:
    samples = _normal(9, 12, 20)
    result, oracle = ops.power_iteration(samples), reference.power_iteration(samples)
    return _error(result.left, oracle.left)


_CHECKS: dict[str, Callable[[], float]] = {
    "outer_update_": _outer,
    "inverse_root": _inverse_root,
    "precondition": _precondition,
    "kron_matvec": _kron_matvec,
    "power_iteration": _power_iteration,
}
