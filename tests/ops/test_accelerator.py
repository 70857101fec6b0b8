"""No op makes the host wait for a device, and every op can be captured in a graph."""

from __future__ import annotations

import pytest
import torch
from accelerator import capture, no_waiting, warm_up
from op_calls import CALLS

from kronext import ops


def test_every_op_has_a_call() -> None:
    functions = {name for name in ops.__all__ if name.islower()}
    assert functions == CALLS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_the_host_does_not_wait(name: str) -> None:
    call = CALLS[name]()
    with no_waiting():
        call()


@pytest.mark.parametrize("read", [torch.Tensor.item, torch.Tensor.nonzero, bool])
def test_a_read_of_the_host_is_noticed(read) -> None:
    value = torch.ones(1)
    with no_waiting(), pytest.raises(RuntimeError):
        read(value)


@pytest.mark.accelerator
@pytest.mark.parametrize("wait", [torch.Tensor.cpu, lambda _: torch.tensor([1.0, 2.0])])
def test_a_copy_that_waits_is_noticed(wait) -> None:
    value = torch.ones(1)
    with no_waiting(), pytest.raises(RuntimeError):
        wait(value)


@pytest.mark.accelerator
@pytest.mark.parametrize(
    "wait",
    [torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.cpu, lambda _: torch.tensor([1.0, 2.0])],
)
def test_a_capture_refuses_to_wait(wait) -> None:
    if torch.get_default_device().type == "cuda":
        pytest.skip("a capture that failed may leave torch's CUDA state unusable")
    value = torch.ones(1)
    with pytest.raises(RuntimeError):
        capture(lambda: wait(value))


@pytest.mark.accelerator
@pytest.mark.parametrize("name", CALLS)
def test_a_replay_gives_the_bits_of_an_eager_call(name: str) -> None:
    """In-place ops go on from where the last call left their arguments."""
    eager, captured = CALLS[name](), CALLS[name]()
    for _ in range(3):
        expected = eager()
    warm_up(captured)
    graph, results = capture(captured)
    for result in results:
        assert result.numel(), "an empty result would show nothing"
    graph.replay()
    graph.replay()
    for result, value in zip(results, expected, strict=True):
        assert torch.equal(result, value)
