"""The statements of the paper (arXiv 2406.17748), each on data for which it can fail."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers import device_generator, integers
from torch import nn

from kronext import curvature, reference


def smallest_eigenvalue(A):
    return float(torch.linalg.eigvalsh((A + A.mT) / 2)[0])


def is_psd(A, tolerance=1e-10):
    return bool((A - A.mT).norm() <= tolerance) and smallest_eigenvalue(A) >= -tolerance


def all_pairs(samples):
    """Every singular triple of `Hhat` whose singular value is not zero."""
    _, m, n = samples.shape
    H = reference.second_moment(samples)
    pairs = reference.best_kronecker(H, m, n, rank=min(m, n) ** 2)
    count = int((pairs.sigma > 1e-12 * pairs.sigma[0]).sum())
    return pairs.left[:count], pairs.right[:count]


def test_lemma_1_a_kronecker_product_acts_from_both_sides(normal):
    """`(A (x) B) vec(G)` is `A G BT` for rows stacked, `B G AT` for the paper's columns."""
    A, B, G = normal(3, 3), normal(4, 4), normal(3, 4)
    torch.testing.assert_close(torch.kron(A, B) @ G.flatten(), (A @ G @ B.mT).flatten())
    columns = (torch.kron(B, A) @ G.mT.flatten()).view(4, 3).mT
    torch.testing.assert_close(columns, A @ G @ B.mT)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_lemmas_2_and_3_shampoo_is_an_upper_bound_up_to_the_rank(normal, rank):
    """`E[g gT] <= r E[G GT]^{1/2} (x) E[GT G]^{1/2}`, and with `eps I` added to every matrix."""
    samples = normal(20, 4, rank) @ normal(20, rank, 5)
    H, bound = reference.second_moment(samples), curvature.shampoo(samples)
    assert smallest_eigenvalue(rank * bound.dense() - H) >= -1e-10
    eps, total = 0.1, 20 * H
    left = eps * torch.eye(4).double() + torch.einsum("sij,skj->ik", samples, samples)
    right = eps * torch.eye(5).double() + torch.einsum("sji,sjk->ik", samples, samples)
    regular = curvature.KroneckerFactors(left, right).power(0.5).dense()
    gap = regular - eps * torch.eye(20).double() - total / rank
    assert smallest_eigenvalue(gap) >= -1e-10


def test_lemma_3_needs_the_rank(normal):
    """Of one orthogonal gradient the bound is attained."""
    G = torch.eye(3).double().unsqueeze(0)
    gap = 3 * curvature.shampoo(G).dense() - reference.second_moment(G)
    assert abs(smallest_eigenvalue(gap)) <= 1e-12
    assert smallest_eigenvalue(gap - 0.1 * curvature.shampoo(G).dense()) < -0.05


def test_lemma_4_distances_survive_the_rearrangement(normal):
    H, A, B = normal(12, 12), normal(3, 3), normal(4, 4)
    distance = (H - torch.kron(A, B)).norm()
    rearranged = reference.rearrange(H, 3, 4) - torch.outer(A.flatten(), B.flatten())
    torch.testing.assert_close(rearranged.norm(), distance)
    torch.testing.assert_close(
        reference.rearrange(torch.kron(A, B), 3, 4), torch.outer(A.flatten(), B.flatten())
    )


def test_proposition_1_one_step_from_the_identity_is_the_square_of_shampoo(gradients):
    samples = gradients(12, 4, 6)
    left = torch.einsum("sij,skj->ik", samples, samples) / 12
    right = torch.einsum("sji,sjk->ik", samples, samples) / 12
    step = curvature.optimal(samples, steps=1)
    torch.testing.assert_close(step.left, left / left.norm())
    torch.testing.assert_close(step.right, right / right.norm())
    shampoo, shampoo2 = curvature.shampoo(samples), curvature.shampoo2(samples)
    torch.testing.assert_close(shampoo.left @ shampoo.left, left)
    torch.testing.assert_close(shampoo.right @ shampoo.right, right)
    torch.testing.assert_close(shampoo2.dense(), torch.kron(left, right) / left.trace())


def test_proposition_2_the_identity_is_nearest_to_the_farthest_psd_matrix(normal):
    """`min_M' <M, M'>` over PSD `M'` of norm 1 is the smallest eigenvalue of `M`."""
    m = 5
    identity = torch.eye(m).double() / m**0.5
    for rank in range(1, m + 1):
        B = normal(m, rank)
        M = B @ B.mT / (B @ B.mT).norm()
        assert (identity * M).sum() >= m**-0.5 - 1e-12
        assert smallest_eigenvalue(M) < m**-0.5


def test_corollary_2_shampoo2_is_exact_for_a_kronecker_product(kronecker_samples):
    samples, A, B = kronecker_samples(3, 4)
    H = torch.kron(A, B)
    torch.testing.assert_close(reference.second_moment(samples), H)
    torch.testing.assert_close(curvature.shampoo2(samples).dense(), H)
    torch.testing.assert_close(curvature.shampoo2(H, shape=(3, 4)).dense(), H)
    torch.testing.assert_close(curvature.optimal(samples).dense(), H)


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_lemma_5_the_leading_pair_is_psd(gradients, count):
    for m, n in [(3, 4), (5, 2), (1, 4)]:
        left, right = all_pairs(gradients(count, m, n))
        assert is_psd(left[0]), f"U_1 for S={count} m={m} n={n}"
        assert is_psd(right[0]), f"V_1 for S={count} m={m} n={n}"


def test_lemma_6_no_other_pair_is_psd_where_the_first_is_definite(gradients):
    for m, n in [(3, 4), (4, 3), (2, 6)]:
        for factors in all_pairs(gradients(40, m, n)):
            assert smallest_eigenvalue(factors[0]) > 1e-6
            assert len(factors) > 3
            for index, factor in enumerate(factors[1:], 2):
                for sign in (1, -1):
                    assert not is_psd(sign * factor, 1e-6), f"pair {index} for m={m} n={n}"


CLASSES = 3


@pytest.fixture
def labelled_gradients(normal):
    """`G[x, s]` of a softmax layer for every example and label, and the probabilities `f(x)_s`."""
    inputs = normal(4, 5)
    model = nn.Sequential(nn.Linear(5, CLASSES)).double()
    with torch.no_grad():
        model[0].weight.copy_(normal(CLASSES, 5))
    gradients = []
    for label in range(CLASSES):
        with curvature.capture(model, "0", labels="real") as recording:
            recording.record(model(inputs), torch.full((4,), label))
        D, A = recording["0"]
        gradients.append(D.mT @ A)
    return torch.stack(gradients, 1), model(inputs).softmax(1).detach()


def test_lemma_7_sampled_labels_make_batches_a_rescaling(labelled_gradients):
    """The expectation is taken over every batch of independent draws and every label."""
    G, probability = labelled_gradients
    size = 2
    batch_left, batch_right = torch.zeros(3, 3).double(), torch.zeros(5, 5).double()
    for batch in itertools.product(range(4), repeat=size):
        for labels in itertools.product(range(CLASSES), repeat=size):
            weight = 4**-size
            for x, s in zip(batch, labels, strict=True):
                weight = weight * probability[x, s]
            mean = sum(G[x, s] for x, s in zip(batch, labels, strict=True)) / size
            batch_left += weight * mean @ mean.mT
            batch_right += weight * mean.mT @ mean
    weights = probability.flatten() / 4
    single = reference.kron_matvec(G.flatten(0, 1), torch.eye(3), torch.eye(5), weights=weights)
    torch.testing.assert_close((size * batch_left, size * batch_right), single)


@pytest.mark.parametrize("replacement", [True, False])
def test_lemma_8_real_labels_mix_in_the_mean_gradient(labelled_gradients, replacement):
    """The expectation is taken over every batch, of independent draws as in the paper or not."""
    G = labelled_gradients[0][range(4), [0, 2, 1, 0]]
    count, size = 4, 3
    draws = itertools.product(range(count), repeat=size)
    share, mean_share = 1 / size, 1 - 1 / size
    if not replacement:
        draws = itertools.permutations(range(count), size)
        share *= (count - size) / (count - 1)
        mean_share *= count / (count - 1)
    batches = torch.stack([sum(G[x] for x in batch) / size for batch in draws])
    mean = G.mean(0)
    batch_left, batch_right = reference.kron_matvec(batches, torch.eye(3), torch.eye(5))
    left, right = reference.kron_matvec(G, torch.eye(3), torch.eye(5))
    torch.testing.assert_close(batch_left, share * left + mean_share * mean @ mean.mT)
    torch.testing.assert_close(batch_right, share * right + mean_share * mean.mT @ mean)
    # With labels that are not the model's own the batch is not a mere rescaling (Lemma 7).
    assert (size * batch_left - left).norm() > 0.1 * left.norm()


def assert_mean(draws, expected, standard_errors=5):
    """The mean of independent draws `(S, ...)` lies as near to `expected` as chance allows."""
    error = draws.std(0) / len(draws) ** 0.5
    assert (error <= 0.1 * expected.abs().max()).all(), "the bound would allow anything"
    assert ((draws.mean(0) - expected).abs() <= standard_errors * error + 1e-12).all()


def batch_gradients(model, inputs, size, **labels):
    """Gradients of batches drawn with replacement, from the factors that `capture` records."""
    with curvature.capture(model, "0", **labels) as recording:
        recording.record(model(inputs), inputs[:, 0].gt(0).long())
    D, A = recording["0"]
    return (D.mT @ A).unflatten(0, (-1, size)).mean(1)


@pytest.mark.parametrize("size", [1, 8])
def test_lemma_7_holds_for_labels_that_capture_samples(normal, size):
    model, inputs = nn.Sequential(nn.Linear(5, CLASSES)).double(), normal(4, 5)
    drawn = integers(0, 4, 24_000)
    G = batch_gradients(model, inputs[drawn], size, generator=device_generator(1))
    with curvature.capture(model, "0", labels="expected") as recording:
        recording.record(model(inputs))
    left, right = curvature.second_moment(recording["0"]).matvec(
        torch.eye(CLASSES).double(), torch.eye(5).double()
    )
    assert_mean(size * G @ G.mT, left)
    assert_mean(size * G.mT @ G, right)


def test_lemma_8_holds_for_real_labels_that_capture_records(normal):
    model, inputs, size = nn.Sequential(nn.Linear(5, CLASSES)).double(), normal(4, 5), 8
    drawn = integers(0, 4, 24_000)
    batches = batch_gradients(model, inputs[drawn], size, labels="real")
    G = batch_gradients(model, inputs, 1, labels="real")
    mean = G.mean(0)
    left = (G @ G.mT).mean(0) / size + (1 - 1 / size) * mean @ mean.mT
    right = (G.mT @ G).mean(0) / size + (1 - 1 / size) * mean.mT @ mean
    assert_mean(batches @ batches.mT, left)
    assert_mean(batches.mT @ batches, right)
