from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import device_generator, integers
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.utils.checkpoint import checkpoint

from kronext import curvature, reference


class Pooled(nn.Module):
    """A layer over positions, called twice (shared), and a ReLU that overwrites its output."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Linear(6, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = F.relu(self.shared(x), inplace=True)
        return self.head(self.shared(x).mean(1))


class ByKeyword(nn.Module):
    """A layer whose input is a keyword argument."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x):
        return self.layer(input=x)


class Tied(nn.Module):
    """Two linear modules that hold one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


class Checkpointed(nn.Module):
    """A hidden part that the backward pass computes anew, unless `use_reentrant` is None."""

    def __init__(self, use_reentrant):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh())
        self.head = nn.Linear(5, 4)
        self.use_reentrant = use_reentrant

    def forward(self, x):
        if self.use_reentrant is None:
            return self.head(self.body(x))
        return self.head(checkpoint(self.body, x, use_reentrant=self.use_reentrant))


class PerPosition(nn.Module):
    """One output a position, like a language model."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(6, 7)
        self.head = nn.Linear(7, 4)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x)))


def mlp():
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 4))


# How to make a model, its layers, and the shapes that follow the examples in inputs and labels.
MODELS = {
    "mlp": (mlp, ["0", "2"], (6,), ()),
    "shared": (Pooled, ["shared", "head"], (3, 6), ()),
    "positions": (PerPosition, ["body", "head"], (3, 6), (3,)),
    "keyword": (ByKeyword, ["layer"], (6,), ()),
    "tied": (Tied, ["first", "head"], (6,), ()),
}


def make(name, normal):
    """A model, its layers, nine inputs and their labels."""
    make_model, layers, input_shape, label_shape = MODELS[name]
    torch.manual_seed(0)
    labels = integers(0, 4, 9, *label_shape)
    return make_model().double(), layers, normal(9, *input_shape), labels


@pytest.fixture(params=MODELS)
def case(request, normal):
    return make(request.param, normal)


def per_example_gradients(model, layer, inputs, labels):
    """The gradient of one example's loss, by torch.func."""
    parameters = dict(model.named_parameters())

    def loss(parameters, x, y):
        output = functional_call(model, parameters, x[None])
        return F.cross_entropy(output.flatten(0, -2), y.flatten(), reduction="sum")

    return vmap(grad(loss), (None, 0, 0))(parameters, inputs, labels)[f"{layer}.weight"]


@pytest.mark.parametrize("batches", [[9], [4, 4, 1]])
def test_real_labels_give_the_per_example_gradients(case, batches):
    model, layers, inputs, labels = case
    with curvature.capture(model, layers, labels="real") as recording:
        for x, y in zip(inputs.split(batches), labels.split(batches), strict=True):
            recording.record(model(x), y)
    for layer in layers:
        D, A = recording[layer]
        expected = per_example_gradients(model, layer, inputs, labels)
        torch.testing.assert_close(D.mT @ A, expected)


def test_training_on_the_captured_forward_pass_is_undisturbed(case):
    model, layers, inputs, labels = case

    def loss(output):
        return F.cross_entropy(output.flatten(0, -2), labels.flatten())

    loss(model(inputs)).backward()
    expected = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    with curvature.capture(model, layers) as recording:
        output = model(inputs)
        recording.record(output)
        assert all(parameter.grad is None for parameter in model.parameters())
        loss(output).backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_frozen_layers_are_captured_like_others(case):
    model, layers, inputs, labels = case
    expected = per_example_gradients(model, layers[0], inputs, labels)
    model.requires_grad_(False)
    with curvature.capture(model, layers, labels="real") as recording:
        recording.record(model(inputs), labels)
    D, A = recording[layers[0]]
    torch.testing.assert_close(D.mT @ A, expected)


def test_a_model_may_overwrite_what_a_layer_has_read(normal):
    class Overwriting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, x):
            buffer = x.clone()
            output = self.layer(buffer)
            buffer.zero_()
            return output

    model, inputs, labels = Overwriting().double(), normal(9, 6), torch.arange(9) % 4
    with curvature.capture(model, "layer", labels="real") as recording:
        recording.record(model(inputs), labels)
    assert torch.equal(recording["layer"][1].squeeze(1), inputs)


def test_hooks_go_with_the_context_even_after_an_error(case):
    model, layers, inputs, _ = case
    with pytest.raises(RuntimeError), curvature.capture(model, layers):
        model(inputs[..., :1])
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_forward_passes_without_grad_do_not_count(case):
    model, layers, inputs, labels = case
    with curvature.capture(model, layers, labels="real") as recording:
        output = model(inputs)
        with torch.no_grad():
            model(2 * inputs[:2])
        recording.record(output, labels)
    D, A = recording[layers[0]]
    torch.testing.assert_close(D.mT @ A, per_example_gradients(model, layers[0], inputs, labels))


@pytest.mark.parametrize("name", ["mlp", "shared", "tied"])
def test_expected_labels_give_the_gauss_newton_matrix(normal, name):
    """`H_GN = E_x[JT (diag(p) - p pT) J]`, with the Jacobian of the logits by torch.func."""
    model, layers, inputs, _ = make(name, normal)
    parameters = {key: value.detach() for key, value in model.named_parameters()}
    with curvature.capture(model, layers, labels="expected") as recording:
        recording.record(model(inputs[:5]))
        recording.record(model(inputs[5:]))
    p = model(inputs).softmax(1).detach()
    hessian = p.diag_embed() - p.unsqueeze(2) * p.unsqueeze(1)
    for layer in layers:
        weight = f"{layer}.weight"

        def logits(W, x, weight=weight):
            return functional_call(model, parameters | {weight: W}, x[None])[0]

        J = vmap(jacrev(logits), (None, 0))(parameters[weight], inputs).flatten(2)
        expected = (J.mT @ hessian @ J).mean(0)
        torch.testing.assert_close(reference.second_moment(recording[layer]), expected)


def test_sampled_labels_agree_with_expected_ones_within_their_scatter(normal):
    """The mean over 20,000 draws lies within five standard errors of the expectation."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3)).double()
    inputs = normal(1, 4).expand(20_000, 4)
    generator = device_generator(1)
    with curvature.capture(model, "0", generator=generator) as sampled:
        sampled.record(model(inputs))
    with curvature.capture(model, "0", labels="expected") as expected:
        expected.record(model(inputs[:1]))
    D, A = sampled["0"]
    squares = (D.mT @ A).flatten(1).square()
    truth = reference.second_moment(expected["0"]).diagonal()
    standard_error = squares.std(0) / 20_000**0.5
    assert ((squares.mean(0) - truth).abs() <= 5 * standard_error + 1e-12).all()
    assert (D.mean(0).abs() <= 5 * D.std(0) / 20_000**0.5).all(), "sampled gradients have mean 0"


def test_sampled_labels_repeat_with_their_generator(case):
    model, layers, inputs, _ = case

    def draw(seed):
        generator = device_generator(seed)
        with curvature.capture(model, layers, generator=generator) as recording:
            recording.record(model(inputs))
        return recording[layers[0]][0]

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


@pytest.mark.parametrize("labels", ["real", "expected"])
def test_one_logit_has_the_gauss_newton_matrix_of_two(normal, labels):
    """A logit `w.x` is a softmax over `(0, w.x)`, whose second row of gradients it keeps."""
    inputs, targets = normal(8, 4), torch.arange(8) % 2
    one = nn.Sequential(nn.Linear(4, 1, bias=False)).double()
    two = nn.Sequential(nn.Linear(4, 2, bias=False)).double()
    with torch.no_grad():
        two[0].weight.copy_(torch.cat([torch.zeros(1, 4), one[0].weight]))
    with curvature.capture(one, "0", loss="binary_cross_entropy", labels=labels) as single:
        single.record(one(inputs), targets)
    with curvature.capture(two, "0", labels=labels) as double:
        double.record(two(inputs), targets)
    D, A = double["0"]
    torch.testing.assert_close(
        reference.second_moment(single["0"]), reference.second_moment((D[..., 1:], A))
    )


def test_step_gradients_sum_to_adagrads_matrix(normal):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    history = curvature.StepGradients(model, ["0", "1"])
    adagrad = torch.zeros(6, 6).double()
    for _ in range(4):
        optimizer.zero_grad(set_to_none=False)
        model(normal(5, 3)).square().sum().backward()
        history.record()
        g = model[0].weight.grad.flatten()
        adagrad += torch.outer(g, g)
        optimizer.step()
    assert history["1"].shape == (4, 2, 2)
    torch.testing.assert_close(4 * reference.second_moment(history["0"]), adagrad)


def test_step_gradients_come_after_backward():
    history = curvature.StepGradients(nn.Sequential(nn.Linear(3, 2)), "0")
    with pytest.raises(ValueError, match=r"StepGradients: .*layer='0'"):
        history.record()
    with pytest.raises(ValueError, match=r"StepGradients: .*'1'"):
        curvature.StepGradients(nn.Sequential(nn.Linear(3, 2)), "1")


@pytest.mark.parametrize(
    ("layers", "options", "error", "message"),
    [
        ("3", {}, ValueError, "'3'"),
        ("1", {}, TypeError, "'1', ReLU"),
        ("0", {"loss": "hinge"}, ValueError, "loss='hinge'"),
        ("0", {"labels": "true"}, ValueError, "labels='true'"),
    ],
)
def test_what_cannot_be_captured_is_refused_at_once(layers, options, error, message):
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU())
    with pytest.raises(error, match=f"capture: .*{message}"):
        curvature.capture(model, layers, **options).__enter__()
    assert not model._forward_pre_hooks


def test_recording_without_its_forward_pass_or_labels_is_refused(case):
    model, layers, inputs, labels = case
    with curvature.capture(model, layers, labels="real") as recording:
        with pytest.raises(ValueError, match=r"latest forward .*examples=9, inputs=\[\]"):
            recording.record(torch.zeros(9, 4), labels)
        output = model(inputs)
        with pytest.raises(ValueError, match="targets=None"):
            recording.record(output)
        with pytest.raises(ValueError, match="examples=8"):
            recording.record(output[:8], labels)
        with pytest.raises(ValueError, match=f"layer='{layers[0]}'"):
            recording[layers[0]]
        recording.record(output, labels)
        with pytest.raises(ValueError, match="latest forward"):
            recording.record(output, labels)


@pytest.mark.real
@pytest.mark.parametrize("labels", ["real", "expected"])
@pytest.mark.parametrize("frozen", [False, True])
def test_checkpointing_changes_nothing(normal, labels, frozen):
    layers, inputs, targets = ["body.0", "body.2", "head"], normal(9, 6), torch.arange(9) % 4
    recordings = []
    for use_reentrant in (None, False):
        torch.manual_seed(0)
        model = Checkpointed(use_reentrant).double().requires_grad_(not frozen)
        with curvature.capture(model, layers, labels=labels) as recording:
            recording.record(model(inputs), targets)
            recording.record(model(2 * inputs), targets)
        recordings.append(recording)
    for layer in layers:
        for plain, checkpointed in zip(*(r[layer] for r in recordings), strict=True):
            torch.testing.assert_close(checkpointed, plain)


@pytest.mark.real
def test_recomputed_forward_passes_do_not_count(normal):
    """Neither those of a training step before `record` nor of a model checkpointed as a whole."""
    model, inputs, labels = mlp().double(), normal(9, 6), torch.arange(9) % 4
    with curvature.capture(model, "0", labels="real") as recording:
        output = checkpoint(model, inputs, use_reentrant=False)
        output.sum().backward(retain_graph=True)
        recording.record(output, labels)
        output.sum().backward()
        with pytest.raises(ValueError, match="latest forward"):
            recording.record(output, labels)
    D, A = recording["0"]
    torch.testing.assert_close(D.mT @ A, per_example_gradients(model, "0", inputs, labels))


def test_reentrant_checkpointing_is_named_where_it_hides_a_layer(normal):
    model = Checkpointed(use_reentrant=True).double()
    with curvature.capture(model, "body.0") as recording:
        output = model(normal(9, 6).requires_grad_())
        with pytest.raises(ValueError, match=r"use_reentrant=True .*layer='body\.0'"):
            recording.record(output)


def test_a_weight_shared_with_another_kind_of_module_is_refused():
    model = nn.Sequential(nn.Embedding(4, 6), nn.Linear(6, 4))
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match=r"capture: .*layer='1', shared with '0', Embedding"):
        curvature.capture(model, "1").__enter__()


def test_an_output_that_does_not_depend_on_the_layer_is_refused(case):
    model, layers, inputs, targets = case
    with curvature.capture(model, layers, labels="real") as recording:
        older, latest = model(inputs), model(inputs)
        for output in (older, latest.detach()):
            with pytest.raises(ValueError, match=f"capture: output .*layer='{layers[0]}'"):
                recording.record(output, targets)
        recording.record(latest, targets)
    assert all(len(recording[layer][0]) == 9 for layer in layers), "a refused output was kept"


def test_reading_what_is_not_recorded_is_refused(normal):
    model = mlp().double()
    history = curvature.StepGradients(model, "0")
    with pytest.raises(ValueError, match=r"StepGradients: record must come .*layer='0'"):
        history["0"]
    with pytest.raises(ValueError, match=r"StepGradients: .*\['0'\] \(got layer='2'\)"):
        history["2"]
    with curvature.capture(model, "0") as recording:
        recording.record(model(normal(9, 6)))
    with pytest.raises(ValueError, match=r"capture: .*\['0'\] \(got layer='2'\)"):
        recording["2"]


def test_expected_labels_of_many_positions_are_refused(normal):
    model = PerPosition().double()
    with (
        curvature.capture(model, "head", labels="expected") as recording,
        pytest.raises(ValueError, match=r"output=\(2, 3, 4\)"),
    ):
        recording.record(model(normal(2, 3, 6)))
