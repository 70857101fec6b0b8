"""torch's float32 matmul precision, as the CUDA ops ask for it.

torch's stable ABI has no such question, and `torch.compile` would write an answer into its graph.
So the compiled ops ask this one, at every call (csrc/torch/matmul_precision.h).
"""

from __future__ import annotations

import torch

NAME = "kronext::float32_matmul_precision"
_LEVELS = {"highest": 0, "high": 1, "medium": 2}  # csrc/core/matmul_precision.h


def float32_matmul_precision() -> int:
    """What `torch.get_float32_matmul_precision()` says now.

    torch refuses to say where precisions were set backend by backend as well; then CUDA's own
    holds, whose "tf32" is "high".
    """
    try:
        return _LEVELS[torch.get_float32_matmul_precision()]
    except RuntimeError:
        tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
        return _LEVELS["high" if tf32 else "highest"]


torch.library.define(NAME, "() -> int")
torch.library.impl(NAME, "CompositeExplicitAutograd", float32_matmul_precision)
