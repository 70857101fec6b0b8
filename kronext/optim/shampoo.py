"""`Shampoo`: a ready-made Kronecker-preconditioned optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import Unpack

from kronext.ops._norms import norms
from kronext.optim import checkpoint, graphs
from kronext.optim.blocks import BlockedParameter, paired
from kronext.optim.engine import KroneckerPreconditioner
from kronext.optim.grafting import rescale_
from kronext.optim.lists import (
    add_scaled_,
    buckets,
    empty_like_all,
    host_reads_for_free,
    may_hold,
    widened,
)
from kronext.optim.options import (
    PreconditionerOptions,
    check_choice,
    check_number,
    running_average_weights,
)
from kronext.optim.plan import Plan
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
        self._kept: _Kept | None = None
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
        for index, parameter in enumerate(self.engine.params):
            if parameter.grad is not None and parameter.grad.layout != torch.strided:
                raise ValueError(
                    f"Shampoo: gradient {index} must be dense (got layout={parameter.grad.layout})"
                )
        gradients = self.engine.update()
        counts = [member.step for member in self.engine.members]
        kept = self._batches_for(self.engine.plan, counts)
        averages: list[Tensor] = []
        steps: list[list[Tensor]] = []
        for batch in kept.batches:
            of_batch = [g for index in batch.indices if (g := gradients[index]) is not None]
            means, unit_steps = self._unit_steps(batch, widened(of_batch), counts[batch.indices[0]])
            averages += means
            steps.append(unit_steps)
        directions = self.engine.precondition_blocks(kept.indices, averages)
        start = 0
        for batch, unit_steps in zip(kept.batches, steps, strict=True):
            stop = start + len(batch.indices)
            self._walk(batch, averages[start:stop], unit_steps, directions[start:stop])
            start = stop
        return loss

    def _batches_for(self, plan: Plan, counts: Sequence[int]) -> _Kept:
        """Return the parameters to move, in batches that share scalars, device and dtype.

        They are kept for as long as the same parameters get gradients.
        """
        active = plan.active
        ahead = [counts[index] - counts[active[0]] for index in active]
        kept = self._kept
        if (
            kept is not None
            and kept.plan is plan
            and kept.ahead == ahead
            and kept.states == [*map(id, self.state.values())]
        ):
            return kept
        members = self.engine.members
        group_of = [k for k, group in enumerate(self.param_groups) for _ in group["params"]]
        batches = [
            _Batch(
                group=group_of[indices[0]],
                indices=indices,
                members=[members[index] for index in indices],
                params=[members[index].parameter for index in indices],
                states=[self.state[members[index].parameter] for index in indices],
            )
            for indices in buckets(
                active, [(group_of[i], plan.kinds[i], counts[i]) for i in active]
            )
        ]
        indices = [index for batch in batches for index in batch.indices]
        self._kept = _Kept(plan, ahead, [*map(id, self.state.values())], batches, indices)
        return self._kept

    def _unit_steps(
        self, batch: _Batch, gradients: list[Tensor], count: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Fold the gradients into the moments; return their average and the steps at rate 1."""
        group = self.param_groups[batch.group]
        momentum = group["betas"][0]
        averages = gradients
        if momentum:
            averages = batch.buffers("momentum", gradients)
            if self.graft == "adam":
                moments = batch.buffers("second_moment", gradients)
                # torch's fused kernel walks memory and does not look at strides.
                if all(map(Tensor.is_contiguous, gradients + averages + moments)):
                    return averages, self._adam_steps(batch, gradients, averages, moments, count)
            _, weight = running_average_weights(momentum, count)
            torch._foreach_lerp_(averages, gradients, weight)
        if self.graft in ("sgd", None):
            return averages, averages
        if self.graft == "grad":
            return averages, gradients
        moments = batch.buffers("second_moment", gradients)
        decay, weight = self._second_moment_weights(group["betas"][1], count)
        torch._foreach_mul_(moments, decay)
        torch._foreach_addcmul_(moments, gradients, gradients, value=weight)
        steps = torch._foreach_sqrt(moments)
        torch._foreach_add_(steps, group["graft_eps"])
        torch._foreach_reciprocal_(steps)
        torch._foreach_mul_(steps, averages if self.graft == "adam" else gradients)
        return averages, list(steps)

    def _adam_steps(
        self,
        batch: _Batch,
        gradients: list[Tensor],
        averages: list[Tensor],
        moments: list[Tensor],
        count: int,
    ) -> list[Tensor]:
        """`_unit_steps` of Adam, in one pass over memory by torch's fused kernel."""
        group = self.param_groups[batch.group]
        decays = [running_average_weights(beta, count)[0] for beta in group["betas"]]
        steps = batch.zeros(gradients)
        # The averages are corrected for their start already: to the kernel it lies far behind.
        never = torch.full((), torch.inf, device=steps[0].device)
        torch._fused_adam_(
            steps,
            gradients,
            averages,
            moments,
            [],
            [never] * len(steps),
            lr=-1.0,
            beta1=decays[0],
            beta2=decays[1],
            weight_decay=0.0,
            eps=group["graft_eps"],
            amsgrad=False,
            maximize=False,
        )
        return steps

    def _second_moment_weights(self, beta: float, count: int) -> tuple[float, float]:
        match self.graft:
            case "adam":
                return running_average_weights(beta, count)
            case "rmsprop":
                return beta, 1 - beta
            case _:
                return 1.0, 1.0

    def _walk(
        self,
        batch: _Batch,
        averages: list[Tensor],
        steps: list[Tensor],
        directions: list[list[Tensor] | None],
    ) -> None:
        """Move the parameters: where there is a direction along it, else by the steps."""
        group = self.param_groups[batch.group]
        lr = group["lr"]
        if group["weight_decay"]:
            torch._foreach_mul_(batch.params, 1 - lr * group["weight_decay"])
        plain = averages if self.graft == "grad" else steps
        straight = [k for k, blocks in enumerate(directions) if blocks is None]
        if straight:
            add_scaled_([batch.params[k] for k in straight], [plain[k] for k in straight], -lr)
        turned = [k for k, blocks in enumerate(directions) if blocks is not None]
        if not turned:
            return
        targets, ahead, counts = paired(
            [batch.members[k] for k in turned], [d for d in directions if d is not None]
        )
        if self.graft is None:
            add_scaled_(targets, ahead, -lr)
            return
        is_zero = rescale_(ahead, norms([steps[k] for k in turned]) * -lr, counts)
        torch._foreach_add_(targets, ahead)
        if may_hold(is_zero):
            scales = (is_zero * -lr).unbind()
            left_over = torch._foreach_mul([plain[k] for k in turned], scales)
            torch._foreach_add_([batch.params[k] for k in turned], left_over)

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

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._kept = None


@dataclass
class _Batch:
    """Parameters of one group, device, dtype and step count."""

    group: int
    indices: list[int]
    members: list[BlockedParameter]
    params: list[Tensor]
    states: list[dict[str, Any]]
    scratch: tuple[Tensor, list[Tensor]] | None = None

    def buffers(self, name: str, gradients: list[Tensor]) -> list[Tensor]:
        """Return the named state of each parameter, zero at first."""
        for state, gradient in zip(self.states, gradients, strict=True):
            if name not in state:
                state[name] = torch.zeros_like(gradient)
        return [state[name] for state in self.states]

    def zeros(self, gradients: list[Tensor]) -> list[Tensor]:
        """Return zeros like the gradients, in memory that the next call may use again.

        On the CPU fresh memory costs a page fault every 4 KiB; an accelerator's allocator has it.
        """
        flat, views = self.scratch or empty_like_all(gradients)
        if host_reads_for_free(flat.device):
            self.scratch = flat, views
        flat.zero_()
        return views


@dataclass(frozen=True)
class _Kept:
    """Batches, and what they were made for; `indices` are those of all batches in turn.

    `states` are the identities of the parameters' states, which the batches keep alive.
    """

    plan: Plan
    ahead: list[int]
    states: list[int]
    batches: list[_Batch]
    indices: list[int]


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
