from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kronext.curvature.logistic import logistic_regression


@pytest.fixture
def digits(normal):
    """Sixty examples of two classes in twelve correlated dimensions."""
    labels = torch.arange(60) % 2
    images = normal(60, 12) @ normal(12, 12) + labels[:, None]
    return images, labels


@pytest.mark.parametrize("logits", [1, 2])
def test_shampoo2_equals_the_gauss_newton_matrix_at_each_step(digits, normal, logits):
    weight = 0.1 * normal(logits, 12)
    seen = []
    results = logistic_regression(
        *digits, steps=5, logits=logits, initial_weight=weight, on_step=seen.append
    )
    assert seen == results
    assert [result.step for result in results] == [1, 2, 3, 4, 5]
    for result in results:
        for exact in (result.gauss_newton, result.adagrad):
            assert exact.shampoo2 == pytest.approx(1, abs=1e-9)
            assert exact.optimal == pytest.approx(1, abs=1e-9)
        assert result.gauss_newton.shampoo < 0.99
        assert result.sampled.shampoo2 < 1 - 1e-6, "sampled labels scatter"
    # One gradient alone has rank one, which is a Kronecker product of its own root.
    assert results[0].adagrad.shampoo == pytest.approx(1, abs=1e-7)
    assert results[-1].adagrad.shampoo < 1 - 1e-6


@pytest.mark.parametrize("logits", [1, 2])
def test_the_run_is_full_batch_gradient_descent(digits, logits):
    images, labels = digits
    results = logistic_regression(images, labels, steps=4, learning_rate=0.1, logits=logits)
    w = torch.zeros(12).double()
    for result in results:
        margin = images @ w
        assert result.loss == pytest.approx(
            float(F.binary_cross_entropy_with_logits(margin, labels.double())), rel=1e-12
        )
        # Two logits move apart by a step each.
        w = w - logits * 0.1 * (margin.sigmoid() - labels) @ images / 60


def test_labels_other_than_two_classes_are_refused(digits):
    images, labels = digits
    with pytest.raises(ValueError, match=r"labels=\[0, 1, 2\]"):
        logistic_regression(images, labels + (labels * torch.arange(60) == 59))
    with pytest.raises(ValueError, match=r"images=\(60, 12\), labels=\(59,\)"):
        logistic_regression(images, labels[1:])
