"""Tables reach the device whole, whatever their length."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from types import ModuleType


def test_every_byte_arrives_and_no_other(
    emulator: ModuleType, schedules: Callable[[], Iterator[str]]
) -> None:
    data = random.Random(0).randbytes(70_000)
    for _ in schedules():
        for size in (0, 1, 16, 4000, 4001, 31_999, 32_000, 32_001, 36_000, 70_000):
            result = emulator.upload(data[:size])
            assert result[:size] == data[:size], size
            assert result[-16:] == b"\xff" * 16, f"{size}: wrote past the end"
