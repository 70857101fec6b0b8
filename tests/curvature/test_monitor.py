from __future__ import annotations

import pytest
import torch
from helpers import draw_normal
from torch import nn

from kronext import curvature, optim, reference
from kronext.curvature import Monitor

OPTIONS = {"update_interval": 2, "start_step": 2}


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def train(model, optimizer, steps=12):
    """Steps on random regressions, and the gradients of the first layer."""
    generator = torch.Generator().manual_seed(0)
    gradients = []
    for _ in range(steps):
        x, y = (draw_normal(generator, 6, k) for k in (5, 3))
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        gradients.append(model[0].weight.grad.clone())
        optimizer.step()
    return torch.stack(gradients)


def weighted_second_moment(gradients, weights):
    g = gradients.flatten(1)
    return (weights[:, None] * g).mT @ g


def cosine(a, b):
    return float((a * b).sum() / (a.norm() * b.norm()))


def assert_near(scalars, name, expected):
    error = scalars[f"{name}/similarity_error"]
    assert 0 < error <= 0.05, "the bound would allow anything"
    assert abs(scalars[f"{name}/similarity"] - expected) <= 4 * error


def test_any_optimizer_is_compared_with_the_sum_of_its_steps():
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    monitor = Monitor(optimizer, model.named_parameters(), every=1, factors_every=1, probes=400)
    G = train(model, optimizer)
    scalars = monitor.scalars()
    assert_near(scalars, "0.weight", curvature.cosine_similarity(G, curvature.shampoo2(G)))
    assert {name.split("/")[0] for name in scalars} == {"0.weight", "2.weight"}
    assert all(isinstance(value, float) for value in scalars.values())


@pytest.mark.parametrize("estimator", ["shampoo", "shampoo2", "optimal"])
@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("beta", [0.9, None])
def test_our_optimizers_are_compared_by_their_own_factors(estimator, wrapped, beta):
    model = make_model()
    options = {"estimator": estimator, "beta": beta, **OPTIONS}
    if wrapped:
        base = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        optimizer = optim.Preconditioned(base, **options)
    else:
        optimizer = optim.Shampoo(model.parameters(), lr=0.01, **options)
    monitor = Monitor(optimizer, model.named_parameters(), every=1, probes=400)
    G = train(model, optimizer)

    ages = torch.arange(len(G) - 1, -1, -1).double()
    H = weighted_second_moment(G, (beta or 1) ** ages)
    member = optimizer.engine.members[0]
    factors = curvature.KroneckerFactors(member.left[0], member.right[0])
    if estimator == "shampoo":
        factors = factors.power(0.5)
    assert_near(monitor.scalars(), "0.weight", cosine(H, factors.dense()))
    # The factors are those of the run, not an empty pair.
    weights = (beta or 1) ** ages
    weights = weights / weights.sum() if beta else weights
    left = torch.einsum("s,sij,skj->ik", weights, G, G)
    if estimator != "optimal":
        torch.testing.assert_close(member.left[0], left)


def test_alignment_is_that_of_one_step_and_a_step_a_gradient():
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    monitor = Monitor(optimizer, model.named_parameters(), factors_every=1)
    G = train(model, optimizer)
    left, right = torch.zeros(4, 4).double(), torch.zeros(5, 5).double()
    for g in G:
        L = left / left.norm() if left.any() else torch.eye(4).double() / 2
        R = right / right.norm() if right.any() else torch.eye(5).double() / 5**0.5
        left, right = left + g @ R @ g.mT, right + g.mT @ L @ g
    scalars = monitor.scalars()
    step = reference.kron_matvec(G, torch.eye(4), torch.eye(5))
    assert scalars["0.weight/alignment_left"] == pytest.approx(cosine(step[0], left), abs=1e-12)
    assert scalars["0.weight/alignment_right"] == pytest.approx(cosine(step[1], right), abs=1e-12)


def test_alignment_comes_to_that_of_the_optimum(gradients):
    """Over many steps of one distribution the running factors find its leading pair."""
    weight = nn.Parameter(torch.zeros(4, 5).double())
    optimizer = torch.optim.SGD([weight], lr=0.0)
    monitor = Monitor(optimizer, factors_every=1)
    G = gradients(3000, 4, 5)
    for g in G:
        weight.grad = g
        optimizer.step()
    expected = curvature.alignment(G)
    scalars = monitor.scalars()
    for side in ("left", "right"):
        assert scalars[f"parameter0/alignment_{side}"] == pytest.approx(
            getattr(expected, side), abs=2e-3
        )


@pytest.mark.parametrize("ours", [True, False])
def test_a_part_of_the_steps_tells_of_all_of_them(gradients, ours):
    """One gradient in 20: the plain cosine with the sum over those would be far lower."""
    weight = nn.Parameter(torch.zeros(6, 8).double())
    optimizer = (
        optim.Shampoo([weight], lr=0.0, beta=None) if ours else torch.optim.SGD([weight], lr=0.0)
    )
    monitor = Monitor(optimizer, every=20, factors_every=10, probes=400)
    G = gradients(600, 6, 8)
    for g in G:
        weight.grad = g
        optimizer.step()
    scalars = monitor.scalars()
    expected = curvature.cosine_similarity(G, curvature.shampoo2(G))
    plain = curvature.cosine_similarity(G[::20], curvature.shampoo2(G))
    tolerance = 0.05
    assert scalars["parameter0/similarity"] == pytest.approx(expected, abs=tolerance)
    assert plain < expected - 2 * tolerance
    alignment = curvature.alignment(G)
    for side in ("left", "right"):
        measured = scalars[f"parameter0/alignment_{side}"]
        assert measured == pytest.approx(getattr(alignment, side), abs=0.02)


def test_the_run_is_not_disturbed():
    results = []
    for watched in (False, True):
        model = make_model()
        optimizer = optim.Shampoo(model.parameters(), lr=0.01, **OPTIONS)
        if watched:
            Monitor(optimizer, every=1, factors_every=1)
        train(model, optimizer)
        results.append([parameter.detach() for parameter in model.parameters()])
    for plain, watched in zip(*results, strict=True):
        assert torch.equal(plain, watched)


def test_blocks_are_told_apart():
    model = make_model()
    optimizer = optim.Shampoo(model.parameters(), lr=0.01, block_size=3, **OPTIONS)
    monitor = Monitor(optimizer, [("weight", model[0].weight)], every=1, probes=400)
    G = train(model, optimizer)
    scalars = monitor.scalars()
    assert {name.rsplit("/", 1)[0] for name in scalars} == {f"weight/block{i}" for i in range(4)}
    weights = 0.999 ** torch.arange(len(G) - 1, -1, -1).double()
    H = weighted_second_moment(G[:, 2:, :3], weights)
    member = optimizer.engine.members[0]
    factors = curvature.KroneckerFactors(member.left[2], member.right[2])
    assert_near(scalars, "weight/block2", cosine(H, factors.dense()))


def test_a_convolution_is_watched_as_a_matrix(normal):
    model = nn.Sequential(nn.Conv2d(2, 3, 2)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    monitor = Monitor(optimizer, every=1, factors_every=1, probes=400)
    history = curvature.StepGradients(model, "0")
    for _ in range(9):
        optimizer.zero_grad()
        model(normal(4, 2, 3, 3)).square().mean().backward()
        history.record()
        optimizer.step()
    G = history["0"]
    expected = curvature.cosine_similarity(G, curvature.shampoo2(G))
    assert_near(monitor.scalars(), "parameter0", expected)


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), "sparse"])
def test_steps_without_a_usable_gradient_leave_no_trace(normal, bad):
    weight = nn.Parameter(torch.zeros(3, 4).double())
    other = nn.Parameter(torch.zeros(2).double())
    optimizer = torch.optim.SGD([weight, other], lr=0.0)
    monitor = Monitor(optimizer, every=1, factors_every=1)
    other.grad = torch.zeros(2).double()
    for step in range(6):
        weight.grad = normal(3, 4)
        if step == 3:
            expected = monitor.scalars()
        if step >= 3:
            match bad:
                case None:
                    weight.grad = None
                case "sparse":
                    weight.grad = weight.grad.to_sparse()
                case _:
                    weight.grad[1, 2] = bad
        optimizer.step()
    assert monitor.scalars() == expected


def test_nothing_is_known_before_the_first_step_and_after_the_end():
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    monitor = Monitor(optimizer, every=1)
    assert monitor.scalars() == {}
    train(model, optimizer)
    known = monitor.scalars()
    monitor.close()
    train(model, optimizer)
    assert monitor.scalars() == known


def test_probes_take_the_memory_they_promise():
    weight = nn.Parameter(torch.zeros(64, 32))
    monitor = Monitor(torch.optim.SGD([weight], lr=0.1), probes=8)
    ((block,),) = monitor._blocks.values()
    assert block.signs.nbytes + block.images.nbytes == 1.25 * 8 * weight.nbytes


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"every": 0}, ValueError, "every=0"),
        ({"factors_every": 2.5}, TypeError, "factors_every=2.5"),
        ({"probes": 1}, ValueError, "probes=1"),
        ({"named_parameters": []}, ValueError, "must hold a matrix"),
    ],
)
def test_what_cannot_be_watched_is_refused(options, error, message):
    optimizer = torch.optim.SGD(make_model().parameters(), lr=0.1)
    with pytest.raises(error, match=f"Monitor: .*{message}"):
        Monitor(optimizer, **options)
    assert not optimizer._optimizer_step_post_hooks


def test_only_an_optimizer_can_be_watched():
    with pytest.raises(TypeError, match=r"Monitor: optimizer .*Sequential"):
        Monitor(make_model())
