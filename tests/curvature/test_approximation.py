from __future__ import annotations

import math

import pytest
import torch

from kronext import curvature, reference
from kronext.curvature import Dense, Diagonal, KroneckerFactors, KroneckerSum

M, N = 3, 4
KINDS = ["product", "sum", "diagonal", "entries", "dense"]


@pytest.fixture
def factors(normal):
    left, right = normal(M, 5), normal(N, 6)
    return KroneckerFactors(left @ left.mT, right @ right.mT, 0.3)


@pytest.fixture
def make(normal):
    """One positive definite approximation of each kind, different in each call."""

    def orthogonal(size):
        return torch.linalg.qr(normal(size, size))[0]

    def draw(kind):
        left, right = normal(2, M, 5), normal(2, N, 6)
        left, right = left @ left.mT, right @ right.mT
        values = normal(M, N).square() + 0.1
        match kind:
            case "product":
                return KroneckerFactors(left[0], right[0], 0.3)
            case "sum":
                return KroneckerSum(left, right, torch.tensor([0.7, 0.2]).double())
            case "diagonal":
                return Diagonal(values, orthogonal(M), orthogonal(N))
            case "entries":
                return Diagonal(values)
        root = normal(M * N, M * N + 3)
        return Dense(root @ root.mT, M, N)

    return draw


@pytest.mark.parametrize("kind", KINDS)
def test_norm_matvec_and_condition_number_are_those_of_the_dense_matrix(make, normal, kind):
    M1, V = make(kind), normal(2, M, N)
    H = M1.dense()
    assert M1.shape == (M, N)
    assert torch.equal(H, H.mT) or torch.allclose(H, H.mT, atol=1e-12)
    assert M1.norm() == pytest.approx(float(H.norm()), rel=1e-12)
    torch.testing.assert_close(M1.matvec(V).flatten(1), V.flatten(1) @ H.mT)
    torch.testing.assert_close(M1.unit().dense(), H / H.norm())
    values = torch.linalg.eigvalsh(H)
    assert M1.condition_number() == pytest.approx(float(values[-1] / values[0]), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_inner_product_of_any_two_kinds_is_that_of_the_dense_matrices(make, kind, other):
    a, b = make(kind), make(other)
    expected = float((a.dense() * b.dense()).sum())
    assert a.inner(b) == pytest.approx(expected, rel=1e-12)
    cosine = expected / float(a.dense().norm() * b.dense().norm())
    assert curvature.cosine_similarity(a, b) == pytest.approx(cosine, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("positions", [1, 3])
def test_inner_product_with_samples_is_that_with_their_second_moment(make, normal, kind, positions):
    D, A = normal(9, positions, M), normal(9, positions, N)
    H, approximation = reference.second_moment((D, A)), make(kind)
    expected = float((H * approximation.dense()).sum())
    forms = [(D.mT @ A, None), ((D, A), None), (H, (M, N))]
    forms += [([(D[:4], A[:4]), (D[4:], A[4:])], None)]
    for samples, shape in forms:
        assert approximation.inner(samples, shape=shape) == pytest.approx(expected, rel=1e-12)
        cosine = curvature.cosine_similarity(samples, approximation, shape=shape)
        norms = float(H.norm() * approximation.dense().norm())
        assert cosine == pytest.approx(expected / norms, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exponent", [0.5, -0.5, -1.0, 2.0])
def test_power_is_that_of_the_dense_matrix(make, kind, exponent):
    approximation = make(kind)
    values, vectors = torch.linalg.eigh(approximation.dense())
    expected = (vectors * values**exponent) @ vectors.mT
    torch.testing.assert_close(
        approximation.power(exponent).dense(), expected, rtol=1e-8, atol=1e-8
    )


def test_dense_addresses_entries_by_pairs(factors):
    H = factors.dense().view(M, N, M, N)
    assert H[2, 1, 0, 3] == 0.3 * (factors.left[2, 0] * factors.right[1, 3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_negative_power_of_a_singular_product_is_that_of_the_pseudo_inverse(normal, dtype):
    left, right = normal(4, 2), normal(3, 3)
    factors = KroneckerFactors((left @ left.mT).to(dtype), (right @ right.mT).to(dtype))
    inverse = factors.power(-1).dense().double()
    expected = torch.linalg.pinv(torch.kron(left @ left.mT, right @ right.mT), rtol=1e-6)
    assert (inverse - expected).norm() <= 1e-4 * expected.norm()


def test_negative_power_of_a_diagonal_leaves_zeros():
    diagonal = Diagonal(torch.tensor([[4.0, 0.0]]))
    assert diagonal.power(-0.5).values.tolist() == [[0.5, 0.0]]


@pytest.mark.parametrize(
    "singular",
    [
        KroneckerFactors(torch.diag(torch.tensor([1.0, 0.0])), torch.eye(2)),
        Diagonal(torch.tensor([[1.0, 0.0]])),
        Dense(torch.diag(torch.tensor([1.0, -1.0])), 1, 2),
    ],
)
def test_condition_number_of_what_is_not_positive_definite_is_infinite(singular):
    assert math.isinf(singular.condition_number())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_unit_has_norm_one_where_the_norm_has_left_the_range(make, kind, scale):
    approximation = make(kind)
    match approximation:
        case KroneckerFactors(left, right):
            scaled = KroneckerFactors(left * scale, right * scale)
        case KroneckerSum(left, right, sigma):
            scaled = KroneckerSum(left, right, sigma * scale)
        case Diagonal(values, left, right):
            scaled = Diagonal(values * scale, left, right)
        case Dense(H):
            scaled = Dense(H * scale, M, N)
    unit = approximation.unit().dense()
    torch.testing.assert_close(scaled.unit().dense(), unit)
    assert float(unit.norm()) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize(
    "zero",
    [
        KroneckerFactors(torch.eye(M), torch.eye(N), 0.0),
        KroneckerFactors(torch.zeros(M, M), torch.eye(N)),
        KroneckerSum(torch.eye(M)[None], torch.eye(N)[None], torch.zeros(1)),
        Diagonal(torch.zeros(M, N)),
    ],
)
def test_similarity_of_zero_is_not_a_number(normal, zero):
    assert math.isnan(curvature.cosine_similarity(normal(5, M, N, dtype=torch.float32), zero))


def test_inner_product_of_other_shapes_is_refused(factors, normal):
    for other in (normal(5, N, M), Diagonal(normal(N, M))):
        with pytest.raises(ValueError, match=r"inner: .*got \(3, 4\) and \(4, 3\)"):
            factors.inner(other)
