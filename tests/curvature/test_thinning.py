from __future__ import annotations

import itertools
import math

import pytest
import torch

from kronext.curvature.thinning import RunningPair, Thinning


def explicit_weights(beta, every, count):
    """Weights of sum 1 of `count` steps, each `beta^every` times the next."""
    weights = (beta or 1.0) ** (every * torch.arange(count - 1, -1, -1).double())
    return weights / weights.sum()


def test_the_mean_over_all_parts_is_the_product_of_all(normal):
    """Whichever three of six steps are seen: on average their estimates are the truth."""
    X, Y = normal(6, 3, 3), normal(6, 3, 3)
    estimates = []
    for seen in itertools.combinations(range(6), 3):
        pair = RunningPair(Thinning(None, 2), torch.zeros(3, 3).double())
        for s in seen:
            pair.add(X[s], Y[s])
        estimates.append(pair._over_all_steps() / 9)
    x, y = X.mean(0), Y.mean(0)
    expected = torch.stack([(x * x).sum(), (x * y).sum(), (y * y).sum()])
    torch.testing.assert_close(torch.stack(estimates).mean(0), expected)


@pytest.mark.parametrize("beta", [None, 1.0, 0.9, 0.999])
@pytest.mark.parametrize(("every", "count"), [(1, 7), (10, 2), (5, 30)])
def test_pairs_and_single_steps_are_weighed_as_for_all_steps(beta, every, count):
    thinning = Thinning(beta, every)
    seen = explicit_weights(beta, every, count).square().sum()
    all_steps = explicit_weights(beta, 1, every * count).square().sum()
    of_pairs, of_steps = 3.0, 5.0
    product = (1 - seen) * of_pairs + seen * of_steps
    expected = (1 - all_steps) * of_pairs + all_steps * of_steps
    measured = thinning.of_all_steps(count, product, seen * of_steps)
    torch.testing.assert_close(measured, expected)


@pytest.mark.parametrize("beta", [None, 0.9])
def test_the_average_has_the_weights_it_says(normal, beta):
    X, Y = normal(5, 2, 2), normal(5, 2, 2)
    pair = RunningPair(Thinning(beta, 3), torch.zeros(2, 2).double())
    for x, y in zip(X, Y, strict=True):
        pair.add(x, y)
    weights = explicit_weights(beta, 3, 5) * (1 if beta else 5)
    torch.testing.assert_close(pair.first, torch.einsum("s,sij->ij", weights, X))
    torch.testing.assert_close(pair.second, torch.einsum("s,sij->ij", weights, Y))


def test_what_is_seen_at_every_step_needs_no_correction(normal):
    pair = RunningPair(Thinning(0.9, 1), torch.zeros(2, 2).double())
    for _ in range(5):
        pair.add(normal(2, 2), normal(2, 2))
    a, b = pair.first, pair.second
    assert pair.cosine() == pytest.approx(float((a * b).sum() / (a.norm() * b.norm())), rel=1e-12)
    assert pair.shrinking() == pytest.approx(1, rel=1e-12)


def test_the_cosine_of_nothing_is_not_a_number():
    pair = RunningPair(Thinning(None, 4), torch.zeros(2, 2))
    for _ in range(3):
        pair.add(torch.zeros(2, 2), torch.ones(2, 2))
    assert math.isnan(pair.cosine())
