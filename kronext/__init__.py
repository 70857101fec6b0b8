"""Kronecker-factored preconditioning for PyTorch: compiled ops, optimizers, curvature.

`kronext.ops` holds the compiled ops, `kronext.optim` the optimizers, `kronext.curvature` the
measurements of *A New Perspective on Shampoo's Preconditioner* (arXiv 2406.17748), and
`kronext.reference` every op in readable float64 torch.
"""

from __future__ import annotations

from kronext import ops
from kronext.build import build_info, version

__version__ = version()
__all__ = ["__version__", "build_info", "ops"]


def __getattr__(name: str) -> object:
    """Imports the larger parts when they are first used, so that `import kronext` stays quick."""
    if name in ("curvature", "optim", "reference"):
        import importlib

        return importlib.import_module(f"kronext.{name}")
    raise AttributeError(f"module 'kronext' has no attribute {name!r}")
