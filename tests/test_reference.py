"""Each oracle against a formula that shares no code with it."""

from __future__ import annotations

import itertools

import helpers
import mpmath
import pytest
import torch

from kronext import reference


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def normal(rng, *shape, dtype=torch.float64):
    return helpers.draw_normal(rng, *shape, dtype=dtype)


def psd(rng, n, condition, dtype=torch.float64):
    Q, _ = torch.linalg.qr(normal(rng, n, n))
    values = torch.logspace(0, -torch.tensor(condition).log10().item(), n, dtype=torch.float64)
    A = ((Q * values) @ Q.mT).to(dtype)
    return (A + A.mT) / 2


def assert_close(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def test_rearrange_puts_each_entry_where_its_definition_says(rng):
    m, n = 2, 3
    H = normal(rng, m * n, m * n)
    Hhat = reference.rearrange(H, m, n)
    for i, j, k, l in itertools.product(range(m), range(n), range(m), range(n)):
        assert Hhat[i * m + k, j * n + l] == H[i * n + j, k * n + l]
    assert torch.equal(reference.rearrange_inverse(Hhat, m, n), H)


def test_rearranged_kronecker_product_is_an_outer_product(rng):
    A, B = normal(rng, 2, 3, 3), normal(rng, 2, 4, 4)
    product = torch.stack([torch.kron(a, b) for a, b in zip(A, B, strict=True)])
    assert torch.equal(reference.kron(A, B), product)
    outer = A.flatten(1).unsqueeze(2) * B.flatten(1).unsqueeze(1)
    assert torch.equal(reference.rearrange(product, 3, 4), outer)


def test_rearranged_second_moment_is_the_mean_of_kronecker_squares(rng):
    G = normal(rng, 5, 3, 2)
    H = sum(torch.outer(g.flatten(), g.flatten()) for g in G) / 5
    assert_close(reference.second_moment(G), H)
    assert_close(reference.rearrange(H, 3, 2), sum(torch.kron(g, g) for g in G) / 5)


@pytest.mark.parametrize(("decay", "weight"), [(1.0, 1.0), (0.9, 0.1), (0.0, 2.0)])
def test_outer_update_sums_rows_and_columns(rng, decay, weight):
    G = normal(rng, 3, 5, dtype=torch.bfloat16)
    L, R = normal(rng, 3, 3), normal(rng, 5, 5)
    left, right = reference.outer_update(L, R, G, decay=decay, weight=weight)
    g = G.double()
    assert_close(left, decay * L + weight * sum(torch.outer(c, c) for c in g.unbind(1)))
    assert_close(right, decay * R + weight * sum(torch.outer(r, r) for r in g.unbind(0)))
    alone, nothing = reference.outer_update(L, None, G, decay=decay, weight=weight)
    assert torch.equal(alone, left)
    assert nothing is None


def test_eigh_is_ascending_and_orthogonal(rng):
    A = psd(rng, 6, 1e4)
    values, vectors = reference.eigh(A)
    assert (values.diff() > 0).all()
    assert_close(vectors.mT @ vectors, torch.eye(6).double())
    assert_close(vectors @ values.diag() @ vectors.mT, A)


def test_eigh_of_a_matrix_with_nan_is_that_of_the_identity_and_spares_its_neighbours(rng):
    A = torch.stack([psd(rng, 3, 10), torch.full((3, 3), torch.nan), psd(rng, 3, 10)])
    values, vectors = reference.eigh(A)
    assert torch.equal(values[1], torch.ones(3).double())
    assert_close(vectors[::2] @ values[::2].diag_embed() @ vectors[::2].mT, A[::2])


@pytest.mark.parametrize("root", [1, 2, 3, 4])
def test_inverse_root_to_its_power_inverts(rng, root):
    A = psd(rng, 8, 1e4)
    X = reference.inverse_root(A, root)
    assert torch.equal(X, X.mT)
    assert_close(torch.linalg.matrix_power(X, root) @ A, torch.eye(8).double(), 1e-10)


@pytest.mark.parametrize(
    ("eps", "relative_eps"), [(0.0, 0.0), (1e-3, 0.0), (0.0, 1e-2), (1e-3, 1e-2)]
)
def test_inverse_root_equals_that_of_fifty_digits(rng, eps, relative_eps):
    A = psd(rng, 5, 1e6)
    with mpmath.workdps(50):
        values, vectors = mpmath.eigsy(mpmath.matrix(A.tolist()))
        damping = eps + relative_eps * max(values)
        powers = mpmath.diag([(value + damping) ** mpmath.mpf(-0.25) for value in values])
        expected = torch.tensor((vectors * powers * vectors.T).tolist(), dtype=torch.float64)
    X = reference.inverse_root(A, 4, eps=eps, relative_eps=relative_eps)
    # Rounding of the eigenvalues (u lambda_max) moves the smallest by 1e-10 of itself.
    assert (X - expected).norm() <= 1e-9 * expected.norm()


def test_inverse_root_of_singular_matrices_is_that_of_the_pseudo_inverse(rng):
    B = normal(rng, 6, 2)
    A = B @ B.mT
    X = reference.inverse_root(A, 1)
    assert_close(X, torch.linalg.pinv(A, hermitian=True), 1e-10)
    assert torch.equal(reference.inverse_root(0 * A, 4), 0 * A)


def test_inverse_root_cuts_at_four_roundoffs_of_the_given_dtype():
    for dtype, unit in [(torch.float32, 2**-24), (torch.float64, 2**-53)]:
        A = torch.tensor([1.0, 4 * unit, 8 * unit], dtype=torch.float64).to(dtype).diag()
        expected = torch.tensor([1.0, 0.0, (8 * unit) ** -0.5], dtype=torch.float64).diag()
        assert_close(reference.inverse_root(A, 2), expected)


def test_inverse_root_does_not_cut_damped_eigenvalues():
    A = torch.tensor([1.0, 0.0], dtype=torch.float64).diag()
    expected = torch.tensor([1.0, 1e10], dtype=torch.float64).diag()
    assert_close(reference.inverse_root(A, 2, eps=1e-20), expected)


def test_inverse_root_of_nan_is_the_identity_and_spares_its_neighbours(rng):
    A = torch.stack([psd(rng, 3, 10), psd(rng, 3, 10)])
    alone = reference.inverse_root(A, 2)
    A[1, 0, 2] = torch.inf
    together = reference.inverse_root(A, 2)
    assert torch.equal(together[0], alone[0])
    assert torch.equal(together[1], torch.eye(3).double())


def test_precondition_multiplies_each_side(rng):
    G, left, right = normal(rng, 2, 3, 4), normal(rng, 3, 3), normal(rng, 2, 4, 4)
    expected = torch.einsum("ij,bjk,bkl->bil", left, G, right)
    assert_close(reference.precondition(G, left, right), expected)
    assert_close(reference.precondition(G, left, None), torch.einsum("ij,bjk->bik", left, G))
    assert torch.equal(reference.precondition(G, None, None), G)


def test_matvecs_are_products_of_the_rearranged_matrix(rng):
    """Neither factor symmetric, so a transposed product cannot pass."""
    D, A = normal(rng, 2, 7, 3, 4), normal(rng, 2, 7, 3, 5)
    G = torch.einsum("bstm,bstn->bsmn", D, A)
    L, R = normal(rng, 2, 4, 4), normal(rng, 5, 5)
    Hhat = torch.einsum("bsij,bskl->bikjl", G, G).flatten(1, 2).flatten(2, 3) / 7
    left = (Hhat @ R.flatten()).view(2, 4, 4)
    right = torch.einsum("brc,br->bc", Hhat, L.flatten(1)).view(2, 5, 5)
    H = reference.rearrange_inverse(Hhat, 4, 5)
    for product in (
        reference.kron_matvec(G, L, R),
        reference.kron_matvec_factored(D, A, L, R),
        reference.rearranged_matvec(H, L, R),
    ):
        assert_close(product, (left, right))


def test_weights_stand_in_place_of_the_mean(rng):
    G, L, R = normal(rng, 4, 2, 3), normal(rng, 2, 2), normal(rng, 3, 3)
    weights = torch.tensor([0.5, 2.0, 0.0, -1.0])
    left = sum(w * g @ R @ g.mT for w, g in zip(weights, G, strict=True))
    right = sum(w * g.mT @ L @ g for w, g in zip(weights, G, strict=True))
    assert_close(reference.kron_matvec(G, L, R, weights=weights), (left, right))


def test_best_kronecker_is_no_worse_than_any_alternating_least_squares_fit(rng):
    """Each half-step of least squares is the exact minimum over one factor."""
    H = reference.second_moment(normal(rng, 9, 3, 4))
    best = reference.best_kronecker(H, 3, 4)
    error = (H - best.sigma * reference.kron(best.left[0], best.right[0])).norm()
    A, B = normal(rng, 3, 3), normal(rng, 4, 4)
    for _ in range(200):
        A = reference.rearranged_matvec(H, A, B)[0] / B.norm() ** 2
        B = reference.rearranged_matvec(H, A, B)[1] / A.norm() ** 2
        assert (H - reference.kron(A, B)).norm() >= error - 1e-12
    assert_close((H - reference.kron(A, B)).norm(), error, 1e-9)


def test_best_kronecker_of_full_rank_restores_the_matrix(rng):
    H = reference.second_moment(normal(rng, 9, 2, 3))
    pairs = reference.best_kronecker(H, 2, 3, rank=4)
    terms = reference.kron(pairs.left, pairs.right)
    assert_close((pairs.sigma[:, None, None] * terms).sum(0), H)


@pytest.mark.parametrize("form", ["gradients", "factored", "dense"])
def test_power_iteration_finds_the_best_kronecker_sum(rng, form):
    D, A = normal(rng, 6, 2, 3), normal(rng, 6, 2, 4)
    H = reference.second_moment((D, A))
    samples = {"gradients": reference.factored_gradients(D, A), "factored": (D, A), "dense": H}
    shape = (3, 4) if form == "dense" else None
    found = reference.power_iteration(samples[form], shape, steps=2000, tol=1e-10, rank=3)
    best = reference.best_kronecker(H, 3, 4, rank=3)
    assert found.info == 0
    assert_close(found.sigma, best.sigma, 1e-8)
    for k in range(3):
        pair = reference.kron(found.left[k], found.right[k])
        assert_close(pair, reference.kron(best.left[k], best.right[k]), 1e-6)
    assert torch.equal(found.left[0], found.left[0].mT)
    assert torch.equal(found.right[0], found.right[0].mT)


def test_power_iteration_takes_both_sides_from_the_previous_pair(rng):
    G = normal(rng, 5, 3, 4)
    L, R = torch.eye(3).double(), torch.eye(4).double()
    for _ in range(3):
        L, R = (sum(g @ R @ g.mT for g in G), sum(g.mT @ L @ g for g in G))
    L, R = L / L.norm(), R / R.norm()
    pair = reference.power_iteration(G, steps=3)
    assert_close((pair.left[0], pair.right[0]), (L, R))
    assert_close(pair.sigma[0], sum(torch.trace(L.mT @ g @ R @ g.mT) for g in G) / 5)
    two = reference.power_iteration(G, steps=2)
    warm = reference.power_iteration(G, steps=1, init=(two.left[0], two.right[0]))
    assert_close((warm.left[0], warm.right[0]), (L, R))


def test_power_iteration_reports_bad_input_and_missing_convergence(rng):
    G = normal(rng, 3, 5, 3, 4)
    G[1, 2, 0, 0] = torch.nan
    pair = reference.power_iteration(G, steps=1, tol=1e-12)
    assert pair.info.tolist() == [2, 1, 2]
    assert pair.sigma[1] == 0
    clean = reference.power_iteration(G[2], steps=1)
    assert_close(pair.left[2], clean.left)
    assert reference.power_iteration(0 * G[0]).sigma == 0


def test_online_power_iteration_uses_the_factors_from_before_the_update(rng):
    G, L, R = normal(rng, 3, 4), psd(rng, 3, 10), psd(rng, 4, 10)
    left, right = reference.power_iteration_update(L, R, G, decay=0.9, weight=0.1)
    assert_close(left, 0.9 * L + 0.1 * G @ R @ G.mT / R.norm())
    assert_close(right, 0.9 * R + 0.1 * G.mT @ L @ G / L.norm())
    left, right = reference.power_iteration_update(0 * L, 0 * R, G, decay=1.0, weight=1.0)
    assert_close((left, right), (G @ G.mT / 2, G.mT @ G / 3**0.5))


def test_online_power_iteration_follows_the_optimal_pair(rng):
    samples = normal(rng, 8, 3, 4)
    best = reference.best_kronecker(reference.second_moment(samples), 3, 4)
    L, R = torch.zeros(3, 3), torch.zeros(4, 4)
    for step in range(4000):
        L, R = reference.power_iteration_update(L, R, samples[step % 8], decay=0.999, weight=0.001)
    assert (L / L.norm() * best.left[0]).sum() > 1 - 1e-4
    assert (R / R.norm() * best.right[0]).sum() > 1 - 1e-4
