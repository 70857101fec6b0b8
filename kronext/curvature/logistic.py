"""The paper's logistic regression on two digits (Figure 1 and Table 1, "MNIST-2").

For one logit the weight is `1 x n`, so `Hhat` has one row and every `H` is a Kronecker product:
Shampoo^2 must equal `H_GN` (Corollary 2), and Shampoo, which takes its square root, cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from kronext.curvature.capture import StepGradients, capture
from kronext.curvature.estimators import optimal, shampoo, shampoo2
from kronext.curvature.forms import second_moment
from kronext.curvature.losses import LOSSES, LossName
from kronext.curvature.moments import SecondMoment
from kronext.curvature.similarity import cosine_similarity

_LAYER = "0"


class Similarities(NamedTuple):
    """Cosine similarities of three Kronecker products to one `H`."""

    optimal: float
    shampoo2: float
    shampoo: float


class LogisticStep(NamedTuple):
    """What one step of the run shows, before its update.

    Attributes:
        step: counted from 1.
        loss: mean cross-entropy of all examples.
        gauss_newton: similarities to `H_GN`, all from the exact expectation over labels.
        sampled: similarities to the same `H_GN` where the approximations see one sampled label an
            example, as in the paper.
        adagrad: similarities to `H_Ada` of the steps so far.
    """

    step: int
    loss: float
    gauss_newton: Similarities
    sampled: Similarities
    adagrad: Similarities


def logistic_regression(
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 25,
    learning_rate: float = 0.01,
    logits: Literal[1, 2] = 1,
    initial_weight: Tensor | None = None,
    seed: int = 0,
    on_step: Callable[[LogisticStep], None] | None = None,
) -> list[LogisticStep]:
    """`W <- W - lr dLoss/dW` over all examples, and the similarities at each step.

    Args:
        images: `(N, n)`, float32 or float64; the run keeps their dtype.
        labels: `(N,)` integers 0 and 1.
        steps: of full-batch gradient descent.
        learning_rate: of those steps.
        logits: 1 for the sigmoid of a `1 x n` weight, the paper's; 2 for the softmax of a `2 x n`.
        initial_weight: `(logits, n)`; zeros if None.
        seed: of the sampled labels.
        on_step: called with each step's result as soon as it is there.

    Returns:
        One `LogisticStep` for each step.

    Raises:
        ValueError: images and labels do not match, or labels other than 0 and 1.

    Source: Section 3.1.2, Figure 1 and Appendix B of Morwani et al. 2024.
    """
    if images.dim() != 2 or labels.shape != images.shape[:1]:
        raise ValueError(
            "logistic_regression: images must be (N, n) and labels (N,) "
            f"(got images={tuple(images.shape)}, labels={tuple(labels.shape)})"
        )
    if ((labels != 0) & (labels != 1)).any():
        raise ValueError(
            f"logistic_regression: labels must be 0 and 1 (got labels={labels.unique().tolist()})"
        )
    model = nn.Sequential(nn.Linear(images.shape[1], logits, bias=False)).to(images)
    with torch.no_grad():
        for weight in model.parameters():
            if initial_weight is None:
                weight.zero_()
            else:
                weight.copy_(initial_weight)
    loss_name: LossName = "binary_cross_entropy" if logits == 1 else "cross_entropy"
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    generator = torch.Generator(images.device).manual_seed(seed)
    gradients = StepGradients(model, _LAYER)
    results = []
    for step in range(1, steps + 1):
        with capture(model, _LAYER, loss=loss_name, labels="expected") as expected:
            expected.record(model(images))
        with capture(model, _LAYER, loss=loss_name, generator=generator) as sampled:
            sampled.record(model(images))
        optimizer.zero_grad()
        loss = LOSSES[loss_name].per_example(model(images), labels).mean()
        loss.backward()
        gradients.record()
        optimizer.step()
        gauss_newton = _dense_moment(expected[_LAYER])
        adagrad = second_moment(gradients[_LAYER])
        result = LogisticStep(
            step,
            float(loss.detach()),
            _similarities(gauss_newton, gauss_newton),
            _similarities(gauss_newton, _dense_moment(sampled[_LAYER])),
            _similarities(adagrad, adagrad),
        )
        results.append(result)
        if on_step is not None:
            on_step(result)
    return results


def _dense_moment(samples: tuple[Tensor, Tensor]) -> SecondMoment:
    # With one or two rows H has far fewer entries than its samples, and serves many products.
    moment = second_moment(samples)
    return second_moment(moment.dense(), shape=moment.shape)


def _similarities(truth: SecondMoment, samples: SecondMoment) -> Similarities:
    return Similarities(
        optimal=cosine_similarity(truth, optimal(samples)),
        shampoo2=cosine_similarity(truth, shampoo2(samples)),
        shampoo=cosine_similarity(truth, shampoo(samples)),
    )
