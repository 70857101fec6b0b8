"""`kronext.ops` on the emulated kernels: checks, plans and launches are those of a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

CUDA = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)


@contextmanager
def cpu_tensors_on_cuda_ops(library: Path) -> Iterator[list[str]]:
    """Sends CPU tensors to what `library` registers for CUDA; gives the ops that have run."""
    torch.ops.load_library(str(library))
    ran: list[str] = []

    def forward_to_cuda(name: str) -> Any:
        op = getattr(torch.ops.kronext, name).default

        def run(*arguments: Any, **options: Any) -> Any:
            ran.append(name)
            return op.redispatch(CUDA, *arguments, **options)

        return run

    registered = torch._C._dispatch_get_registrations_for_dispatch_key("CUDA")
    with torch.library._scoped_library("kronext", "IMPL") as overrides:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Warning only once for all operators")
            for op in registered:
                package, name = op.split("::")
                if package == "kronext":
                    overrides.impl(name, forward_to_cuda(name), "CPU", allow_override=True)
        yield ran
