"""What only a device with a queue of its own can show: who waits for it, and graphs of its work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import pretend_device
import torch
from torch.utils._python_dispatch import TorchDispatchMode

T = TypeVar("T")


class _RefuseToRead(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if pretend_device.waits(func, args, kwargs):
            raise RuntimeError(f"{func} makes the host wait for the device")
        return func(*args, **kwargs)


@contextmanager
def no_waiting() -> Iterator[None]:
    """Raises where the host waits for the device, as far as the device can tell."""
    device = torch.get_default_device().type
    if device == "cpu":
        with _RefuseToRead():
            yield
    elif device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
    else:
        token = pretend_device.host_may_wait.set(False)
        try:
            yield
        finally:
            pretend_device.host_may_wait.reset(token)


class Graph(Protocol):
    """What `torch.cuda.CUDAGraph` offers."""

    def replay(self) -> None: ...


def capture(call: Callable[[], T]) -> tuple[Graph, T]:
    """A graph of the work of a call, which does not run, and what the call returned."""
    if torch.get_default_device().type == "cuda":
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = call()
        return graph, results
    with pretend_device.PretendGraph() as pretended:
        results = call()
    return pretended, results


def warm_up(call: Callable[[], object], times: int = 1) -> None:
    """Calls on another stream than the default one, as a capture wants it."""
    if torch.get_default_device().type != "cuda":
        for _ in range(times):
            call()
        return
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(times):
            call()
    torch.cuda.current_stream().wait_stream(stream)
