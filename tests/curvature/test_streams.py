from __future__ import annotations

import pytest
import torch
from helpers import device_generator
from torch import nn

from kronext import curvature, reference
from kronext.curvature import moments


@pytest.fixture(params=["whole", "factored"])
def stream(request, normal):
    """Samples of unequal chunks, and all of them as one tensor."""
    D, A = normal(12, 2, 3), normal(12, 2, 4)
    D[:3] *= 5
    sizes = [3, 1, 8]
    chunks = list(zip(D.split(sizes), A.split(sizes), strict=True))
    if request.param == "whole":
        chunks = [D.mT @ A for D, A in chunks]
    return chunks, D.mT @ A


@pytest.mark.parametrize("memory", [1, 10, 2**24])
def test_a_stream_is_the_second_moment_of_all_its_samples(stream, normal, monkeypatch, memory):
    monkeypatch.setattr(moments, "MEMORY_ENTRIES", memory)
    chunks, G = stream
    H, whole = curvature.second_moment(chunks), curvature.second_moment(G)
    left, right, V = normal(3, 3), normal(4, 4), normal(5, 3, 4)
    torch.testing.assert_close(H.dense(), reference.second_moment(G))
    torch.testing.assert_close(H.matvec(left, right), whole.matvec(left, right))
    torch.testing.assert_close(H.squares(left, right), whole.squares(left, right))
    torch.testing.assert_close(H.squares(), G.square().mean(0))
    torch.testing.assert_close(H.images(V), (V.flatten(1) @ reference.second_moment(G)).view_as(V))
    assert H.norm() == pytest.approx(float(reference.second_moment(G).norm()), rel=1e-12)
    for estimate in (curvature.shampoo, curvature.shampoo2, curvature.optimal):
        torch.testing.assert_close(estimate(chunks).dense(), estimate(G).dense())
    assert list(curvature.alignment(chunks)) == pytest.approx(list(curvature.alignment(G)))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_a_stream_whose_products_leave_the_range_is_scaled(normal, scale):
    D, A = normal(12, 2, 3, dtype=torch.float32), normal(12, 2, 4, dtype=torch.float32)
    factors = curvature.shampoo2((D, A))
    expected = curvature.cosine_similarity((D, A), factors)
    chunks = [(scale * D[:5], A[:5]), (scale * D[5:], A[5:])]
    assert curvature.cosine_similarity(chunks, factors) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("chunks", "error", "message"),
    [
        ([], ValueError, "at least one chunk"),
        ([torch.ones(2, 3, 4), torch.ones(2, 4, 3)], ValueError, r"later=GradientMoment \(4, 3\)"),
        (
            [torch.ones(2, 3, 4), (torch.ones(2, 1, 3), torch.ones(2, 1, 4))],
            ValueError,
            "later=FactoredMoment",
        ),
        ((G for G in torch.ones(2, 1, 3, 4)), TypeError, "samples=generator"),
    ],
)
def test_what_is_no_stream_of_one_kind_is_refused(chunks, error, message):
    with pytest.raises(error, match=f"second_moment: .*{message}"):
        curvature.shampoo2(chunks)


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


@pytest.mark.parametrize("labels", ["real", "sampled", "expected"])
def test_the_stream_of_a_model_repeats_what_capture_records(model, normal, labels):
    batches = [(x, torch.arange(len(x)) % 3) for x in normal(9, 6).split(4)]
    stream = curvature.Stream(model, "0", batches, labels=labels, seed=3)
    generator = device_generator(3)
    with curvature.capture(model, "0", labels=labels, generator=generator) as recording:
        for x, y in batches:
            recording.record(model(x), y)
    whole = curvature.second_moment(recording["0"])
    H = curvature.second_moment(stream)
    for _ in range(2):
        torch.testing.assert_close(H.dense(), whole.dense())
    torch.testing.assert_close(curvature.kfac(stream).dense(), curvature.kfac(whole).dense())


def test_the_batches_of_a_stream_may_be_inputs_alone(model, normal):
    inputs = normal(9, 6)
    stream = curvature.Stream(model, "2", inputs.split(4), labels="expected")
    with curvature.capture(model, "2", labels="expected") as recording:
        recording.record(model(inputs))
    expected = reference.second_moment(recording["2"])
    torch.testing.assert_close(curvature.second_moment(stream).dense(), expected)
