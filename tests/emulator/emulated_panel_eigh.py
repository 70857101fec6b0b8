"""The emulated panel eigensolver behind the signatures of kronext.ops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emulated_inverse_root import EmulatedInverseRoot


@dataclass
class EmulatedPanelEigh(EmulatedInverseRoot):
    multiprocessors: int = 1  # few: pairs of panels meet in shared memory; many: in two launches
    # Of the latest call: for each matrix the shifts that failed, and the sweeps that had work.
    work: Sequence[tuple[int, int]] = ()

    def _launch(self, tasks: list[Any], options: tuple[float | bool, ...]) -> None:
        device = (self.multiprocessors, self.shared_bytes, self.slow_double)
        self.work, left_out = self.module.panel_eigh(tasks, *options, *device)
        assert left_out == 0, "a matrix is empty, or too large for the panel kernels"
