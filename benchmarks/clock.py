"""The clock that everything here is timed with."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def clock() -> Callable[[], float]:
    """Returns the clock that is read.

    One thread on the CPU is timed by the processor time of the process, which is the time on the
    wall where nothing else runs, and which other jobs on the machine do not lengthen.
    """
    alone = torch.get_num_threads() == 1 and torch.get_default_device().type == "cpu"
    return time.process_time if alone else time.perf_counter


def wait_for_device() -> None:
    """Lets a queue of kernels run empty, before the clock is read."""
    if torch.get_default_device().type == "cuda":
        torch.cuda.synchronize()
