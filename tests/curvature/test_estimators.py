from __future__ import annotations

import pytest
import torch

from kronext import curvature, reference


def dense_distance(samples, approximation):
    return float((reference.second_moment(samples) - approximation.dense().double()).norm())


def chunked(D, A):
    """The same samples as a pair and as a stream of three chunks of unequal size."""
    sizes = [1, 5, len(D) - 6]
    return [(D, A), list(zip(D.split(sizes), A.split(sizes), strict=True))]


def test_kfac_expand_takes_positions_for_examples(normal):
    D, A = normal(20, 3, 4), normal(20, 3, 5)
    left = torch.einsum("sti,stk->ik", D, D) / 20
    right = torch.einsum("stj,stl->jl", A, A) / 60
    for samples in chunked(D, A):
        factors = curvature.kfac(samples)
        torch.testing.assert_close(factors.dense(), torch.kron(left, right))
    torch.testing.assert_close(curvature.kfac(D, A, "expand").dense(), torch.kron(left, right))


def test_kfac_reduce_sums_gradients_and_averages_inputs(normal):
    D, A = normal(20, 3, 4), normal(20, 3, 5)
    d, a = D.sum(1), A.mean(1)
    expected = torch.kron(d.mT @ d, a.mT @ a) / 400
    for samples in chunked(D, A):
        torch.testing.assert_close(curvature.kfac(samples, variant="reduce").dense(), expected)


@pytest.mark.parametrize("variant", ["expand", "reduce"])
def test_kfac_is_exact_in_expectation_for_independent_factors_of_one_position(normal, variant):
    """Over all pairs of `d` and `a` the second moment is exactly the Kronecker product."""
    d, a = normal(6, 3), normal(7, 4)
    D = d.repeat_interleave(7, 0).unsqueeze(1)
    A = a.repeat(6, 1).unsqueeze(1)
    H = reference.second_moment((D, A))
    for approximate in (curvature.kfac, curvature.tkfac):
        torch.testing.assert_close(approximate(D, A, variant).dense(), H)


@pytest.mark.parametrize("variant", ["expand", "reduce"])
def test_kfac_keeps_trace_restricted_only_where_asked(normal, variant):
    D, A = normal(20, 3, 4), normal(20, 3, 5)
    A[:5] *= 3
    D[:5] *= 2  # large gradients with large inputs
    if variant == "expand":
        terms = D.square().sum(2) * A.square().sum(2)
    else:
        terms = D.sum(1).square().sum(1, keepdim=True) * A.mean(1).square().sum(1, keepdim=True)
    trace = float(terms.sum(1).mean())
    for samples in chunked(D, A):
        restricted = curvature.tkfac(samples, variant=variant)
        assert float(restricted.dense().trace()) == pytest.approx(trace, rel=1e-12)
    assert float(curvature.kfac(D, A, variant).dense().trace()) < 0.8 * trace


@pytest.mark.parametrize("variant", ["expand", "reduce"])
def test_trace_restricted_kfac_of_one_position_is_shampoo2(normal, variant):
    D, A = normal(20, 1, 4), normal(20, 1, 5)
    torch.testing.assert_close(
        curvature.tkfac(D, A, variant).dense(), curvature.shampoo2((D, A)).dense()
    )


@pytest.mark.parametrize("positions", [1, 3])
def test_ekfac_is_the_diagonal_of_h_in_the_eigenbasis_of_kfac(normal, positions):
    D, A = normal(20, positions, 4), normal(20, positions, 5)
    factors = curvature.kfac(D, A)
    Q = torch.kron(*(torch.linalg.eigh(side)[1] for side in (factors.left, factors.right)))
    H = reference.second_moment((D, A))
    expected = Q @ torch.diag((Q.mT @ H @ Q).diagonal()) @ Q.mT
    for samples in chunked(D, A):
        torch.testing.assert_close(curvature.ekfac(samples).dense(), expected)
    torch.testing.assert_close(curvature.diagonal(H, shape=(4, 5), basis=factors).dense(), expected)


@pytest.mark.parametrize("basis", [curvature.kfac, curvature.shampoo2, curvature.shampoo])
def test_the_diagonal_in_an_eigenbasis_is_never_farther_than_the_product(normal, basis):
    samples = normal(20, 3, 4), normal(20, 3, 5)
    product = basis(samples)
    best = curvature.diagonal(samples, basis=product)
    assert dense_distance(samples, best) <= dense_distance(samples, product) * (1 + 1e-12)


def test_the_diagonal_is_adams_second_moment(gradients):
    samples = gradients(20, 4, 5)
    expected = reference.second_moment(samples).diagonal().view(4, 5)
    for form in (samples, [samples[:7], samples[7:]]):
        torch.testing.assert_close(curvature.diagonal(form).values, expected)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_a_kronecker_sum_is_the_truncated_svd_of_the_rearranged_matrix(gradients, rank):
    samples = gradients(30, 4, 5)
    H = reference.second_moment(samples)
    U, sigma, Vh = torch.linalg.svd(reference.rearrange(H, 4, 5), full_matrices=False)
    best = (U[:, :rank] * sigma[:rank]) @ Vh[:rank]
    expected = reference.rearrange_inverse(best, 4, 5)
    for form in (samples, [samples[:7], samples[7:]]):
        approximation = curvature.kronecker_sum(form, rank, steps=2000, tol=1e-10)
        torch.testing.assert_close(approximation.dense(), expected, rtol=0, atol=1e-7)
        cosine = float(sigma[:rank].norm() / sigma.norm())
        measured = curvature.cosine_similarity(form, approximation)
        assert measured == pytest.approx(cosine, abs=1e-9)


def test_a_full_kronecker_sum_is_h_itself(gradients):
    samples = gradients(30, 2, 3)
    approximation = curvature.kronecker_sum(samples, 4, steps=100)
    torch.testing.assert_close(approximation.dense(), reference.second_moment(samples))


def test_a_warm_start_goes_on_where_the_first_call_stopped(gradients):
    samples = gradients(30, 4, 5)
    warm = curvature.optimal(samples, steps=3, init=curvature.optimal(samples, steps=4))
    cold = curvature.optimal(samples, steps=7)
    torch.testing.assert_close(warm.dense(), cold.dense())
    assert not torch.allclose(cold.left, curvature.optimal(samples, steps=3).left, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_samples_are_summed_in_float32(normal, dtype):
    D, A = normal(50, 2, 4, dtype=dtype), normal(50, 2, 5, dtype=dtype)
    for estimate in (curvature.kfac, curvature.tkfac, curvature.ekfac):
        expected = estimate((D.double(), A.double())).dense()
        result = estimate((D, A)).dense()
        assert result.dtype == torch.float32
        assert (result - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(3, 1, 2), torch.zeros(3, 1, 2), "mean"), ValueError, "variant='mean'"),
        ((torch.zeros(3, 1, 2),), TypeError, "got GradientMoment"),
        (([torch.zeros(3, 1, 2)],), TypeError, "got GradientMoment"),
        ((torch.zeros(3, 1, 2), torch.zeros(4, 1, 2)), ValueError, r"D=\(3, 1, 2\)"),
    ],
)
@pytest.mark.parametrize("estimate", [curvature.kfac, curvature.tkfac])
def test_samples_without_factors_are_refused(estimate, arguments, error, message):
    with pytest.raises(error, match=message):
        estimate(*arguments)
