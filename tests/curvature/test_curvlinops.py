"""Against curvlinops, an implementation of the same matrices by other authors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kronext import curvature

curvlinops = pytest.importorskip("curvlinops")

LOSSES = {
    "cross_entropy": (nn.CrossEntropyLoss(reduction="sum"), 1),
    # Theirs is |f - y|^2, twice as curved.
    "squared_error": (nn.MSELoss(reduction="sum"), 2),
}


def mlp():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def convolutional():
    convolution = nn.Conv2d(2, 3, (2, 3), stride=(2, 1), padding=1)
    return nn.Sequential(convolution, nn.Tanh(), nn.Flatten(), nn.Linear(27, 3))


@pytest.fixture(params=[(mlp, (4,)), (convolutional, (2, 4, 3))], ids=["mlp", "convolutional"])
def case(request, normal):
    make, shape = request.param
    # More examples than inputs: the eigenbasis of a singular factor is not unique.
    inputs = normal(20, *shape)
    return make().double(), [inputs[:3], inputs[3:]]


def targets(loss, output):
    return torch.zeros(len(output)).long() if loss == "cross_entropy" else torch.zeros_like(output)


def theirs(operator, model, batches, loss, **options):
    """Their matrix for the first layer's weight, of the mean over examples."""
    function, scale = LOSSES[loss]
    weight = model[0].weight
    data = [(x, targets(loss, model(x).detach())) for x in batches]
    linear_operator = operator(model, function, [weight], data, **options)
    dense = linear_operator @ torch.eye(weight.numel(), dtype=weight.dtype)
    return dense.detach() / (scale * sum(map(len, batches)))


@pytest.mark.parametrize("loss", LOSSES)
def test_gauss_newton_products_are_their_ggn(case, loss):
    model, batches = case
    expected = theirs(curvlinops.GGNLinearOperator, model, batches, loss)
    H = curvature.GaussNewton(model, "0", batches, loss=loss)
    torch.testing.assert_close(H.dense(), expected)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("variant", ["expand", "reduce"])
@pytest.mark.parametrize("name", ["KFAC", "EKFAC"])
def test_kfac_of_expected_labels_is_their_kfac(case, loss, variant, name):
    model, batches = case
    operator = getattr(curvlinops, f"{name}LinearOperator")
    options = {"fisher_type": curvlinops.FisherType.TYPE2, "kfac_approx": variant}
    expected = theirs(operator, model, batches, loss, **options)
    with curvature.capture(model, "0", loss=loss, labels="expected") as recording:
        for x in batches:
            recording.record(model(x))
    estimate = getattr(curvature, name.lower())
    torch.testing.assert_close(estimate(recording["0"], variant=variant).dense(), expected)
