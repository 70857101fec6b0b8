"""Kronecker-preconditioned optimization.

`Preconditioned` wraps any torch optimizer, `Shampoo` is ready-made, `KroneckerPreconditioner` is
the engine alone.
"""

from kronext.optim.engine import KroneckerPreconditioner
from kronext.optim.preconditioned import Preconditioned
from kronext.optim.report import Report
from kronext.optim.shampoo import Shampoo

__all__ = ["KroneckerPreconditioner", "Preconditioned", "Report", "Shampoo"]
