"""The paper's measurements, for any model: how near is a Kronecker product to the true `H`.

`H = E[g gT]` is the Gauss-Newton matrix of a layer (`capture`: per-example gradients) or Adagrad's
sum over steps (`StepGradients`). `shampoo`, `shampoo2`, `optimal`, `kfac` and others approximate
it, `cosine_similarity` says how well, and `alignment` why.
"""

from __future__ import annotations

from kronext.curvature.approximation import (
    Approximation,
    Dense,
    Diagonal,
    KroneckerFactors,
    KroneckerSum,
)
from kronext.curvature.capture import Recording, StepGradients, capture
from kronext.curvature.estimators import diagonal, kronecker_sum, optimal, shampoo, shampoo2
from kronext.curvature.forms import Truth, second_moment
from kronext.curvature.gauss_newton import GaussNewton
from kronext.curvature.hutchinson import Estimate, Hutchinson, hutchinson
from kronext.curvature.kfac import ekfac, kfac, tkfac
from kronext.curvature.moments import SecondMoment
from kronext.curvature.monitor import Monitor
from kronext.curvature.similarity import Alignment, alignment, cosine_similarity
from kronext.curvature.streams import Stream

__all__ = [
    "Alignment",
    "Approximation",
    "Dense",
    "Diagonal",
    "Estimate",
    "GaussNewton",
    "Hutchinson",
    "KroneckerFactors",
    "KroneckerSum",
    "Monitor",
    "Recording",
    "SecondMoment",
    "StepGradients",
    "Stream",
    "Truth",
    "alignment",
    "capture",
    "cosine_similarity",
    "diagonal",
    "ekfac",
    "hutchinson",
    "kfac",
    "kronecker_sum",
    "optimal",
    "second_moment",
    "shampoo",
    "shampoo2",
    "tkfac",
]
