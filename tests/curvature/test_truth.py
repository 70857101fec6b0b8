"""The same `H` in three ways: by samples, dense, and by products with probes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import device_generator
from torch import nn

from kronext import curvature, reference
from kronext.curvature import moments


class Attention(nn.Module):
    """One head over positions, by torch's fused attention, with an output a position."""

    def __init__(self):
        super().__init__()
        self.qkv, self.head = nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.head(F.scaled_dot_product_attention(q, k, v))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


def mlp(outputs):
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, outputs))


def convolutional():
    convolution = nn.Conv2d(2, 4, 2, stride=2, groups=2)
    return nn.Sequential(convolution, nn.Tanh(), nn.Flatten(), nn.Linear(16, 3))


# Model, layer, shape of an input, loss.
CASES = {
    "classes": (lambda: mlp(3), "0", (4,), "cross_entropy"),
    "one logit": (lambda: mlp(1), "0", (4,), "binary_cross_entropy"),
    "regression": (lambda: mlp(3), "0", (4,), "squared_error"),
    "convolution": (convolutional, "0", (2, 4, 4), "cross_entropy"),
    "tied": (Tied, "first", (4,), "cross_entropy"),
    "rows": (lambda: mlp(3), "0[1:4]", (4,), "cross_entropy"),
}


@pytest.fixture(params=CASES)
def case(request, normal):
    """`H_GN` by products, and samples that are it exactly."""
    make, layer, shape, loss = CASES[request.param]
    model, inputs = make().double(), normal(8, *shape)
    with curvature.capture(model, layer, loss=loss, labels="expected") as recording:
        recording.record(model(inputs))
    batches = [inputs[:3], (inputs[3:], "targets")]
    return curvature.GaussNewton(model, layer, batches, loss=loss), recording[layer]


@pytest.mark.real
def test_dense_products_and_samples_are_one_matrix(case, normal):
    H, samples = case
    expected = reference.second_moment(samples)
    torch.testing.assert_close(H.dense(), expected)
    V = normal(3, *H.shape)
    torch.testing.assert_close(H.images(V).flatten(1), V.flatten(1) @ expected)
    torch.testing.assert_close(curvature.second_moment(samples).images(V), H.images(V))


@pytest.mark.real
def test_all_three_agree_within_the_interval(case):
    """Within four standard errors, which chance exceeds once in 16,000 times; seeds are fixed."""
    H, samples = case
    exact = curvature.second_moment(samples)
    generator = device_generator(0)
    estimate = curvature.hutchinson(H, probes=400, generator=generator)
    pairs = [
        (estimate.frobenius_norm(), float(H.dense().norm())),
        (estimate.frobenius_norm(), exact.norm()),
        (estimate.trace(), float(H.dense().trace())),
    ]
    for approximate in (curvature.shampoo, curvature.shampoo2, curvature.kfac, curvature.diagonal):
        approximation = approximate(samples)
        cosine = curvature.cosine_similarity(exact, approximation)
        measured = estimate.similarity(approximation)
        pairs.append((measured, cosine))
        assert measured.value == pytest.approx(curvature.cosine_similarity(estimate, approximation))
        dense = curvature.cosine_similarity(H.dense(), approximation, shape=H.shape)
        assert dense == pytest.approx(cosine, abs=1e-12)
    for measured, truth in pairs:
        assert abs(measured.value - truth) <= 4 * measured.standard_error + 1e-12
        assert measured.standard_error <= 0.2 * abs(truth), "the interval would allow anything"


@pytest.mark.parametrize("positions", [1, 3])
def test_probes_agree_with_the_norm_from_inner_products(normal, monkeypatch, positions):
    monkeypatch.setattr(moments, "MEMORY_ENTRIES", 1)  # never the dense matrix
    samples = normal(30, positions, 5), normal(30, positions, 6)
    exact = curvature.second_moment(samples)
    generator = device_generator(0)
    norm = curvature.hutchinson(exact, probes=400, generator=generator).frobenius_norm()
    assert abs(norm.value - exact.norm()) <= 4 * norm.standard_error
    assert norm.standard_error <= 0.05 * exact.norm()


@pytest.mark.real
def test_fused_attention_has_products_too(normal):
    model, inputs = Attention().double(), normal(6, 3, 4)
    H = curvature.GaussNewton(model, "qkv[:8]", [inputs])
    count = 2000
    with curvature.capture(model, "qkv[:8]", generator=device_generator(0)) as recording:
        recording.record(model(inputs.repeat(count, 1, 1)))
    # The labels of a sample are drawn; the trace of H is the mean of the squared norms.
    D, A = recording["qkv[:8]"]
    squares = (D.mT @ A).square().sum((1, 2))
    error = float(squares.std()) / len(squares) ** 0.5
    trace = float(H.dense().trace())
    assert abs(float(squares.mean()) - trace) <= 4 * error
    assert error <= 0.05 * trace


@pytest.mark.real
def test_sampled_labels_estimate_the_products(normal):
    model, inputs = mlp(3).double(), normal(8, 4)
    H = curvature.GaussNewton(model, "0", [inputs]).dense()
    with curvature.capture(model, "0", generator=device_generator(0)) as recording:
        for _ in range(500):
            recording.record(model(inputs))
    g = (recording["0"][0].mT @ recording["0"][1]).flatten(1)
    products = g.unsqueeze(2) * g.unsqueeze(1)
    error = products.std(0) / len(g) ** 0.5
    assert ((products.mean(0) - H).abs() <= 5 * error + 1e-12).all()


def test_intervals_hold_the_truth_as_often_as_they_say(gradients):
    """Of 300 intervals meant for 95%, fewer than 88% would be chance once in a million runs."""
    samples = gradients(30, 4, 5)
    exact, approximation = curvature.second_moment(samples), curvature.shampoo(samples)
    norm, cosine = exact.norm(), curvature.cosine_similarity(samples, approximation)
    hits = {"norm": 0, "trace": 0, "similarity": 0}
    trace = float(exact.dense().trace())
    for seed in range(300):
        generator = device_generator(seed)
        estimate = curvature.hutchinson(exact, probes=60, generator=generator)
        for name, measured, truth in [
            ("norm", estimate.frobenius_norm(), norm),
            ("trace", estimate.trace(), trace),
            ("similarity", estimate.similarity(approximation), cosine),
        ]:
            low, high = measured.interval
            hits[name] += low <= truth <= high
    assert all(0.88 * 300 <= count < 300 for count in hits.values()), hits


def test_the_estimate_of_what_is_exact_has_no_error(kronecker_samples):
    samples, A, B = kronecker_samples(3, 4)
    estimate = curvature.hutchinson(curvature.second_moment(samples), probes=5)
    similarity = estimate.similarity(curvature.KroneckerFactors(A, B, 7.0))
    assert similarity.value == pytest.approx(1, abs=1e-12)
    assert similarity.standard_error <= 1e-12
    assert estimate.similarity(curvature.KroneckerFactors(A, torch.eye(4).double())).value < 0.99


def test_probes_of_adagrads_sum_agree_with_its_steps(normal):
    """`H_Ada v` kept as a running sum, as Appendix B does, is the product with the samples."""
    G, V = normal(12, 3, 4), normal(6, 3, 4)
    running = torch.zeros_like(V)
    for g in G:
        running += (V * g).sum((1, 2))[:, None, None] * g
    adagrad = curvature.second_moment(G)
    torch.testing.assert_close(running / 12, adagrad.images(V))
    estimate = curvature.Hutchinson(V, running)
    factors = curvature.shampoo2(G)
    expected = curvature.Hutchinson(V, adagrad.images(V)).similarity(factors)
    assert estimate.similarity(factors).value == pytest.approx(expected.value)


def test_similarity_to_zero_is_not_a_number(gradients):
    estimate = curvature.hutchinson(curvature.second_moment(gradients(5, 2, 3)), probes=4)
    zero = curvature.KroneckerFactors(torch.zeros(2, 2).double(), torch.eye(3).double())
    assert math.isnan(estimate.similarity(zero).value)


def test_one_probe_has_no_error_and_is_refused(gradients):
    with pytest.raises(ValueError, match=r"hutchinson: .*probes=1"):
        curvature.hutchinson(curvature.second_moment(gradients(5, 2, 3)), probes=1)


@pytest.mark.parametrize(
    ("layer", "batches", "loss", "error", "message"),
    [
        ("0", [], "hinge", ValueError, "loss='hinge'"),
        ("3", [], "cross_entropy", ValueError, "'3'"),
        ("1", [], "cross_entropy", TypeError, "'1', ReLU"),
        ("0", iter([]), "cross_entropy", TypeError, "batches=list_iterator"),
    ],
)
def test_what_has_no_products_is_refused(layer, batches, loss, error, message):
    with pytest.raises(error, match=f"GaussNewton: .*{message}"):
        curvature.GaussNewton(mlp(3), layer, batches, loss=loss)


def test_no_examples_are_refused(normal):
    H = curvature.GaussNewton(mlp(3), "0", [])
    with pytest.raises(ValueError, match="GaussNewton: batches must yield examples"):
        H.images(normal(2, 5, 4, dtype=torch.float32))
