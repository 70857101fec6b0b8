"""`Shampoo`: a ready-made Kronecker-preconditioned optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import Unpack

from kronext.optim import checkpoint, graphs
from kronext.optim.engine import KroneckerPreconditioner
from kronext.optim.grafting import redirect_
from kronext.optim.lists import buckets, widened
from kronext.optim.options import (
    PreconditionerOptions,
    check_choice,
    check_number,
    running_average_weights,
)
from kronext.optim.report import Report

ShampooGraft = Literal["adam", "adagrad", "rmsprop", "sgd", "grad"]


class Shampoo(Optimizer):
    """Kronecker-preconditioned gradient descent with momentum, decoupled decay and grafting.

        M <- bias-corrected average of G with betas[0]
        U  = c^{-p} A^{-p} M B^{-p},    H ~ c A (x) B
        W <- (1 - lr weight_decay) W - lr |S| U / |U|

    `S` is the step of the grafted optimizer at unit learning rate, tensor by tensor:

    | graft | S |
    |---|---|
    | "adam"    | `M / (sqrt(V) + graft_eps)`, `V` the bias-corrected average of `G^2`, `betas[1]` |
    | "rmsprop" | `G / (sqrt(V) + graft_eps)`, `V <- betas[1] V + (1 - betas[1]) G^2` |
    | "adagrad" | `G / (sqrt(V) + graft_eps)`, `V <- V + G^2` |
    | "sgd"     | `M` |
    | "grad"    | `G` |

    With graft=None the step is `U` itself. Before `start_step`, where `U = 0`, and for parameters
    that pass through, the step is `S` (`M` for "grad" and None). A parameter without a gradient, or
    whose gradient is not finite, is left alone (on an accelerator, where the host does not look, a
    gradient that is not finite counts as zeros). State is float32, float64 for float64 parameters.

    Args:
        params: parameters or groups; a group may set lr, betas, weight_decay, graft_eps and
            `preconditioner`, a dict that overrides options for it or None to let it pass through.
        lr: learning rate, a number or a 0-D tensor, at which the host looks only once.
        betas: decay of the momentum (0 for none) and of the grafted second moment. The decay of
            the Kronecker factors is the option `beta`.
        weight_decay: decoupled weight decay.
        graft: "adam", "adagrad", "rmsprop", "sgd", "grad" or None.
        graft_eps: epsilon of the grafted optimizer.
        raise_on_failure: raise where a gradient is not finite or a root fails (RuntimeError, before
            any parameter is written) rather than count it and go on.
        **options: estimator, exponent, beta, eps, relative_eps, block_size, update_interval,
            start_step; see `KroneckerPreconditioner`.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    Source: Gupta et al., arXiv 1802.09568; Morwani et al., arXiv 2406.17748; grafting after
    Agarwal et al., arXiv 2002.11803.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        *,
        graft: ShampooGraft | None = "adam",
        graft_eps: float = 1e-8,
        raise_on_failure: bool = False,
        **options: Unpack[PreconditionerOptions],
    ) -> None:
        check_choice("Shampoo", "graft", graft, (*get_args(ShampooGraft), None))
        self.graft = graft
        self.engine = KroneckerPreconditioner(
            [], raise_on_failure=raise_on_failure, caller="Shampoo", **options
        )
        defaults = {
            "lr": lr,
            "betas": betas,
            "weight_decay": weight_decay,
            "graft_eps": graft_eps,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; see the class for what it may hold."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            _check_group(group)
            self.engine.add_param_group(group)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def report(self) -> Report:
        """Return what the last step did. Waits for accelerators to read their counters."""
        return self.engine.report()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step.

        Args:
            closure: computes the loss and its gradients; called once, before anything else.

        Returns:
            What the closure gave, None without one.

        Raises:
            TypeError: a gradient is not of a supported dtype; nothing was written.
            ValueError: a gradient is sparse or of the wrong shape; nothing was written.
            RuntimeError: a CUDA graph captures the step.
        """
        if graphs.is_capturing():
            raise RuntimeError(
                "Shampoo: a step must not be captured in a CUDA graph, its averages go by a count "
                "on the host; Preconditioned around a capturable optimizer has none "
                "(got capturing=True)"
            )
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        batches = self._batches(self.engine.update())
        averages: list[Tensor | None] = [None] * len(self.engine.params)
        for batch in batches:
            for index, mean in zip(batch.indices, self._averages(batch), strict=True):
                averages[index] = mean
        directions = self.engine.precondition(averages)
        for batch in batches:
            steps = self._unit_steps(
                batch,
                [average for index in batch.indices if (average := averages[index]) is not None],
                [ahead for index in batch.indices if (ahead := directions[index]) is not None],
            )
            lr, weight_decay = batch.group["lr"], batch.group["weight_decay"]
            if weight_decay:
                torch._foreach_mul_(batch.params, 1 - lr * weight_decay)
            if isinstance(lr, Tensor):
                # As `alpha` the host would have to read it.
                torch._foreach_sub_(batch.params, torch._foreach_mul(steps, lr))
            else:
                torch._foreach_add_(batch.params, steps, alpha=-lr)
        return loss

    def _batches(self, gradients: Sequence[Tensor | None]) -> list[_Batch]:
        """Return the parameters to move, in batches that share scalars, device and dtype."""
        groups = [group for group in self.param_groups for _ in group["params"]]
        params, counts = self.engine.params, self.engine.steps
        active = [index for index, gradient in enumerate(gradients) if gradient is not None]
        alike = buckets(
            active,
            lambda i: (id(groups[i]), params[i].device, params[i].dtype, counts[i]),
        )
        return [
            _Batch(
                group=groups[indices[0]],
                step=counts[indices[0]],
                indices=indices,
                params=[params[index] for index in indices],
                gradients=widened([g for i in indices if (g := gradients[i]) is not None]),
            )
            for indices in alike
        ]

    def _averages(self, batch: _Batch) -> list[Tensor]:
        """Fold the gradients into their momentum and return it; without one, the gradients."""
        momentum = batch.group["betas"][0]
        if momentum == 0:
            return batch.gradients
        averages = self._buffers(batch, "momentum")
        _, weight = running_average_weights(momentum, batch.step)
        torch._foreach_lerp_(averages, batch.gradients, weight)
        return averages

    def _unit_steps(
        self, batch: _Batch, averages: list[Tensor], directions: list[Tensor]
    ) -> list[Tensor]:
        """Return the steps at learning rate 1."""
        turned = [k for k, ahead in enumerate(directions) if ahead is not averages[k]]
        if self.graft is None:
            return directions
        if self.graft in ("sgd", "grad"):
            sources = list(averages)
            if self.graft == "grad":
                for k in turned:
                    sources[k] = batch.gradients[k]
            steps = torch._foreach_mul(sources, 1.0)
        else:
            steps = self._denominators(batch)
            torch._foreach_reciprocal_(steps)
            torch._foreach_mul_(steps, averages if self.graft == "adam" else batch.gradients)
        if turned:
            redirect_([steps[k] for k in turned], [directions[k] for k in turned])
        return list(steps)

    def _denominators(self, batch: _Batch) -> tuple[Tensor, ...]:
        """Fold the gradients into their second moment and return `sqrt(V) + graft_eps`."""
        moments = self._buffers(batch, "second_moment")
        decay, weight = self._second_moment_weights(batch)
        torch._foreach_mul_(moments, decay)
        torch._foreach_addcmul_(moments, batch.gradients, batch.gradients, value=weight)
        roots = torch._foreach_sqrt(moments)
        torch._foreach_add_(roots, batch.group["graft_eps"])
        return roots

    def _second_moment_weights(self, batch: _Batch) -> tuple[float, float]:
        beta = batch.group["betas"][1]
        match self.graft:
            case "adam":
                return running_average_weights(beta, batch.step)
            case "rmsprop":
                return beta, 1 - beta
            case _:
                return 1.0, 1.0

    def _buffers(self, batch: _Batch, name: str) -> list[Tensor]:
        """Return the named state of each parameter, zero at first."""
        for parameter, gradient in zip(batch.params, batch.gradients, strict=True):
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(gradient)
        return [self.state[parameter][name] for parameter in batch.params]

    def state_dict(self) -> dict[str, Any]:
        """Return torch's state dict with a `kronecker` entry in the state of each parameter."""
        return checkpoint.merge(super().state_dict(), self.engine.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave; training goes on bit for bit.

        Raises:
            ValueError: groups, blocks or estimators differ; nothing was written.
        """
        own, entries = checkpoint.split(state_dict)
        self.engine.check_state_dict(entries)
        buffers = {
            index: own["state"][key]
            for key, index in checkpoint.positions(own).items()
            if key in own["state"]
        }
        for index, parameter in enumerate(self.engine.params):
            for name, buffer in buffers.get(index, {}).items():
                checkpoint.check_buffer(f"Shampoo: state {index}", name, buffer, parameter)
        # torch would cast float32 state to the dtype of a bfloat16 parameter.
        super().load_state_dict({**own, "state": {}})
        self.engine.load_state_dict(entries)
        for index, parameter in enumerate(self.engine.params):
            for name, buffer in buffers.get(index, {}).items():
                self.state[parameter][name] = buffer.detach().to(parameter.device, copy=True)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"graft": self.graft, "engine": self.engine}


@dataclass(frozen=True)
class _Batch:
    """Parameters of one group, device, dtype and step count; gradients in float32 or float64."""

    group: dict[str, Any]
    step: int
    indices: list[int]
    params: list[Tensor]
    gradients: list[Tensor]


def _check_group(group: dict[str, Any]) -> None:
    lr = group["lr"]
    is_scalar = isinstance(lr, Tensor) and lr.dim() == 0
    check_number("Shampoo", "lr", lr.item() if is_scalar else lr, at_least=0)
    check_number("Shampoo", "weight_decay", group["weight_decay"], at_least=0)
    check_number("Shampoo", "graft_eps", group["graft_eps"], at_least=0)
    betas = group["betas"]
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise TypeError(f"Shampoo: betas must be two numbers (got betas={betas!r})")
    for position, beta in enumerate(betas):
        check_number("Shampoo", f"betas[{position}]", beta, at_least=0, below=1)
