"""Gradients of chosen layers, as samples of `H_GN` (per example) and `H_Ada` (per step)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from kronext.curvature.layers import (
    Layer,
    Module,
    find_layers,
    gradients_by_position,
    has_examples,
    inputs_by_position,
    users_of_weight,
)
from kronext.curvature.losses import Loss, LossName, find_loss

Labels: TypeAlias = Literal["sampled", "real", "expected"]
_Sample = TypeVar("_Sample")


@contextmanager
def capture(
    model: nn.Module,
    layers: str | Sequence[str],
    *,
    loss: LossName = "cross_entropy",
    labels: Labels = "sampled",
    generator: torch.Generator | None = None,
) -> Iterator[Recording]:
    """`G_{x,s} = D_xT A_x`, per example, so that `H_GN = E_x E_{s~f(x)} [g_{x,s} g_{x,s}T]`.

    Inside the context, run the model and give its output to `Recording.record`, batch by batch.
    How the examples are split into batches does not matter. The model's parameters, their `.grad`
    and the graph of the output are left as they are, so that the same forward pass may be trained
    on. Forward passes under `torch.no_grad` are ignored, and so are the second ones that
    checkpointing makes in the backward pass. The hooks go when the context ends.

        with capture(model, "fc1") as recording:
            for x, y in batches:
                recording.record(model(x), y)
        curvature.shampoo2(recording["fc1"])

    Args:
        model: any module that treats the examples along dimension 0 of its input independently.
        layers: names of `nn.Linear`, `nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d` modules, as in
            `model.named_modules()`. "qkv[:512]" is the first 512 rows of the weight of "qkv", a
            layer of its own. Inputs of a linear layer may be `(N, ..., in_features)`; everything
            between counts as positions `T`. Of a convolution each place of the kernel is a
            position, for each group one (many, for depthwise ones), and the weight is
            `out x (in / groups * kernel)`. Further calls of the layer are more positions, and so
            are those of other such modules that hold the same weight. Uses of the weight outside
            a module are not seen.
        loss: "cross_entropy" over the last dimension of the output, "binary_cross_entropy" on one
            logit an example, or "squared_error", `|output - target|^2 / 2`.
        labels: "sampled" draws one label from the model's own distribution (the Gauss-Newton
            matrix, in expectation); "real" takes the given ones (the empirical Fisher matrix);
            "expected" takes every label weighted by its probability, which is the Gauss-Newton
            matrix exactly, at the price of one backward pass and one sample for each (for
            squared errors, of each output).
        generator: for sampled labels.

    Yields:
        A `Recording`; `recording[layer]` is the pair `(D, A)`, also after the context.

    Raises:
        ValueError: an unknown loss or labels, a layer that does not exist, a weight that a module
            of another type holds too.
        TypeError: a layer that is not linear.

    Source: Section 2.1.2 and Section 4 of Morwani et al. 2024.
    """
    if labels not in ("sampled", "real", "expected"):
        raise ValueError(
            f"capture: labels must be sampled, real or expected (got labels={labels!r})"
        )
    chosen = find_layers("capture", model, layers)
    recording = Recording(chosen, find_loss("capture", loss), labels, generator)
    with ExitStack() as hooks:
        hooks.enter_context(model.register_forward_pre_hook(recording.begin_forward))
        modules = {layer.module: layer for layer in chosen.values()}
        for module, layer in modules.items():
            for user in users_of_weight(model, layer):
                hook = user.register_forward_hook(recording.hook(module), with_kwargs=True)
                hooks.enter_context(hook)
        yield recording


class _Call(NamedTuple):
    """One use of a weight: by which module, on what input, and where its gradient will be."""

    module: Module
    x: Tensor
    edge: GradientEdge


class Recording:
    """Per-example gradients of the layers that `capture` watches."""

    def __init__(
        self,
        layers: dict[str, Layer],
        loss: Loss,
        labels: Labels,
        generator: torch.Generator | None,
    ) -> None:
        self.layers = layers
        self._loss = loss
        self._labels = labels
        self._generator = generator
        # For each chosen module its calls and those of modules that hold its weight.
        self._calls: dict[Module, list[_Call]] = {}
        self._samples: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}

    def record(self, output: Tensor, targets: Tensor | None = None) -> None:
        """Adds the examples of the latest forward pass, whose output this is, once.

        Args:
            output: of the model, with the examples along dimension 0.
            targets: the real labels; not read for sampled and expected ones.

        Raises:
            ValueError: real labels are missing, a layer was not called with the examples along
                dimension 0 of its input in the latest forward pass, or the output does not depend
                on what a call of it gave.
        """
        inputs = {layer.module: self._inputs(layer, len(output)) for layer in self.layers.values()}
        for loss in self._losses(output, targets):
            gradients = self._output_gradients(loss)
            for name, layer in self.layers.items():
                D, A = gradients[layer.module], inputs[layer.module]
                self._samples[name].append((D[..., layer.rows], A))
        self._calls = {}

    def __getitem__(self, layer: str) -> tuple[Tensor, Tensor]:
        """`(D, A)` of a layer: output gradients `(S, T, m)` and inputs `(S, T, n)`."""
        D, A = zip(*_recorded("capture", self._samples, layer), strict=True)
        return torch.cat(D), torch.cat(A)

    def begin_forward(self, module: nn.Module, args: Any) -> None:
        """The pre-hook of the model: what follows belongs to a new output."""
        if torch.is_grad_enabled() and not _in_backward():
            self._calls = {}

    def hook(self, chosen: Module) -> Callable[[Module, Any, Any, Tensor], Tensor | None]:
        """The forward hook of a module, which keeps the input and where its gradient will be.

        Args:
            chosen: the module whose weight it uses.
        """

        def remember(module: Module, args: Any, kwargs: Any, output: Tensor) -> Tensor | None:
            if not torch.is_grad_enabled():
                return None
            if not output.requires_grad:  # a frozen layer that only sees data
                output = output.detach().requires_grad_()
            # Copies, because what follows may overwrite either in place.
            output = output.clone()
            # A recomputation (checkpointing) must do the same, but it is no call of its own.
            if not _in_backward():
                x = args[0] if args else kwargs["input"]
                call = _Call(module, x.detach().clone(), get_gradient_edge(output))
                self._calls.setdefault(chosen, []).append(call)
            return output

        return remember

    def _inputs(self, layer: Layer, examples: int) -> Tensor:
        calls = self._calls.get(layer.module, [])
        if not calls or not all(has_examples(call.module, call.x, examples) for call in calls):
            raise ValueError(
                "capture: the latest forward pass must call each layer with the examples of the "
                "output along dimension 0, not under no_grad (as checkpointing with "
                f"use_reentrant=True does) (got layer={layer.path!r}, examples={examples}, "
                f"inputs={[tuple(call.x.shape) for call in calls]})"
            )
        return torch.cat([inputs_by_position(call.module, call.x) for call in calls], 1)

    def _output_gradients(self, loss: Tensor) -> dict[Module, Tensor]:
        """`D` of each module, `(N, T, out)`."""
        modules = {layer.module: layer.path for layer in self.layers.values()}
        calls = [(module, call) for module in modules for call in self._calls[module]]
        edges = [call.edge for _, call in calls]
        gradients: Sequence[Tensor | None] = [None] * len(edges)
        if loss.requires_grad:
            # The graph is kept: the caller may want to train on the same forward pass.
            gradients = torch.autograd.grad(loss, edges, retain_graph=True, allow_unused=True)
        parts: dict[Module, list[Tensor]] = {module: [] for module in modules}
        for (module, call), gradient in zip(calls, gradients, strict=True):
            if gradient is None:
                raise ValueError(
                    "capture: output must be that of the latest forward pass and depend on every "
                    f"call of each layer in it (got layer={modules[module]!r})"
                )
            parts[module].append(gradients_by_position(call.module, gradient))
        return {module: torch.cat(gradients, 1) for module, gradients in parts.items()}

    def _losses(self, output: Tensor, targets: Tensor | None) -> Iterator[Tensor]:
        """Sums over the batch, whose gradients are therefore those of the single examples."""
        if self._labels == "expected":
            weighted_labels = self._loss.enumerate(output)
            for labels, probability in weighted_labels:
                # The later mean over all samples divides by the number of labels too.
                weight = (len(weighted_labels) * probability).sqrt()
                yield (weight * self._loss.per_example(output, labels)).sum()
            return
        if self._labels == "sampled":
            targets = self._loss.sample(output, self._generator)
        if targets is None:
            raise ValueError('capture: labels="real" needs targets (got targets=None)')
        yield self._loss.per_example(output, targets).sum()


class StepGradients:
    """`H_Ada = sum_t g_t g_tT`: the gradients of chosen layers, step by step.

    Call `record` after each backward pass; `steps[layer]` is then `(t, m, n)`, samples for every
    function of `kronext.curvature`. Those take means, so what they call `H` is `H_Ada / t`: the
    same direction, and `t` times the `scale` for the sum.

    Args:
        model: the model in training.
        layers: names of linear or convolutional layers, or of rows of them; see `capture`.

    Raises:
        ValueError: a layer that does not exist.
        TypeError: a layer that is not linear.

    Source: Section 2.1.1 of Morwani et al. 2024.
    """

    def __init__(self, model: nn.Module, layers: str | Sequence[str]) -> None:
        self._layers = find_layers("StepGradients", model, layers)
        self._gradients: dict[str, list[Tensor]] = {name: [] for name in self._layers}

    def record(self) -> None:
        """Adds the gradient that each layer's weight holds now."""
        for name, layer in self._layers.items():
            if layer.module.weight.grad is None:
                raise ValueError(
                    f"StepGradients: record comes after backward (got layer={name!r}, grad=None)"
                )
        for name, layer in self._layers.items():
            gradient = layer.module.weight.grad
            assert gradient is not None
            self._gradients[name].append(layer.matrix(gradient.detach()).clone())

    def __getitem__(self, layer: str) -> Tensor:
        """`(t, m, n)`, the gradients in the order of the steps."""
        return torch.stack(_recorded("StepGradients", self._gradients, layer))

    def state_dict(self) -> dict[str, Tensor]:
        """What `load_state_dict` takes, to go on after an interruption: nothing before `record`."""
        return {name: torch.stack(own) for name, own in self._gradients.items() if own}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Replaces the gradients by those of a `state_dict` of the same layers, on any device.

        Raises:
            ValueError: it is of other layers.
        """
        if state and state.keys() != self._layers.keys():
            raise ValueError(
                f"StepGradients: state must be of the layers {list(self._layers)} "
                f"(got {list(state)})"
            )
        self._gradients = {
            name: list(state[name].to(layer.module.weight.device)) if name in state else []
            for name, layer in self._layers.items()
        }


def _in_backward() -> bool:
    """Whether this thread runs a backward pass, where checkpointing repeats the forward pass."""
    return torch._C._current_graph_task_id() != -1


def _recorded(caller: str, samples: dict[str, list[_Sample]], layer: str) -> list[_Sample]:
    if layer not in samples:
        raise ValueError(f"{caller}: layer must be one of {list(samples)} (got layer={layer!r})")
    if not samples[layer]:
        raise ValueError(f"{caller}: record must come before reading (got layer={layer!r})")
    return samples[layer]
