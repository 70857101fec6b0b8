"""A device that is not the CPU, for machines that have no other: `pytest --device pretend`.

Its tensors say that they are on `pretend:0` and hold their numbers on the CPU, which computes. What
would fail on a GPU fails here: an operation on tensors of two devices, a generator of another
device, numbers handed to NumPy without a copy to the host.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
HOST = torch.device("cpu")
_aten = torch.ops.aten
_READS = (_aten._local_scalar_dense.default, _aten.equal.default, _aten.nonzero.default)
_COPIES = (_aten.copy_.default, _aten._copy_from.default, _aten._to_copy.default)
host_may_wait: ContextVar[bool] = ContextVar("host_may_wait", default=True)
_library = torch.library.Library("aten", "IMPL")


class PretendTensor(Tensor):
    """The shape, strides and dtype of `host`, on the device that is not there."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> PretendTensor:
        strided = host.layout == torch.strided
        memory = {"strides": host.stride(), "storage_offset": host.storage_offset()}
        made = Tensor._make_wrapper_subclass(
            cls,
            host.shape,
            **(memory if strided else {"layout": host.layout}),
            dtype=host.dtype,
            device=torch.device(NAME, 0),
        )
        made.host = host
        return made

    @property
    def data(self) -> Tensor:
        return Tensor.data.__get__(self)

    @data.setter
    def data(self, other: PretendTensor) -> None:
        Tensor.data.__set__(self, other)
        self.host = other.host

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return PretendTensor, (self.host,)

    def __repr__(self) -> str:
        return f"{repr(self.host)[:-1]}, device='{self.device}')"

    def __format__(self, spec: str) -> str:
        return format(self.host, spec)

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        return compute(operator, args, kwargs or {})


class Generator(torch.Generator):
    """torch's, which may also be of the device that is not there."""

    # By address: an operator is handed another Python object for the same generator.
    pretended: ClassVar[WeakValueDictionary[int, Generator]] = WeakValueDictionary()

    def __new__(cls, device: Any = HOST) -> Generator:
        made = super().__new__(cls)
        if torch.device(device).type == NAME:
            cls.pretended[made._cdata] = made
        return made

    def manual_seed(self, seed: int) -> Generator:
        """A GPU draws other numbers from a seed than the CPU does."""
        return super().manual_seed(seed + (self._cdata in self.pretended))


def waits(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the host waits for the device: it reads a value, or copies to or from the device."""
    devices = {leaf.device.type for leaf in _tensors((args, kwargs))}
    if target := kwargs.get("device"):
        devices.add(target.type)
    return operator in _READS or (operator in _COPIES and len(devices) > 1)


def compute(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operator on the CPU, for arguments of this device."""
    leaves = tree_leaves((args, kwargs))
    if operator not in _COPIES:
        _refuse_other_devices(operator, leaves)
    graph = PretendGraph.current
    if (graph or not host_may_wait.get()) and waits(operator, args, kwargs):
        raise RuntimeError(f"{operator}: the host must not wait for the device")
    run = graph.run if graph else _run
    results = run(operator, tree_map(_to_host, args), tree_map(_to_host, kwargs))
    target = kwargs.get("device")
    if target is not None and target.type != NAME:
        return results
    wrappers = {id(leaf.host): leaf for leaf in leaves if isinstance(leaf, PretendTensor)}

    def from_host(result: Any) -> Any:
        if not isinstance(result, Tensor):
            return result
        if id(result) not in wrappers:
            return PretendTensor(result)
        # What an operator gives back of its arguments is the argument itself, maybe resized.
        given = wrappers[id(result)]
        if given.shape != result.shape:
            given.data = PretendTensor(result)
        return given

    return tree_map(from_host, results)


def _to_host(value: Any) -> Any:
    if isinstance(value, PretendTensor):
        return value.host
    return HOST if isinstance(value, torch.device) and value.type == NAME else value


def _refuse_other_devices(operator: Any, leaves: list[Any]) -> None:
    for leaf in leaves:
        foreign = isinstance(leaf, Tensor) and not isinstance(leaf, PretendTensor)
        if foreign and leaf.dim() > 0:
            raise RuntimeError(f"{operator}: tensors must be on one device (got cpu and {NAME})")
        if isinstance(leaf, torch._C.Generator) and leaf._cdata not in Generator.pretended:
            raise RuntimeError(f"{operator}: generator must be of {NAME} (got cpu)")


def install() -> None:
    """Makes the device known to torch."""
    _setup_privateuseone_for_python_backend(NAME)
    for operator in (
        _aten.empty.memory_format,
        _aten.empty_strided.default,
        _aten._efficientzerotensor.default,
        _aten._copy_from.default,
    ):
        _library.impl(operator, _compute_for(operator), "PrivateUse1")
    torch.Generator = Generator
    torch.serialization.add_safe_globals([PretendTensor])


def _compute_for(operator: Any) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: compute(operator, args, kwargs)


def _run(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if operator is _aten._copy_from.default:  # which the CPU does not have
        source, target = args[:2]
        return target.copy_(source)
    return operator(*args, **kwargs)


# ---- graphs --------------------------------------------------------------------------------------


class PretendGraph:
    """A CUDA graph's twin: the block under it runs Python but leaves every number as it was.

    `replay` does the block's work on the same memory, without Python.
    """

    current: PretendGraph | None = None

    def __init__(self) -> None:
        self._calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __enter__(self) -> PretendGraph:
        PretendGraph.current = self
        return self

    def __exit__(self, *exception: object) -> None:
        PretendGraph.current = None
        for storage, content in self._before.values():
            if storage.nbytes() == content.nbytes():  # else it was made in the block
                storage.copy_(content)

    def run(self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs an operator, so that Python can go on, and keeps it for replays."""
        for storage in map(Tensor.untyped_storage, _tensors((args, kwargs))):
            self._before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        results = _run(operator, args, kwargs)
        self._calls.append((operator, args, kwargs, results))
        return results

    def replay(self) -> None:
        for operator, args, kwargs, results in self._calls:
            again = _run(operator, args, kwargs)
            for old, new in zip(_tensors(results), _tensors(again), strict=True):
                # Views and what is written in place are where they were; an empty tensor that the
                # block gave a size later gets its numbers there.
                moved = old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr()
                if moved and old.shape == new.shape:
                    old.copy_(new)


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
