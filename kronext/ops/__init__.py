"""The compiled ops: autograd-free, on the CPU (and on CUDA where it is built).

Outputs never require grad and no graph is recorded. Every op checks its arguments before it writes
anything, repeats bit for bit for the same build, device and thread count, survives
`torch.compile(fullgraph=True)`, and accepts leading batch dimensions and strided views. On the CPU
a thread keeps the memory of its last call's intermediate results, up to 64 MB, for the next one.
"""

from kronext.ops import _linalg as _linalg  # registers what the ops on CUDA call
from kronext.ops import _norms as _norms
from kronext.ops import _precision as _precision
from kronext.ops.inverse_root import (
    Eigh,
    InverseRoot,
    InverseRootList,
    eigh,
    inverse_root,
    inverse_root_,
    inverse_root_list,
    inverse_root_list_,
)
from kronext.ops.matvec import kron_matvec, kron_matvec_factored, rearranged_matvec
from kronext.ops.outer import outer_update_, outer_update_list_
from kronext.ops.power_iteration import KroneckerSum, power_iteration, power_iteration_list_
from kronext.ops.precondition import (
    PreconditionedList,
    precondition,
    precondition_list,
    precondition_list_with_squares,
)

__all__ = [
    "Eigh",
    "InverseRoot",
    "InverseRootList",
    "KroneckerSum",
    "PreconditionedList",
    "eigh",
    "inverse_root",
    "inverse_root_",
    "inverse_root_list",
    "inverse_root_list_",
    "kron_matvec",
    "kron_matvec_factored",
    "outer_update_",
    "outer_update_list_",
    "power_iteration",
    "power_iteration_list_",
    "precondition",
    "precondition_list",
    "precondition_list_with_squares",
    "rearranged_matvec",
]
