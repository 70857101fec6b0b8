"""What a GPU refuses and does, which the pretended device must too."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from helpers import device_generator, normal

pytestmark = pytest.mark.accelerator


def test_constructors_obey_the_default_device() -> None:
    here = torch.get_default_device().type
    made = [torch.ones(3), torch.tensor([1.0]), torch.eye(3), normal(3), torch.nn.Linear(2, 3).bias]
    made += [copy.deepcopy(made[0]), made[0][1:], made[0].double(), torch.full_like(made[0], 2.0)]
    assert all(tensor.device.type == here != "cpu" for tensor in made)
    assert torch.ones(3, device="cpu").device.type == made[0].cpu().device.type == "cpu"


def test_tensors_of_two_devices_are_refused() -> None:
    for one, other in [(torch.ones(3), torch.ones(3).cpu()), (torch.ones(3).cpu(), torch.ones(3))]:
        with pytest.raises(RuntimeError, match="device"):
            one + other
        with pytest.raises(RuntimeError, match="device"):
            torch.equal(one, other)
        one.copy_(other)


def test_a_generator_of_the_cpu_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"generator"):
        torch.randn(3, generator=torch.Generator())
    first, second = (torch.randn(3, generator=device_generator(5)) for _ in range(2))
    assert torch.equal(first, second)


def test_numbers_do_not_reach_numpy_without_a_copy() -> None:
    with pytest.raises((RuntimeError, TypeError)):
        torch.ones(3).numpy()
    assert torch.ones(3).cpu().numpy().sum() == 3


def test_views_share_their_memory_and_gradients_arrive() -> None:
    x = torch.zeros(3, 4)
    x[1:, ::2].add_(1)
    assert x.sum() == 4
    w = normal(3, 4).requires_grad_()
    (w * x).sum().backward()
    assert torch.equal(w.grad, x)


def test_tensors_are_saved_and_loaded() -> None:
    buffer, x = io.BytesIO(), normal(3, 4)
    torch.save({"x": x}, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer)["x"], x)
