"""torch's float32 matmul precision, as the compiled ops ask for it.

torch's stable ABI has no such question, and `torch.compile` would write an answer into its graph.
So the compiled ops ask this one, at every call (csrc/torch/matmul_precision.h).
"""

from __future__ import annotations

import torch

NAME = "kronext::float32_matmul_precision"
_LEVELS = {"highest": 0, "high": 1, "medium": 2}  # csrc/core/matmul_precision.h
_BACKEND_LEVELS = {"tf32": "high", "bf16": "medium"}


def float32_matmul_precision(cuda: bool) -> int:
    """What `torch.get_float32_matmul_precision()` says now.

    torch refuses to say where precisions were set backend by backend as well; then that of CUDA, or
    on the CPU that of oneDNN, holds: "tf32" is "high", "bf16" is "medium".
    """
    try:
        return _LEVELS[torch.get_float32_matmul_precision()]
    except RuntimeError:
        backend = torch.backends.cuda if cuda else torch.backends.mkldnn
        return _LEVELS[_BACKEND_LEVELS.get(backend.matmul.fp32_precision, "highest")]


torch.library.define(NAME, "(bool cuda) -> int")
torch.library.impl(NAME, "CompositeExplicitAutograd", float32_matmul_precision)
