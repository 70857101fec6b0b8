"""`H_GN` of a layer by products with vectors: no samples, no labels, any number of outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from kronext.curvature.layers import find_layers
from kronext.curvature.losses import LossName, find_loss


class GaussNewton:
    """`H_GN = E_x[JT (d^2 loss / d output^2) J]`, `J` the Jacobian of the outputs in a weight.

    For the losses of `capture` this is `E_x E_{s~f(x)} [g_{x,s} g_{x,s}T]`, exactly: what samples
    with sampled labels estimate. A product takes one pass over the data, with one forward-mode and
    one reverse-mode derivative for each vector.

        H = curvature.GaussNewton(model, "layer4.1.conv2", loader)
        estimate = curvature.hutchinson(H, probes=100)
        estimate.similarity(curvature.shampoo2(samples))  # with its standard error

    Args:
        model: any module that treats the examples along dimension 0 of its input independently. It
            is called under `torch.func`: dropout must be off, and the layer's weight must be a
            parameter of it.
        layer: the name of one layer, or of rows of it; see `capture`.
        batches: an iterable that can be walked more than once and yields inputs, or pairs of inputs
            and targets, which are not read.
        loss: see `capture`.

    Raises:
        ValueError: an unknown loss, or a layer that does not exist.
        TypeError: a layer that is not linear or convolutional, or batches that can be walked only
            once.

    Source: Section 2.1.2, Appendix B and Appendix D of Morwani et al. 2024.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str,
        batches: Iterable[Any],
        *,
        loss: LossName = "cross_entropy",
    ) -> None:
        if isinstance(batches, Iterator):
            raise TypeError(
                "GaussNewton: batches must be walkable more than once "
                f"(got batches={type(batches).__name__})"
            )
        self._layer = find_layers("GaussNewton", model, layer)[layer]
        self._model = model
        self._batches = batches
        self._loss = find_loss("GaussNewton", loss)
        weight = self._layer.module.weight
        self.shape = self._layer.shape
        self.dtype, self.device = weight.dtype, weight.device

    @torch.no_grad()
    def images(self, V: Tensor) -> Tensor:
        """`H_GN vec(v)` for each `v` of `(p, m, n)`, in the same shape; one pass."""
        weights = [self._layer.weight(v) for v in V]
        totals, examples = torch.zeros_like(V, dtype=torch.float64), 0
        for batch in self._batches:
            inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
            output, product = self._linearised(inputs)
            examples += len(output)
            for total, weight in zip(totals, weights, strict=True):
                total += self._layer.matrix(product(weight))
        if not examples:
            raise ValueError("GaussNewton: batches must yield examples (got none)")
        return totals.div_(examples).to(V.dtype)

    def dense(self) -> Tensor:
        """`H_GN` itself, `(mn, mn)`: one product for each entry of the weight.

        With `shape=H.shape` every estimator of this package takes it.
        """
        m, n = self.shape
        units = torch.eye(m * n, dtype=self.dtype, device=self.device).view(-1, m, n)
        H = self.images(units).flatten(1)
        return (H + H.mT) / 2

    def _linearised(self, inputs: Any) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The output for a batch, and the product with the sum of its Gauss-Newton matrices."""
        name = self._layer.parameter
        weight = self._layer.module.weight.detach()

        def outputs(weight: Tensor) -> Tensor:
            output: Tensor = functional_call(self._model, {name: weight}, (inputs,))
            return output

        # Fused attention has no forward-mode derivative.
        with sdpa_kernel(SDPBackend.MATH):
            output, pullback, *_ = vjp(outputs, weight)

        def product(v: Tensor) -> Tensor:
            with sdpa_kernel(SDPBackend.MATH):
                _, tangent, *_ = jvp(outputs, (weight,), (v,))
            result: Tensor = pullback(self._loss.hessian_product(output, tangent))[0]
            return result

        return output, product
