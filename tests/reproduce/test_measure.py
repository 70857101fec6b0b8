"""Measurements of the figures against dense matrices in float64, written out here."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from kronext.reproduce import sources
from kronext.reproduce.adagrad import RunningAdagrad
from kronext.reproduce.experiments import EXPERIMENTS, PRESETS
from kronext.reproduce.measure import GaussNewtonMeter, Pool, adagrad_similarities
from kronext.reproduce.training import Examples, Trainer, seeded

CPU = torch.device("cpu")


class Case:
    """A quick run after three steps, and its parts."""

    def __init__(self, name: str, **changes) -> None:
        self.experiment = EXPERIMENTS[name]
        self.settings = replace(PRESETS["quick"][name], **changes)
        images = sources.bundled(self.experiment.data, self.settings.image_size)
        examples = Examples(images, standardize=self.experiment.standardize, device=CPU)
        self.trainer = Trainer(self.experiment, self.settings, examples, 0)
        self.model = self.trainer.model
        self.layers = list(self.experiment.layers(self.settings))
        self.pool = Pool(examples, self.settings.examples, seeded(0, "pool", 0))
        self.adagrad = RunningAdagrad(self.model, self.layers, self.settings, 0)
        self.gradients: dict[str, list[torch.Tensor]] = {layer: [] for layer in self.layers}
        for step in range(3):
            self.trainer.backward()
            self.adagrad.record(step)
            for layer in self.layers:
                self.gradients[layer].append(self.weight(layer, gradient=True).clone())
            self.trainer.update()

    def weight(self, layer: str, *, gradient: bool = False) -> torch.Tensor:
        path, _, rows = layer.partition("[:")
        weight = self.model.get_parameter(f"{path}.weight")
        matrix = (weight.grad if gradient else weight).flatten(1)
        return matrix[: int(rows[:-1])] if rows else matrix

    def measure(self) -> dict[str, dict[str, float]]:
        meter = GaussNewtonMeter(
            self.model, self.layers, self.pool, self.settings, self.experiment.loss, 0
        )
        assert meter.mean_loss() > 0
        return meter.measure(3)


def dense_gauss_newton(case: Case, layer: str) -> tuple[torch.Tensor, tuple[int, int]]:
    """`sum_x sum_s p(s | x) g gT / N` by one backward pass for each example and label."""
    model = case.model.double().eval()
    weight = model.get_parameter(f"{layer.partition('[')[0]}.weight")
    ((inputs, _),) = case.pool.batches()
    H, m, n = 0, *case.weight(layer).shape
    for x in inputs.double():
        logits = model(x[None])[0]
        log_p = logits.log_softmax(0)
        for label in range(len(logits)):
            (g,) = torch.autograd.grad(log_p[label], weight, retain_graph=True)
            g = g.flatten(1)[:m].flatten()
            H = H + log_p[label].exp().detach() * torch.outer(g, g)
    model.float().train()
    return H / len(inputs), (m, n)


def dense_similarities(H: torch.Tensor, shape: tuple[int, int]) -> dict[str, float]:
    m, n = shape
    H4 = H.view(m, n, m, n)

    def cosine(left: torch.Tensor, right: torch.Tensor) -> float:
        M = torch.kron(left, right)
        return float((H * M).sum() / (H.norm() * M.norm()))

    def root(matrix: torch.Tensor) -> torch.Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        return (vectors * values.clamp(min=0).sqrt()) @ vectors.mT

    L, R = torch.eye(m).double(), torch.eye(n).double()
    pairs = []
    for _ in range(5):
        L, R = torch.einsum("ijkl,jl->ik", H4, R), torch.einsum("ijkl,ik->jl", H4, L)
        pairs.append((L, R))
        L, R = L / L.norm(), R / R.norm()
    U, sigma, Vh = torch.linalg.svd(H4.transpose(1, 2).reshape(m * m, n * n), full_matrices=False)
    first = pairs[0]
    return {
        "optimal": cosine(*pairs[-1]),
        "shampoo2": cosine(*first),
        "shampoo": cosine(root(first[0]), root(first[1])),
        "leading": float(sigma[0] / sigma.norm()),
        "left": float((U[:, 0] @ first[0].flatten()).abs() / first[0].norm()),
        "right": float((Vh[0] @ first[1].flatten()).abs() / first[1].norm()),
    }


@pytest.mark.parametrize("name", ["resnet", "convnext", "vit"])
def test_gauss_newton_similarities_equal_those_of_the_dense_matrix(name):
    case = Case(name)
    measured = case.measure()
    for layer in case.layers:
        expected = dense_similarities(*dense_gauss_newton(case, layer))
        found = {key: measured[layer][key] for key in expected}
        # Eigenvalues near zero, whose roots Shampoo takes, are rounded in float32.
        assert found == pytest.approx(expected, abs=2e-4)


def test_adagrad_similarities_equal_those_of_the_dense_matrix():
    case = Case("vit")
    for layer in case.layers:
        G = torch.stack(case.gradients[layer]).double()
        g = G.flatten(1)
        expected = dense_similarities(g.mT @ g, tuple(G.shape[1:]))
        found = adagrad_similarities(case.adagrad, layer)
        assert found == pytest.approx(expected, abs=2e-4)


def test_probes_estimate_the_exact_gauss_newton_similarities():
    exact, probed = Case("vit"), Case("vit", probes=80)
    exact.layers = probed.layers = exact.layers[:1]
    (reference,) = exact.measure().values()
    (estimate,) = probed.measure().values()
    # The approximations are those of single drawn labels; the truth is that of all labels.
    assert estimate["shampoo2"] == pytest.approx(estimate["shampoo2_sampled"], abs=1e-6)
    for key in ("shampoo2_sampled", "shampoo2_real"):
        assert estimate[key] == pytest.approx(reference[key], abs=0.05)


def test_probes_estimate_the_exact_adagrad_similarities():
    exact, probed = Case("vit"), Case("vit", probes=2000)
    for layer in exact.layers:
        estimate = adagrad_similarities(probed.adagrad, layer)
        assert estimate == pytest.approx(adagrad_similarities(exact.adagrad, layer), abs=0.05)


def test_probes_see_every_step_and_the_kept_gradients_one_in_so_many():
    case = Case("vit", probes=2000, keep_every=2)
    layer = case.layers[0]
    G = torch.stack(case.gradients[layer])
    assert case.adagrad.samples(layer).count == 2
    truth = case.adagrad.truth(layer)
    norm = torch.linalg.matrix_norm(G.flatten(1) @ G.flatten(1).mT)
    assert truth.norm() == pytest.approx(float(norm), rel=0.1)


def test_large_batches_of_sampled_labels_agree_in_expectation():
    """Lemma 7; and labels that the model would not choose drive real ones apart (Lemma 8)."""
    case = Case("mnist", large_batches=1000, large_batch=64, examples=40)
    found = case.measure()["linear"]
    assert found["shampoo2_sampled_batch"] == pytest.approx(1, abs=0.03)
    assert found["shampoo2_real_batch"] < 0.7
    assert found["shampoo2_real"] > 0.9


def test_measuring_leaves_the_run_alone():
    measured, not_measured = Case("resnet"), Case("resnet")
    measured.trainer.backward()
    before = measured.weight("layer1.1.conv1", gradient=True).clone()
    measured.measure()
    assert torch.equal(measured.weight("layer1.1.conv1", gradient=True), before)
    assert measured.model.training
    state, other = measured.model.state_dict(), not_measured.model.state_dict()
    not_measured.trainer.backward()
    for name, value in state.items():
        assert torch.equal(value, other[name]), name


def test_no_leading_pair_leaves_a_gap(monkeypatch):
    def not_converged(*_, **__):
        raise RuntimeError("power iteration must come to tol")

    case = Case("vit")
    expected = adagrad_similarities(case.adagrad, case.layers[0])
    monkeypatch.setattr("kronext.curvature.alignment", not_converged)
    found = adagrad_similarities(case.adagrad, case.layers[0])
    for key, value in found.items():
        if key in ("leading", "left", "right"):
            assert math.isnan(value)
        else:
            assert value == expected[key]


def test_pool_draws_only_what_it_holds():
    images = sources.bundled("cifar", 16)
    examples = Examples(images, standardize=False, device=CPU)
    pool = Pool(examples, 3, seeded(1, "pool", 0))
    ((held, labels),) = pool.batches()
    drawn, _ = pool.draw(50, seeded(2, "draws", 0))
    assert len(labels) == 3
    distances = (drawn[:, None] - held[None]).flatten(2).abs().amax(2)
    assert (distances.amin(1) == 0).all()
    assert set(distances.argmin(1).tolist()) == {0, 1, 2}
