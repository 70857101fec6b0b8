"""Each kind of bug in a kernel is caught; tests/emulator/bugs.cu has one kernel for each."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

Schedules = Callable[[], Iterator[str]]
Program = Callable[..., "subprocess.CompletedProcess[str]"]

# A word of the message that the emulator raises, with the source line in it.
RAISED = {
    "divergent_barrier": "divergent barrier",
    "divergent_shuffle": "warp divergence",
    "lane_outside_its_mask": "the lane is not in its own mask",
    "mask_of_exited_lanes": "the mask names lanes that have exited",
    "shuffle_from_outside_the_mask": "outside the mask",
    "deadlock": "deadlock",
    "misaligned_copy": "an address is not a multiple of the size",
}
# Wrong numbers or NaN under some schedule.
SEEN_IN_VALUES = {
    "read_before_write",
    "warp_barrier_between_warps",
    "uninitialised_shared",
    "missing_copy_wait",
    "blocks_write_one_place",
}
ASAN = {"shared_overflow", "global_overflow"}
TSAN = {
    "read_before_write",
    "write_before_read_is_done",
    "warp_barrier_between_warps",
    "plain_sum_in_global_memory",
}
SOUND = {"no_bug", "no_bug_inside_a_warp"}


def test_every_bug_has_a_catcher(emulator: ModuleType) -> None:
    assert set(emulator.bug_names()) == set(RAISED) | SEEN_IN_VALUES | ASAN | TSAN | SOUND


@pytest.mark.parametrize("bug", RAISED)
def test_a_broken_rule_raises_with_the_source_line(
    bug: str, emulator: ModuleType, schedules: Schedules
) -> None:
    for schedule in schedules():
        with pytest.raises(emulator.EmulatorError) as caught:
            emulator.run_bug(bug)
        message = str(caught.value)
        assert "bugs.cu:" in message, f"{schedule}: {message}"
        assert RAISED[bug] in message, f"{schedule}: {message}"


@pytest.mark.parametrize("bug", sorted(SEEN_IN_VALUES))
def test_a_wrong_value_shows_under_some_schedule(
    bug: str, emulator: ModuleType, schedules: Schedules
) -> None:
    results = [emulator.run_bug(bug) for _ in schedules()]
    assert any(r != results[0] or any(math.isnan(v) for v in r) for r in results)


@pytest.mark.parametrize("kernel", sorted(SOUND))
def test_a_sound_kernel_gives_the_same_bits_under_every_schedule(
    kernel: str, emulator: ModuleType, schedules: Schedules
) -> None:
    partner = (lambda i: 127 - i) if kernel == "no_bug" else (lambda i: i ^ 1)
    for _ in schedules():
        assert emulator.run_bug(kernel) == [float(partner(i % 128)) for i in range(256)]


@pytest.mark.sanitize
@pytest.mark.parametrize(
    ("sanitizer", "bug", "report"),
    [("asan", bug, "AddressSanitizer") for bug in sorted(ASAN)]
    + [("tsan", bug, "data race") for bug in sorted(TSAN)],
)
def test_a_sanitizer_reports(sanitizer: str, bug: str, report: str, program: Program) -> None:
    result = program(f"bugs_{sanitizer}", bug)
    assert result.returncode != 0
    assert report in result.stderr
    assert "bugs.cu" in result.stderr


@pytest.mark.sanitize
@pytest.mark.parametrize("sanitizer", ["asan", "tsan"])
@pytest.mark.parametrize("kernel", sorted(SOUND))
def test_a_sanitizer_is_silent_about_a_sound_kernel(
    kernel: str, sanitizer: str, program: Program
) -> None:
    result = program(f"bugs_{sanitizer}", kernel)
    assert result.returncode == 0, result.stderr
