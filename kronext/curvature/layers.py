"""The layers that can be measured: their weights as matrices, their uses as factors `(D, A)`.

A linear layer and a convolution are alike: at each position `t` the output is `W a_t` for an input
vector `a_t`, which for a convolution is a patch of its input. So `G_x = sum_t d_t a_tT`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Convolution: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d
Module: TypeAlias = nn.Linear | Convolution

_CONVOLUTIONS = get_args(Convolution)
MODULES = (nn.Linear, *_CONVOLUTIONS)

_ROWS = re.compile(r"(.*)\[(-?\d+)?:(-?\d+)?\]")


@dataclass(frozen=True)
class Layer:
    """Rows of a module's weight, seen as `(out, in)` or `(out, in / groups * kernel)`.

    Attributes:
        path: of the module in its model.
        module: an `nn.Linear` or a convolution.
        rows: which outputs; all of them, or for example the queries of a fused projection.
    """

    path: str
    module: Module
    rows: slice

    @property
    def parameter(self) -> str:
        """The name of the weight, as in `model.named_parameters()`."""
        return f"{self.path}.weight" if self.path else "weight"

    @property
    def shape(self) -> tuple[int, int]:
        """`(m, n)`."""
        m, n = self.matrix(self.module.weight).shape
        return m, n

    def matrix(self, weight: Tensor) -> Tensor:
        """The rows of a tensor of the weight's shape, `(m, n)`."""
        return weight.flatten(1)[self.rows]

    def weight(self, V: Tensor) -> Tensor:
        """A tensor of the weight's shape with these rows, and zeros elsewhere."""
        weight = torch.zeros_like(self.module.weight)
        weight.flatten(1)[self.rows] = V
        return weight


def find_layers(caller: str, model: nn.Module, names: str | Sequence[str]) -> dict[str, Layer]:
    """The layers of these names: `"path"`, or `"path[start:stop]"` for some rows of the weight.

    Raises:
        ValueError: no module has this path, or there are no such rows.
        TypeError: a module is not linear.
    """
    modules = dict(model.named_modules())
    layers: dict[str, Layer] = {}
    for name in [names] if isinstance(names, str) else names:
        path, rows = name, slice(None)
        if path not in modules and (match := _ROWS.fullmatch(name)):
            path = match[1]
            rows = slice(*(int(end) if end else None for end in match.groups()[1:]))
        if path not in modules:
            raise ValueError(f"{caller}: layer must name a module of the model (got {name!r})")
        module = modules[path]
        if not isinstance(module, MODULES):
            raise TypeError(
                f"{caller}: layer must be nn.Linear, nn.Conv1d, nn.Conv2d or nn.Conv3d "
                f"(got {name!r}, {type(module).__name__})"
            )
        outputs = len(module.weight)
        if not range(outputs)[rows]:
            raise ValueError(
                f"{caller}: layer must have the rows it is asked for (got {name!r}, "
                f"outputs={outputs})"
            )
        layers[name] = Layer(path, module, rows)
    return layers


def users_of_weight(model: nn.Module, layer: Layer) -> list[Module]:
    """The layer's module and those that hold the same weight: its gradient sums over all."""
    users: list[Module] = []
    for other, module in model.named_modules():
        weight = layer.module.weight
        tied = any(parameter is weight for parameter in module.parameters(recurse=False))
        if tied and not isinstance(module, MODULES):
            raise ValueError(
                "capture: the weight of a layer must belong to nn.Linear or nn.Conv modules alone "
                f"(got layer={layer.path!r}, shared with {other!r}, {type(module).__name__})"
            )
        if isinstance(module, MODULES) and (tied or module is layer.module):
            users.append(module)
    return users


def has_examples(module: Module, x: Tensor, count: int) -> bool:
    """Whether an input has this many examples along dimension 0."""
    dimensions = len(module.kernel_size) + 2 if isinstance(module, _CONVOLUTIONS) else None
    fits = x.dim() >= 2 if dimensions is None else x.dim() == dimensions
    return fits and len(x) == count


def inputs_by_position(module: Module, x: Tensor) -> Tensor:
    """`A` of an input: `(N, T, n)`."""
    if not isinstance(module, _CONVOLUTIONS):
        return x.unsqueeze(1) if x.dim() == 2 else x.flatten(1, -2)
    # (N, T, C, kernel) -> (N, T, groups, C / groups * kernel), with a position for each group.
    A: Tensor = _patches(module, x).unflatten(2, (module.groups, -1)).flatten(3).flatten(1, 2)
    return A


def gradients_by_position(module: Module, gradient: Tensor) -> Tensor:
    """`D` of an output gradient: `(N, T, out)`."""
    if not isinstance(module, _CONVOLUTIONS):
        return gradient.unsqueeze(1) if gradient.dim() == 2 else gradient.flatten(1, -2)
    D = gradient.flatten(2).mT
    if module.groups == 1:
        return D
    # A group's outputs see its inputs only: at the position of another group they are zero.
    own = torch.eye(module.groups, dtype=D.dtype, device=D.device).unsqueeze(-1)
    by_group: Tensor = own * D.unflatten(2, (module.groups, -1)).unsqueeze(2)
    return by_group.flatten(3).flatten(1, 2)


def _patches(module: Convolution, x: Tensor) -> Tensor:
    """What the kernel sees at each place it is put to: `(N, T, C, kernel)`."""
    steps = list(zip(module.kernel_size, module.stride, module.dilation, strict=True))
    if isinstance(module.padding, str):
        same = module.padding == "same"
        totals = [dilation * (size - 1) if same else 0 for size, _, dilation in steps]
        padding = [(total // 2, total - total // 2) for total in totals]
    else:
        padding = [(side, side) for side in module.padding]
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(x, [side for pair in reversed(padding) for side in pair], mode)
    for dimension, (size, stride, dilation) in enumerate(steps, 2):
        x = x.unfold(dimension, dilation * (size - 1) + 1, stride)[..., ::dilation]
    # (N, C, places, kernel), both of as many dimensions as the convolution has.
    return x.flatten(2 + len(steps)).flatten(2, 1 + len(steps)).transpose(1, 2)
