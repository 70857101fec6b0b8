"""The estimators of the paper: how factors gather gradients and what roots of them precondition.

`H ~ c A (x) B` preconditions as `H^{-p} g = vec(c^{-p} A^{-p} G B^{-p})`:

| estimator | factors | A, B | c |
|---|---|---|---|
| shampoo  | `L += G GT`, `R += GT G`             | `L^{1/2}`, `R^{1/2}` | 1 |
| shampoo2 | `L += G GT`, `R += GT G`             | `L`, `R` | `1 / Tr(L)` (Corollary 2) |
| optimal  | `L += G R/|R| GT`, `R += GT L/|L| G` | `L`, `R` | `1 / sqrt(|L| |R|)` (eq. 3 and 4) |

Source: Morwani et al., A New Perspective on Shampoo's Preconditioner, arXiv 2406.17748.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kronext import ops
from kronext.optim.options import Options


def accumulate(
    options: Options,
    lefts: Sequence[Tensor],
    rights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    *,
    decay: float | Sequence[float],
    weight: float | Sequence[float],
) -> None:
    """Fold one gradient into each pair of factors, in place, by one list op."""
    update = ops.power_iteration_list_ if options.estimator == "optimal" else ops.outer_update_list_
    update(lefts, rights, gradients, decay=decay, weight=weight)


def factor_root(options: Options) -> float:
    """Return `r` such that `A^{-p}` is the inverse r-th root of the left factor, `B^{-p}` too."""
    return (2 if options.estimator == "shampoo" else 1) / options.exponent


def scales(options: Options, lefts: list[Tensor], rights: list[Tensor]) -> Tensor | None:
    """Return `c^{-p}` of each block as one vector, None where it is 1."""
    match options.estimator:
        case "shampoo":
            return None
        case "shampoo2":
            # The 1-norm of a diagonal that cannot be negative is the trace, for all in one call.
            inverse = torch.stack(torch._foreach_norm([left.diagonal() for left in lefts], 1))
        case "optimal":
            # The squares of float32 entries, and the product of the norms, could leave float32.
            left_norms = torch.stack(torch._foreach_norm(lefts, 2, torch.float64))
            right_norms = torch.stack(torch._foreach_norm(rights, 2, torch.float64))
            inverse = (left_norms * right_norms).sqrt()
    return (inverse**options.exponent).to(lefts[0].dtype)
