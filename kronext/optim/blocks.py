"""A parameter as a grid of matrix blocks, each with its two Kronecker factors and their roots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kronext.optim.lists import buckets, empty_like_all
from kronext.optim.options import Options

FACTORS = ("left", "right")
ROOTS = ("left_root", "right_root")


def matrix_shape(shape: Sequence[int]) -> tuple[int, int] | None:
    """Return `(out, in k k)`, or None for a parameter that passes through.

    Beyond two dimensions sides of 1 are dropped first: a 1 x 197 x 768 position embedding is
    197 x 768, a C x 1 x 1 scale is a vector. A two-dimensional parameter stands as it is: with a
    side of 1 its preconditioner is full-matrix Adagrad on a vector, which is a fine one to have.
    """
    if len(shape) > 2:
        shape = [side for side in shape if side != 1]
    if len(shape) < 2 or 0 in shape:
        return None
    return shape[0], math.prod(shape[1:])


class BlockedParameter:
    """One parameter with what the engine keeps for it.

    The lists hold one matrix a block, in row-major order of the blocks.

    Attributes:
        parameter: the parameter.
        options: its options, None where it passes through.
        step: gradients seen so far; averages and refreshes go by it.
        device_step: the same, 0-D float64 on the device, where steps can be captured in a CUDA
            graph; replays count here alone.
        left: factors of the row side, empty before the first gradient.
        right: factors of the column side.
        left_root: inverse roots of `left`, times `c^{-p}`; empty before the first refresh.
        right_root: inverse roots of `right`.
        block_shapes: the shape of each block, none where the parameter passes through.
        is_one_matrix: whether its only block is the parameter as it stands.
    """

    def __init__(self, parameter: Tensor, options: Options | None) -> None:
        self.parameter = parameter
        self.shape = parameter.shape
        self.options: Options | None = None
        self.step = 0
        self.device_step: Tensor | None = None
        self.left: list[Tensor] = []
        self.right: list[Tensor] = []
        self.left_root: list[Tensor] = []
        self.right_root: list[Tensor] = []
        self.block_shapes: list[tuple[int, int]] = []
        self.is_one_matrix = False
        matrix = matrix_shape(self.shape)
        if options is not None and matrix is not None:
            self.options = options
            self.matrix = matrix
            grid = tuple(-(-side // options.block_size) for side in matrix)
            self.heights, self.widths = map(_even_parts, matrix, grid)
            self.block_shapes = [(m, n) for m in self.heights for n in self.widths]
            self.is_one_matrix = matrix == self.shape and len(self.block_shapes) == 1

    def read_step(self) -> int:
        """Return the step count, replays included; waits for the device where it counts."""
        return self.step if self.device_step is None else int(self.device_step)

    def blocks(self, tensor: Tensor) -> list[Tensor]:
        """Return the blocks of a tensor of the parameter's shape, views where strides allow."""
        matrix = tensor if tensor.dim() == 2 else tensor.reshape(self.matrix)
        bands = matrix.split_with_sizes(self.heights, 0) if len(self.heights) > 1 else [matrix]
        if len(self.widths) == 1:
            return list(bands)
        return [block for band in bands for block in band.split_with_sizes(self.widths, 1)]

    def create_factors(self) -> None:
        """Start both factors of every block at zero."""
        self.left = [self._zeros(height) for height, _ in self.block_shapes]
        self.right = [self._zeros(width) for _, width in self.block_shapes]

    def create_roots(self) -> None:
        """Start both roots of every block at the identity, which stays where a root fails."""
        for factors, roots in ((self.left, self.left_root), (self.right, self.right_root)):
            roots.extend(torch.nn.init.eye_(torch.empty_like(factor)) for factor in factors)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs: a step count, lists of tensors and what they mean."""
        state: dict[str, Any] = {"step": self.read_step()}
        if self.left and self.options is not None:
            state["estimator"] = self.options.estimator
        names = (FACTORS if self.left else ()) + (ROOTS if self.left_root else ())
        return state | {name: list(getattr(self, name)) for name in names}

    def check_state(self, label: str, state: Mapping[str, Any]) -> None:
        """Raise ValueError unless `state` is one that `state()` gives for such a parameter."""
        step = state.get("step")
        if not isinstance(step, int) or step < 0:
            raise ValueError(f"{label} must have a step, an int >= 0 (got step={step!r})")
        for names in (FACTORS, ROOTS):
            if not any(name in state for name in names):
                continue
            for name, side in zip(names, (0, 1), strict=True):
                expected = [(shape[side], shape[side]) for shape in self.block_shapes]
                got = [tuple(tensor.shape) for tensor in state.get(name, [])]
                if got != expected:
                    raise ValueError(
                        f"{label} must have one {name} per block, of shapes {expected} (got {got})"
                    )
        if self.options is not None and FACTORS[0] in state:
            estimator = state.get("estimator")
            if estimator != self.options.estimator:
                raise ValueError(
                    f"{label} must be of estimator {self.options.estimator!r}, whose factors mean "
                    f"something else (got estimator={estimator!r})"
                )

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over a copy of `state`."""
        self.step, self.device_step = state["step"], None
        for name in FACTORS + ROOTS:
            copies = [
                tensor.detach().to(self.parameter.device, self._factor_dtype, copy=True)
                for tensor in state.get(name, [])
            ]
            setattr(self, name, copies)

    @property
    def _factor_dtype(self) -> torch.dtype:
        return torch.float64 if self.parameter.dtype == torch.float64 else torch.float32

    def _zeros(self, side: int) -> Tensor:
        return torch.zeros(side, side, dtype=self._factor_dtype, device=self.parameter.device)


def blocks_of(members: Sequence[BlockedParameter], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the blocks of one tensor for each parameter, as one list."""
    pairs = zip(members, tensors, strict=True)
    lists = [[t] if member.is_one_matrix else member.blocks(t) for member, t in pairs]
    return [block for blocks in lists for block in blocks]


def assembled(
    members: Sequence[BlockedParameter], lists: Sequence[Sequence[Tensor]]
) -> list[Tensor]:
    """Return each list of blocks as one tensor of the shape of its parameter."""
    wholes = [blocks[0] for blocks in lists]
    cut = [k for k, blocks in enumerate(lists) if len(blocks) > 1]
    for bucket in buckets(cut, [(wholes[k].device, wholes[k].dtype) for k in cut]):
        dtype = wholes[bucket[0]].dtype
        _, fresh = empty_like_all([members[k].parameter for k in bucket], dtype)
        places = blocks_of([members[k] for k in bucket], fresh)
        torch._foreach_copy_(places, [block for k in bucket for block in lists[k]])
        for k, whole in zip(bucket, fresh, strict=True):
            wholes[k] = whole
    return [
        whole if member.is_one_matrix else whole.view(member.shape)
        for member, whole in zip(members, wholes, strict=True)
    ]


def paired(
    members: Sequence[BlockedParameter], lists: Sequence[list[Tensor]]
) -> tuple[list[Tensor], list[Tensor], list[int]]:
    """Return views of the parameters, their blocks of equal shapes, and how many each has.

    One pair for each block, but one for the whole of a parameter whose strides do not let it be
    seen as a matrix (a convolution in channels-last order).
    """
    lists = list(lists)
    odd = [
        k
        for k, member in enumerate(members)
        if not member.is_one_matrix and len(member.shape) > 2
        if len(lists[k]) == 1 or not member.parameter.is_contiguous()
    ]
    wholes = assembled([members[k] for k in odd], [lists[k] for k in odd])
    for k, whole in zip(odd, wholes, strict=True):
        lists[k] = [whole]
    views = [
        [member.parameter] if len(blocks) == 1 else member.blocks(member.parameter)
        for member, blocks in zip(members, lists, strict=True)
    ]
    return (
        [view for of_parameter in views for view in of_parameter],
        [block for blocks in lists for block in blocks],
        [len(blocks) for blocks in lists],
    )


def _even_parts(side: int, parts: int) -> list[int]:
    """Return sizes that add up to `side` and differ by 1 at most, the larger ones first."""
    return [side // parts + (part < side % parts) for part in range(parts)]
