from __future__ import annotations

import math

import pytest
import torch

from kronext import curvature, reference
from kronext.curvature import moments, similarity

APPROXIMATIONS = [curvature.shampoo, curvature.shampoo2, curvature.optimal]
SHAPES = [(1, 1, 1), (30, 1, 7), (3, 4, 5), (30, 4, 5), (60, 5, 3)]


def forms(D, A):
    """The same `H` as a factored pair, as gradients and as a matrix."""
    G = D.mT @ A
    shape = (G.shape[1], G.shape[2])
    return [((D, A), None), (G, None), (reference.second_moment(G), shape)]


def dense_cosine(A, B):
    return float((A * B).sum() / (A.norm() * B.norm()))


@pytest.mark.parametrize(("count", "m", "n"), SHAPES)
@pytest.mark.parametrize("positions", [1, 3])
def test_every_form_of_the_samples_gives_the_same_factors_and_similarity(
    normal, count, m, n, positions
):
    D, A = normal(count, positions, m), normal(count, positions, n)
    H = reference.second_moment((D, A))
    for approximate in APPROXIMATIONS:
        expected = approximate(H, shape=(m, n)).dense()
        for samples, shape in forms(D, A):
            factors = approximate(samples, shape=shape)
            # Shampoo's root makes 1e-8 of the rounding, 1e-16, of a zero eigenvalue.
            torch.testing.assert_close(factors.dense(), expected, rtol=0, atol=1e-7)
            cosine = curvature.cosine_similarity(samples, factors, shape=shape)
            assert cosine == pytest.approx(dense_cosine(H, expected), abs=1e-7)


@pytest.mark.parametrize("memory", [1, 50, 2**24])
@pytest.mark.parametrize(
    ("count", "positions", "m", "n"), [(13, 3, 4, 9), (40, 1, 2, 3), (7, 9, 3, 4)]
)
def test_norm_does_not_depend_on_how_the_work_is_split(
    normal, monkeypatch, memory, count, positions, m, n
):
    monkeypatch.setattr(moments, "MEMORY_ENTRIES", memory)
    D, A = normal(count, positions, m), normal(count, positions, n)
    for samples, shape in forms(D, A):
        norm = curvature.second_moment(samples, shape=shape).norm()
        assert norm == pytest.approx(float(reference.second_moment((D, A)).norm()), rel=1e-12)


def test_dense_moment_is_the_second_moment(normal, monkeypatch):
    monkeypatch.setattr(moments, "MEMORY_ENTRIES", 50)
    D, A = normal(9, 2, 3), normal(9, 2, 4)
    for samples, shape in forms(D, A):
        moment = curvature.second_moment(samples, shape=shape)
        torch.testing.assert_close(moment.dense(), reference.second_moment((D, A)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_similarity_of_an_exact_kronecker_product_is_one(kronecker_samples, dtype, tolerance):
    samples, A, B = kronecker_samples(4, 5, dtype)
    truth = curvature.KroneckerFactors(A.to(dtype), B.to(dtype))
    for factors in (truth, curvature.shampoo2(samples), curvature.optimal(samples)):
        assert curvature.cosine_similarity(samples, factors) == pytest.approx(1, abs=tolerance)
    assert curvature.cosine_similarity(samples, curvature.shampoo(samples)) < 0.95


def test_optimal_is_never_below_shampoo2(gradients):
    for count, m, n in [(1, 3, 4), (2, 3, 4), (5, 2, 7), (20, 6, 6), (50, 1, 9)]:
        samples = gradients(count, m, n)
        optimal, shampoo2 = (
            curvature.cosine_similarity(samples, approximate(samples))
            for approximate in (curvature.optimal, curvature.shampoo2)
        )
        assert optimal >= shampoo2 - 1e-12, f"S={count} m={m} n={n}"


def test_converged_optimum_is_the_svd_of_the_rearranged_matrix(gradients):
    samples = gradients(25, 10, 200)
    best = reference.best_kronecker(reference.second_moment(samples), 10, 200)
    factors = curvature.optimal(samples, steps=500, tol=1e-9)
    assert factors.scale == pytest.approx(float(best.sigma), rel=1e-6)
    torch.testing.assert_close(factors.left, best.left[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(factors.right, best.right[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("m", "n"), [(3, 5), (1, 12), (12, 2)])
@pytest.mark.parametrize("by_iteration", [False, True])
def test_alignment_is_its_definition_over_all_singular_values(
    gradients, monkeypatch, m, n, by_iteration
):
    if by_iteration:
        monkeypatch.setattr(similarity, "_SVD_COST", 0)
    samples = gradients(20, m, n)
    U, sigma, Vh = torch.linalg.svd(
        reference.rearrange(reference.second_moment(samples), m, n), full_matrices=False
    )
    alpha = Vh @ torch.eye(n).double().flatten()
    beta = U.mT @ torch.eye(m).double().flatten()
    expected = [
        float(sigma[0] / sigma.norm()),
        float((alpha * sigma)[0].abs() / (alpha * sigma).norm()),
        float((beta * sigma)[0].abs() / (beta * sigma).norm()),
    ]
    measured = curvature.alignment(samples, tol=1e-9)
    assert list(measured) == pytest.approx(expected, abs=1e-9)
    best = curvature.optimal(samples, steps=500, tol=1e-9)
    assert curvature.cosine_similarity(samples, best) == pytest.approx(expected[0], abs=1e-9)


def test_alignment_refuses_a_triple_that_has_not_converged(gradients, monkeypatch):
    monkeypatch.setattr(similarity, "_SVD_COST", 0)
    with pytest.raises(RuntimeError, match=r"alignment: .*steps=1"):
        curvature.alignment(gradients(20, 3, 5), steps=1, tol=1e-9)


def test_low_precision_samples_are_measured_in_float32(gradients):
    samples = gradients(20, 4, 6, torch.bfloat16)
    for approximate in APPROXIMATIONS:
        factors = approximate(samples)
        assert factors.left.dtype == factors.right.dtype == torch.float32
        cosine = dense_cosine(reference.second_moment(samples), factors.dense().double())
        assert curvature.cosine_similarity(samples, factors) == pytest.approx(cosine, abs=1e-6)


def test_factors_of_two_dtypes_are_measured_in_the_wider(normal):
    """Under autocast the output gradients may be bfloat16 and the inputs float32."""
    D, A = normal(20, 2, 4, dtype=torch.bfloat16), normal(20, 2, 6, dtype=torch.float32)
    factors = curvature.shampoo2((D, A))
    cosine = dense_cosine(reference.second_moment((D, A)), factors.dense().double())
    assert curvature.cosine_similarity((D, A), factors) == pytest.approx(cosine, abs=1e-6)


def test_an_estimator_of_the_truth_needs_a_norm_and_an_inner_product(gradients):
    samples = gradients(10, 2, 3)
    moment = curvature.second_moment(samples)

    class Scaled:
        def norm(self):
            return 2 * moment.norm()

        def inner(self, approximation):
            return 2 * moment.inner(approximation)

    factors = curvature.shampoo(samples)
    expected = curvature.cosine_similarity(samples, factors)
    assert curvature.cosine_similarity(Scaled(), factors) == pytest.approx(expected)


def test_samples_that_require_grad_record_no_graph(gradients):
    factors = curvature.shampoo2(gradients(5, 2, 3).requires_grad_())
    assert not factors.left.requires_grad


def test_similarity_to_zero_is_not_a_number():
    samples = torch.zeros(2, 3, 4)
    assert math.isnan(curvature.cosine_similarity(samples, curvature.shampoo2(samples)))


@pytest.mark.parametrize("scale", [1e-12, 1e10])
@pytest.mark.parametrize("approximate", APPROXIMATIONS)
def test_similarity_does_not_depend_on_the_scale_of_what_is_compared(gradients, approximate, scale):
    D, A = torch.eye(3).expand(20, 3, 3), gradients(20, 3, 4, torch.float32)
    expected = curvature.cosine_similarity(A, approximate(A))
    for samples, shape in forms(D, A * scale):
        cosine = curvature.cosine_similarity(
            samples, approximate(samples, shape=shape), shape=shape
        )
        assert cosine == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(torch.float32, 1e-30), (torch.float32, 1e30), (torch.float64, 1e-150), (torch.float64, 1e90)],
)
def test_measures_of_samples_whose_products_leave_the_range(gradients, monkeypatch, dtype, scale):
    monkeypatch.setattr(moments, "MEMORY_ENTRIES", 1)  # the norm from inner products
    D, A = torch.eye(3, dtype=dtype).expand(20, 3, 3), gradients(20, 3, 4, dtype)
    factors = curvature.shampoo2(A)
    tiny = curvature.KroneckerFactors(1e-25 * factors.left, 1e-25 * factors.right, 1e-300)
    cosine = curvature.cosine_similarity(A, factors)
    alignment = list(curvature.alignment(A))
    for samples in (A * scale, (D, A * scale), (D * scale, A)):
        assert curvature.cosine_similarity(samples, tiny) == pytest.approx(cosine, abs=1e-6)
        assert list(curvature.alignment(samples)) == pytest.approx(alignment, abs=1e-6)


def test_alignment_of_zero_is_not_a_number():
    assert all(math.isnan(cosine) for cosine in curvature.alignment(torch.zeros(6, 3, 4)))


def test_a_truth_of_no_known_form_is_refused(gradients):
    factors = curvature.shampoo2(gradients(5, 2, 3))
    with pytest.raises(TypeError, match=r"second_moment: .*samples=generator"):
        curvature.cosine_similarity((G for G in gradients(5, 2, 3)), factors)


@pytest.mark.parametrize(
    ("samples", "shape", "error", "message"),
    [
        (torch.zeros(3, 4), None, ValueError, r"samples=\(3, 4\)"),
        (torch.zeros(0, 3, 4), None, ValueError, r"samples=\(0, 3, 4\)"),
        (torch.zeros(6, 6), (2, 4), ValueError, r"shape=\(2, 4\)"),
        ((torch.zeros(5, 1, 3), torch.zeros(4, 1, 3)), None, ValueError, r"D=\(5, 1, 3\)"),
        ((torch.zeros(5, 3), torch.zeros(5, 4)), None, ValueError, r"A=\(5, 4\)"),
        ((torch.zeros(0, 1, 3), torch.zeros(0, 1, 4)), None, ValueError, r"S > 0"),
        ([[1.0]], None, TypeError, r"pairs \(tuples\) .*got list"),
        (3, None, TypeError, "samples=int"),
        ((G for G in torch.zeros(2, 3, 4)), None, TypeError, "samples=generator"),
    ],
)
def test_samples_of_no_known_form_are_refused(samples, shape, error, message):
    with pytest.raises(error, match=f"second_moment: .*{message}"):
        curvature.shampoo2(samples, shape=shape)


def test_factors_of_another_shape_are_refused(gradients):
    factors = curvature.shampoo2(gradients(5, 4, 3))
    with pytest.raises(ValueError, match=r"truth=\(3, 4\), factors=\(4, 3\)"):
        curvature.cosine_similarity(gradients(5, 3, 4), factors)
