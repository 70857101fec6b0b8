"""Steps that a CUDA graph can capture: what changes from step to step is counted on the device.

A replay runs kernels and no Python. An average that is corrected for its start has weights that go
by the step count, so a captured step must find that count, and compute the weights, where it runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kronext.optim.blocks import BlockedParameter


def is_capturing() -> bool:
    """Return whether a CUDA graph records what the current stream is given."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def check_capture(
    caller: str,
    capturable: bool,
    members: Sequence[BlockedParameter],
    gradients: Sequence[Tensor | None],
) -> None:
    """Raise RuntimeError where a CUDA graph captures a step that it could not replay."""
    if not is_capturing():
        return
    if not capturable:
        raise RuntimeError(
            f"{caller}: capturable must be True for a CUDA graph to capture a step "
            "(got capturable=False)"
        )
    for index, (member, gradient) in enumerate(zip(members, gradients, strict=True)):
        made = "" if gradient is None else _made_in_next_step(member)
        if made:
            raise RuntimeError(
                f"{caller}: {made} must exist before a CUDA graph captures a step, run one that "
                f"makes them first (got parameter={index}, step={member.step})"
            )


def _made_in_next_step(member: BlockedParameter) -> str:
    """Return which state: a graph that allocates and zeroes it would do so at every replay."""
    if member.device_step is None:
        return "step counts and factors"
    due = member.options is not None and member.options.refreshes_roots(member.step + 1)
    return "roots" if due and not member.left_root else ""


def count_on_device(members: Sequence[BlockedParameter]) -> None:
    """Count one more step of each parameter."""
    for member in members:
        if member.device_step is None:
            device = member.parameter.device
            member.device_step = torch.full(
                (), member.step - 1.0, dtype=torch.float64, device=device
            )
    counts = [member.device_step for member in members if member.device_step is not None]
    if counts:
        torch._foreach_add_(counts, 1.0)


def average_scales(
    members: Sequence[BlockedParameter], beta: float, finite: Sequence[Tensor | None]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return `(before, after)` such that `L <- after (before L + G GT)` is the running average.

    The weights of an op are numbers of the host; factors that are scaled before and after it need
    none. Where a gradient is not finite both scales are 1.

    Args:
        members: parameters with factors, of one device and dtype.
        beta: of the average, between 0 and 1.
        finite: 0 where the gradient of one was not finite, None where the host knows that it is.

    Returns:
        Two scales a block, of the dtype of the factors.
    """
    steps = torch.stack([m.device_step for m in members if m.device_step is not None])
    after = (1 - beta) / (1 - beta**steps)
    before = (1 - after) / after
    flags = [flag for flag in finite if flag is not None]
    if flags:
        is_finite = torch.stack(flags) > 0
        before, after = (torch.where(is_finite, scale, 1.0) for scale in (before, after))
    return _one_a_block(members, before), _one_a_block(members, after)


def _one_a_block(members: Sequence[BlockedParameter], scales: Tensor) -> list[Tensor]:
    each = scales.to(members[0].left[0].dtype).unbind()
    return [scale for member, scale in zip(members, each, strict=True) for _ in member.left]
