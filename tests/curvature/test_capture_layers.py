"""What can be captured: convolutions, rows of a weight, each loss; see test_capture.py for how."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import device_generator
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap

from kronext import curvature, reference


def per_example_gradients(model, layer, loss, inputs, labels):
    """The gradient of one example's loss for a layer's weight as a matrix, by torch.func."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    name = f"{layer}.weight" if layer else "weight"

    def example(weight, x, y):
        output = functional_call(model, parameters | {name: weight}, x[None])
        return loss(output, y[None])

    return vmap(grad(example), (None, 0, 0))(parameters[name], inputs, labels).flatten(2)


def gauss_newton(model, layer, inputs, hessian):
    """`E[JT hessian(f(x)) J]`, with the Jacobian of the outputs by torch.func."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    name = f"{layer}.weight"

    def output(weight, x):
        return functional_call(model, parameters | {name: weight}, x[None]).flatten()

    J = vmap(jacrev(output), (None, 0))(parameters[name], inputs).flatten(2)
    return (J.mT @ hessian(model(inputs).detach().flatten(1)) @ J).mean(0)


def squared_error(output, target):
    return (output - target).square().sum() / 2


def record(model, layers, inputs, targets, **options):
    with curvature.capture(model, layers, **options) as recording:
        for x, y in zip(inputs.split([2, 3]), targets.split([2, 3]), strict=True):
            recording.record(model(x), y)
    return recording


CONVOLUTIONS = {
    "plain": (nn.Conv2d(4, 6, 3), (5, 6)),
    "without bias": (nn.Conv2d(4, 6, (3, 2), bias=False), (5, 6)),
    "one place": (nn.Conv2d(4, 6, 1), (1, 1)),
    "strided": (nn.Conv2d(4, 6, 3, stride=(2, 3), padding=(1, 2)), (7, 8)),
    "dilated": (nn.Conv2d(4, 6, (2, 3), dilation=(3, 2), padding=2), (7, 8)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, padding=1, stride=2), (5, 6)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), (5, 4)),
    "all at once": (nn.Conv2d(4, 6, (3, 2), (2, 1), (3, 1), (2, 3), groups=2), (6, 7)),
    "same": (nn.Conv2d(4, 6, (3, 4), padding="same", dilation=(2, 1)), (6, 7)),
    "valid": (nn.Conv2d(4, 6, 3, padding="valid"), (5, 5)),
    "circular": (nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="circular"), (5, 6)),
    "reflect": (nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="reflect", stride=2), (5, 6)),
    "replicate": (nn.Conv2d(4, 6, 3, padding="same", padding_mode="replicate"), (5, 6)),
    "1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (9,)),
    "1d circular": (nn.Conv1d(4, 6, 5, padding="same", padding_mode="circular"), (9,)),
    "3d": (nn.Conv3d(4, 6, (2, 1, 3), stride=(1, 2, 1), dilation=(1, 1, 2)), (3, 4, 6)),
    "3d replicate": (nn.Conv3d(2, 3, 3, padding=1, padding_mode="replicate"), (2, 3, 2)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_a_linear_layer_over_patches(normal, name):
    convolution, size = CONVOLUTIONS[name]
    model = nn.Sequential(convolution, nn.Tanh()).double()
    inputs = normal(5, convolution.in_channels, *size)
    targets = normal(*model(inputs).shape)
    expected = per_example_gradients(model, "0", squared_error, inputs, targets)
    recording = record(model, "0", inputs, targets, labels="real", loss="squared_error")
    D, A = recording["0"]
    torch.testing.assert_close(D.mT @ A, expected)


class Shared(nn.Module):
    """One convolution used twice, at two sizes, and another of other strides with its weight."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)
        self.tied = nn.Conv2d(3, 3, 3, stride=2)
        self.tied.weight = self.convolution.weight

    def forward(self, x):
        x = torch.tanh(self.convolution(x))
        x = torch.tanh(self.convolution(F.avg_pool2d(x, 2)))
        return self.tied(x).flatten(1)


def test_every_use_of_a_shared_convolution_counts(normal):
    model, inputs = Shared().double(), normal(5, 3, 8, 7)
    targets = torch.arange(5) % 3
    D, A = record(model, "convolution", inputs, targets, labels="real")["convolution"]
    expected = per_example_gradients(model, "convolution", F.cross_entropy, inputs, targets)
    torch.testing.assert_close(D.mT @ A, expected)


def test_steps_give_the_gradient_of_a_convolution_as_a_matrix(normal):
    model = nn.Sequential(nn.Conv2d(3, 4, 2)).double()
    history = curvature.StepGradients(model, ["0", "0[1:3]"])
    model(normal(5, 3, 4, 4)).square().sum().backward()
    history.record()
    assert torch.equal(history["0"][0], model[0].weight.grad.flatten(1))
    assert torch.equal(history["0[1:3]"][0], model[0].weight.grad.flatten(1)[1:3])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(6, 18)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        weights = (q @ k.mT).softmax(-1)
        return self.head((weights @ v).mean(1))


def test_rows_of_a_fused_projection_are_layers_of_their_own(normal):
    model, inputs, targets = Attention().double(), normal(5, 3, 6), torch.arange(5) % 4
    layers = ["qkv", "qkv[:12]", "qkv[-6:]", "qkv[6:12]", "head[:]"]
    recording = record(model, layers, inputs, targets, labels="real")
    whole = per_example_gradients(model, "qkv", F.cross_entropy, inputs, targets)
    for layer, rows in zip(
        layers[:-1], [slice(None), slice(12), slice(12, 18), slice(6, 12)], strict=True
    ):
        D, A = recording[layer]
        torch.testing.assert_close(D.mT @ A, whole[:, rows])
    assert recording["qkv[:12]"][1].shape == (5, 3, 6)
    D, A = recording["head[:]"]
    head = per_example_gradients(model, "head", F.cross_entropy, inputs, targets)
    torch.testing.assert_close(D.mT @ A, head)


@pytest.mark.parametrize("layer", ["qkv[18:]", "qkv[3:3]", "qkv[4:2]"])
def test_rows_that_are_not_there_are_refused(layer):
    with pytest.raises(ValueError, match=r"capture: .*outputs=18"):
        curvature.capture(Attention(), layer).__enter__()


@pytest.mark.parametrize("layer", ["qkv[1]", "qkv[a:b]", "value[:3]"])
def test_rows_of_no_known_form_are_refused(layer):
    with pytest.raises(ValueError, match="layer must name a module"):
        curvature.capture(Attention(), layer).__enter__()


def test_a_convolution_of_one_unbatched_input_is_refused(normal):
    model = nn.Conv2d(3, 4, 2)
    with curvature.capture(model, "", loss="squared_error") as recording:
        output = model(normal(3, 5, 5, dtype=torch.float32))
        with pytest.raises(ValueError, match=r"along dimension 0.*inputs=\[\(3, 5, 5\)\]"):
            recording.record(output)


@pytest.mark.parametrize("shape", [(4,), (2, 3)])
def test_expected_labels_of_squared_errors_give_the_gauss_newton_matrix(normal, shape):
    body = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(9, 6))
    model = nn.Sequential(body, nn.Unflatten(1, shape) if len(shape) == 2 else nn.Linear(6, 4))
    inputs = normal(5, 2, 4)
    model.double()
    recording = record(model, "0.0", inputs, inputs, labels="expected", loss="squared_error")
    expected = gauss_newton(
        model, "0.0", inputs, lambda f: torch.eye(f.shape[1]).double().expand(len(f), -1, -1)
    )
    torch.testing.assert_close(reference.second_moment(recording["0.0"]), expected)


def test_sampled_labels_of_squared_errors_are_normal(normal):
    """`D` is the noise itself: mean 0, second moment the identity, within 5 standard errors."""
    count = 20_000
    model = nn.Linear(2, 3).double()
    generator = device_generator(1)
    with curvature.capture(model, "", loss="squared_error", generator=generator) as recording:
        recording.record(model(normal(count, 2)))
    D = recording[""][0].squeeze(1)
    assert (D.mean(0).abs() <= 5 * count**-0.5).all()
    deviation = (D.mT @ D / count - torch.eye(3).double()).abs()
    assert (deviation <= 5 * (2 / count) ** 0.5).all()


@pytest.mark.parametrize("targets", [(5,), (5, 3), (10, 1)])
def test_targets_of_squared_errors_must_fit_the_output(normal, targets):
    model = nn.Linear(3, 2).double()
    with (
        curvature.capture(model, "", loss="squared_error", labels="real") as recording,
        pytest.raises(ValueError, match=r"squared_error takes one target .*output=\(5, 2\)"),
    ):
        recording.record(model(normal(5, 3)), torch.zeros(targets))


def test_one_output_takes_targets_without_its_dimension(normal):
    model, inputs = nn.Linear(3, 1).double(), normal(5, 3)
    with curvature.capture(model, "", loss="squared_error", labels="real") as recording:
        output = model(inputs)
        recording.record(output, torch.arange(5))
    torch.testing.assert_close(recording[""][0].flatten(), output.flatten() - torch.arange(5))


def test_a_frozen_convolution_is_captured_like_another(normal):
    model, inputs = nn.Sequential(nn.Conv2d(3, 4, 2)).double(), normal(5, 3, 4, 4)
    targets = normal(5, 4, 3, 3)
    expected = per_example_gradients(model, "0", squared_error, inputs, targets)
    model.requires_grad_(False)
    options = {"labels": "real", "loss": "squared_error"}
    D, A = record(model, "0", inputs, targets, **options)["0"]
    torch.testing.assert_close(D.mT @ A, expected)
