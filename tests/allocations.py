"""How much memory a call takes, by torch's own accounting."""

from __future__ import annotations

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak_bytes(call: Callable[[], object], *, warm: bool = True) -> int:
    """The most that `call` holds at a time through torch's CPU allocator, its result included.

    With `warm` not what stays from one call to the next.
    """
    if warm:
        call()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        result = call()
    kineto = profiled.profiler.kineto_results  # type: ignore[union-attr]
    changes = [event for event in kineto.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    assert changes or result is None, "the profiler saw no allocation at all"
    return int(most)
