"""Who takes part in a step, sorted into lists that share a call.

It stays the same from step to step in most runs, so it is made once and used until it changes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from torch import Tensor

from kronext.optim.blocks import BlockedParameter
from kronext.optim.lists import buckets
from kronext.optim.options import Options


@dataclass(frozen=True)
class Bucket:
    """Preconditioned parameters of one kind and set of options.

    Attributes:
        indices: their places among all parameters.
        members: the parameters with their factors.
        options: what they have in common.
    """

    indices: list[int]
    members: list[BlockedParameter]
    options: Options


class Plan:
    """The parameters that have a gradient, and in which lists they are handled.

    Attributes:
        kinds: what the plan was made for, see `kinds_of`.
        active: the places of parameters with a gradient.
        members: these parameters.
        buckets: those of them that are preconditioned.
        passed_through: how many are not.
        blocks: how many blocks there are.
    """

    def __init__(self, kinds: list[Hashable], members: Sequence[BlockedParameter]) -> None:
        self.kinds = kinds
        self.active = [index for index, kind in enumerate(kinds) if kind is not None]
        self.members = [members[index] for index in self.active]
        blocked = [index for index in self.active if members[index].options is not None]
        self.buckets: list[Bucket] = []
        for indices in buckets(blocked, [(kinds[i], id(members[i].options)) for i in blocked]):
            options = members[indices[0]].options
            assert options is not None
            self.buckets.append(Bucket(indices, [members[i] for i in indices], options))
        self.passed_through = len(self.active) - len(blocked)
        self.blocks = sum(len(members[index].block_shapes) for index in blocked)


def kinds_of(params: Sequence[Tensor], tensors: Sequence[Tensor | None]) -> list[Hashable]:
    """Return device and dtypes of each parameter and its tensor, None where there is none."""
    return [
        None if tensor is None else (parameter.device, parameter.dtype, tensor.dtype)
        for parameter, tensor in zip(params, tensors, strict=True)
    ]
