"""What a step did: the counters behind `report()`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Report:
    """What the last step did.

    Attributes:
        step: largest step count among the parameters.
        parameters: preconditioned parameters whose gradient came in.
        blocks: their blocks.
        passed_through: other parameters with a gradient (0-D, 1-D, empty or excluded).
        roots_refreshed: inverse roots computed, two a block that was due.
        roots_failed: of these, roots that failed and kept their old value.
        gradients_skipped: gradients left out because they were not finite.
        total_roots_failed: failed roots since the optimizer was made.
        total_gradients_skipped: skipped gradients since the optimizer was made.
    """

    step: int = 0
    parameters: int = 0
    blocks: int = 0
    passed_through: int = 0
    roots_refreshed: int = 0
    roots_failed: int = 0
    gradients_skipped: int = 0
    total_roots_failed: int = 0
    total_gradients_skipped: int = 0

    def __str__(self) -> str:
        return (
            f"step {self.step}: {self.parameters} parameters in {self.blocks} blocks, "
            f"{self.passed_through} passed through; {self.roots_refreshed} roots refreshed, "
            f"{self.roots_failed} failed (total {self.total_roots_failed}); "
            f"{self.gradients_skipped} gradients skipped (total {self.total_gradients_skipped})"
        )


class DeviceCounter:
    """A count of the current step and one since the start, kept on each device until read."""

    def __init__(self) -> None:
        self._step: dict[torch.device, Tensor] = {}
        self._total: dict[torch.device, Tensor] = {}

    def start_step(self) -> None:
        """Set the count of the current step to zero."""
        for count in self._step.values():
            count.zero_()

    def add(self, count: Tensor) -> None:
        """Add a 0-D integer tensor to both counts, without a look at it."""
        # In place: a CUDA graph that is replayed must find its own sum of the last time.
        for counts in (self._step, self._total):
            if count.device not in counts:
                counts[count.device] = torch.zeros_like(count)
            counts[count.device].add_(count)

    def read_step(self) -> int:
        """Return the count of the current step; waits for the devices."""
        return sum(int(count) for count in self._step.values())

    def read_total(self) -> int:
        """Return the count since the start; waits for the devices."""
        return sum(int(count) for count in self._total.values())
