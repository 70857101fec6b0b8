"""The losses whose labels a model can sample itself: the distribution `s ~ f(x)` of `H_GN`."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor


class Loss(Protocol):
    """`-log f(x)_s` for each example, and the distribution `f(x)` of its labels."""

    def per_example(self, output: Tensor, labels: Tensor) -> Tensor:
        """`-log f(x)_s`, summed over the positions of an example: `(N,)`."""
        ...

    def sample(self, output: Tensor, generator: torch.Generator | None) -> Tensor:
        """One label `s ~ f(x)` for each example and position."""
        ...

    def enumerate(self, output: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Labels and their probabilities `(N,)` that give the exact expectation of `g gT`."""
        ...

    def hessian_product(self, output: Tensor, tangent: Tensor) -> Tensor:
        """`d^2 loss / d output^2` times `tangent`; it does not depend on the labels."""
        ...


class CrossEntropy:
    """Softmax over the last dimension of `(N, ..., classes)`; labels are classes `(N, ...)`."""

    def per_example(self, output: Tensor, labels: Tensor) -> Tensor:
        """`-log softmax(output)[s]`, summed over positions; labels of -100 count nothing."""
        losses = F.cross_entropy(output.flatten(0, -2), labels.flatten(), reduction="none")
        return losses.view(len(output), -1).sum(1)

    def sample(self, output: Tensor, generator: torch.Generator | None) -> Tensor:
        """`s ~ softmax(output)`."""
        probabilities = output.detach().flatten(0, -2).softmax(-1)
        return torch.multinomial(probabilities, 1, generator=generator).view(output.shape[:-1])

    def enumerate(self, output: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Every class and its probability."""
        if output.dim() != 2:
            raise ValueError(
                'capture: labels="expected" needs one label an example, output (N, classes) '
                f"(got output={tuple(output.shape)})"
            )
        probabilities = output.detach().softmax(-1)
        classes = torch.arange(output.shape[-1], device=output.device)
        return [
            (label.expand(len(output)), probability)
            for label, probability in zip(classes, probabilities.unbind(1), strict=True)
        ]

    def hessian_product(self, output: Tensor, tangent: Tensor) -> Tensor:
        """`(diag(p) - p pT) v` at each position."""
        probabilities = output.softmax(-1)
        product = probabilities * tangent
        return product - probabilities * product.sum(-1, keepdim=True)


class BinaryCrossEntropy:
    """The logistic function of one logit an example, `(N,)` or `(N, 1)`; labels are 0 and 1."""

    def per_example(self, output: Tensor, labels: Tensor) -> Tensor:
        """`-log sigmoid(output)` for label 1, `-log (1 - sigmoid(output))` for label 0."""
        logits = self._logits(output)
        return F.binary_cross_entropy_with_logits(
            logits, labels.view_as(logits).to(logits.dtype), reduction="none"
        )

    def sample(self, output: Tensor, generator: torch.Generator | None) -> Tensor:
        """`s ~ sigmoid(output)`."""
        return torch.bernoulli(self._logits(output).detach().sigmoid(), generator=generator)

    def enumerate(self, output: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Labels 0 and 1 and their probabilities."""
        probability = self._logits(output).detach().sigmoid()
        return [
            (torch.zeros_like(probability), 1 - probability),
            (torch.ones_like(probability), probability),
        ]

    def hessian_product(self, output: Tensor, tangent: Tensor) -> Tensor:
        """`p (1 - p) v`."""
        probability = self._logits(output).sigmoid().view_as(output)
        return probability * (1 - probability) * tangent

    @staticmethod
    def _logits(output: Tensor) -> Tensor:
        if output.numel() != len(output):
            raise ValueError(
                "capture: binary_cross_entropy takes one logit an example, (N,) or (N, 1) "
                f"(got output={tuple(output.shape)})"
            )
        return output.view(-1)


class SquaredError:
    """`|output - target|^2 / 2` over all entries of an example: `-log` of `Normal(output, I)`."""

    def per_example(self, output: Tensor, labels: Tensor) -> Tensor:
        """`|output - labels|^2 / 2`, without the constant of the normal distribution."""
        if labels.numel() != output.numel() or len(labels) != len(output):
            raise ValueError(
                "capture: squared_error takes one target an output "
                f"(got output={tuple(output.shape)}, targets={tuple(labels.shape)})"
            )
        errors = output - labels.view_as(output).to(output.dtype)
        return errors.reshape(len(output), -1).square().sum(1) / 2

    def sample(self, output: Tensor, generator: torch.Generator | None) -> Tensor:
        """`s ~ Normal(output, I)`."""
        noise = torch.empty_like(output, requires_grad=False).normal_(generator=generator)
        return output.detach() + noise

    def enumerate(self, output: Tensor) -> list[tuple[Tensor, Tensor]]:
        """A target beyond each of the `k` outputs: `f - sqrt(k) e_i`, with probability `1 / k`.

        Their gradients with respect to the output are `sqrt(k) e_i`, whose second moment is the
        identity, like that of the normal distribution.
        """
        rows = output.detach().reshape(len(output), -1)
        count = rows.shape[1]
        offsets = count**0.5 * torch.eye(count, dtype=rows.dtype, device=rows.device)
        probability = rows.new_full((len(rows),), 1 / count)
        return [((rows - offset).view_as(output), probability) for offset in offsets]

    def hessian_product(self, output: Tensor, tangent: Tensor) -> Tensor:
        """`v`."""
        return tangent


LossName: TypeAlias = Literal["cross_entropy", "binary_cross_entropy", "squared_error"]
LOSSES: dict[LossName, Loss] = {
    "cross_entropy": CrossEntropy(),
    "binary_cross_entropy": BinaryCrossEntropy(),
    "squared_error": SquaredError(),
}


def find_loss(caller: str, name: LossName) -> Loss:
    """The loss of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in LOSSES:
        raise ValueError(f"{caller}: loss must be one of {sorted(LOSSES)} (got loss={name!r})")
    return LOSSES[name]
