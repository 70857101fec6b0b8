"""The compiled ops: autograd-free, on the CPU (and on CUDA where it is built).

Outputs never require grad and no graph is recorded. Every op checks its arguments before it writes
anything, repeats bit for bit for the same build, device and thread count, survives
`torch.compile(fullgraph=True)`, and accepts leading batch dimensions and strided views.
"""

from kronext.ops.outer import outer_update_, outer_update_list_
from kronext.ops.precondition import precondition, precondition_list

__all__ = [
    "outer_update_",
    "outer_update_list_",
    "precondition",
    "precondition_list",
]
