from __future__ import annotations

import math

import pytest
import torch

from kronext.curvature import KroneckerFactors


@pytest.fixture
def factors(normal):
    left, right = normal(3, 5), normal(4, 6)
    return KroneckerFactors(left @ left.mT, right @ right.mT, 0.3)


def test_dense_addresses_entries_by_pairs(factors):
    H = factors.dense().view(3, 4, 3, 4)
    assert H[2, 1, 0, 3] == 0.3 * (factors.left[2, 0] * factors.right[1, 3])


def test_norm_inner_and_matvec_are_those_of_the_dense_matrix(factors, normal):
    other = KroneckerFactors(normal(3, 3), normal(4, 4), 2.0)
    H, V = factors.dense(), normal(2, 3, 4)
    assert factors.shape == (3, 4)
    assert factors.norm() == pytest.approx(float(H.norm()), rel=1e-12)
    assert factors.inner(other) == pytest.approx(float((H * other.dense()).sum()), rel=1e-12)
    product = other.matvec(V).flatten(1)
    torch.testing.assert_close(product, V.flatten(1) @ other.dense().mT)


@pytest.mark.parametrize("exponent", [0.5, -0.5, -1.0, 2.0])
def test_power_is_that_of_the_dense_matrix(factors, exponent):
    values, vectors = torch.linalg.eigh(factors.dense())
    expected = (vectors * values**exponent) @ vectors.mT
    torch.testing.assert_close(factors.power(exponent).dense(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_negative_power_of_a_singular_product_is_that_of_the_pseudo_inverse(normal, dtype):
    left, right = normal(4, 2), normal(3, 3)
    factors = KroneckerFactors((left @ left.mT).to(dtype), (right @ right.mT).to(dtype))
    inverse = factors.power(-1).dense().double()
    expected = torch.linalg.pinv(torch.kron(left @ left.mT, right @ right.mT), rtol=1e-6)
    assert (inverse - expected).norm() <= 1e-4 * expected.norm()


def test_condition_number_is_the_ratio_of_the_extreme_eigenvalues(factors):
    values = torch.linalg.eigvalsh(factors.dense())
    assert factors.condition_number() == pytest.approx(float(values[-1] / values[0]), rel=1e-9)
    singular = KroneckerFactors(torch.diag(torch.tensor([1.0, 0.0])), torch.eye(2))
    assert math.isinf(singular.condition_number())
