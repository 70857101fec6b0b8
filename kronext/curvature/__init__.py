"""The paper's measurements, for any model: how near is a Kronecker product to the true `H`.

`H = E[g gT]` is the Gauss-Newton matrix of a layer (`capture`: per-example gradients) or Adagrad's
sum over steps (`StepGradients`). `shampoo`, `shampoo2` and `optimal` approximate it by a Kronecker
product, `cosine_similarity` says how well, and `alignment` why.
"""

from __future__ import annotations

from kronext.curvature.approximations import optimal, shampoo, shampoo2
from kronext.curvature.capture import Recording, StepGradients, capture
from kronext.curvature.factors import KroneckerFactors
from kronext.curvature.moments import SecondMoment, Truth, second_moment
from kronext.curvature.similarity import Alignment, alignment, cosine_similarity

__all__ = [
    "Alignment",
    "KroneckerFactors",
    "Recording",
    "SecondMoment",
    "StepGradients",
    "Truth",
    "alignment",
    "capture",
    "cosine_similarity",
    "optimal",
    "second_moment",
    "shampoo",
    "shampoo2",
]
