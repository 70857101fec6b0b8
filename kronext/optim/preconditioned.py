"""`Preconditioned`: any torch optimizer, with its gradients or its steps preconditioned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import Unpack

from kronext.ops._norms import norms
from kronext.optim import checkpoint
from kronext.optim.blocks import paired
from kronext.optim.engine import KroneckerPreconditioner
from kronext.optim.grafting import rescale_
from kronext.optim.lists import buckets, may_hold, narrowed, screen
from kronext.optim.options import PreconditionerOptions, check_choice, check_number
from kronext.optim.report import Report

Graft = Literal["base", "grad"]


class Preconditioned(Optimizer):
    """Any torch optimizer, made a Kronecker-preconditioned one.

    With `graft="base"` the base optimizer steps on the raw gradient, `D` is how far it went, and

        W <- (1 - lr wd) W - |D| U / |U|,    U = c^{-p} A^{-p} M B^{-p},

    tensor by tensor: the base's length in the preconditioned direction (Agarwal et al. 2020), so
    that its learning rate, schedule and weight decay keep their tuned values. `M` is the average of
    the gradients with the base's own momentum (`betas[0]` or `momentum` of the group), which the
    direction would lose otherwise. Where `U = 0` the base's step stands.

    With `graft="grad"` or None the preconditioned gradient stands in `.grad` while the base steps,
    rescaled to the norm of the gradient or as it is, and the raw gradient is put back afterwards.
    Momentum and weight decay are then the base's affair.

    It is itself an optimizer: param groups and state are those of the base, so that schedulers,
    GradScaler, gradient clipping, step hooks, `zero_grad` and `add_param_group` work on it. Before
    `start_step`, and for parameters that pass through, the base runs alone. A parameter without a
    gradient, or whose gradient is not finite, is left alone by the base as well (on an accelerator,
    where the host does not look, the base gets zeros for a gradient that is not finite).

    Weight decay, with `graft="base"`: decoupled decay (AdamW, or groups that say
    `decoupled_weight_decay`) is kept apart from `|D|` as the formula shows. An L2 penalty is part
    of the objective: `wd W` is added to the gradient that enters the factors and the direction, as
    the base adds it to its own.

    Args:
        base: the optimizer to wrap. Its groups may hold a `preconditioner` entry: a dict that
            overrides options for the group, or None to leave the group to the base.
        graft: "base", "grad" or None, see above.
        momentum: momentum of the direction with `graft="base"`; None takes the base's own.
        decoupled_weight_decay: how the base decays weights, needed with `graft="base"` where it
            decays them and neither its groups nor its being one of torch's own tell.
        raise_on_failure: raise where a gradient is not finite or a root fails (RuntimeError, before
            the base steps) rather than count it and go on.
        capturable: whether a CUDA graph can capture a step, see `KroneckerPreconditioner`; None
            takes what the groups of the base say.
        **options: estimator, exponent, beta, eps, relative_eps, block_size, update_interval,
            start_step; see `KroneckerPreconditioner`.

    Raises:
        TypeError: `base` is no optimizer, or an argument is of the wrong type.
        ValueError: an argument is out of range, or it cannot be told how the base decays weights.
    """

    def __init__(
        self,
        base: Optimizer,
        *,
        graft: Graft | None = "base",
        momentum: float | None = None,
        decoupled_weight_decay: bool | None = None,
        raise_on_failure: bool = False,
        capturable: bool | None = None,
        **options: Unpack[PreconditionerOptions],
    ) -> None:
        if not isinstance(base, Optimizer):
            raise TypeError(
                f"Preconditioned: base must be a torch.optim.Optimizer (got {type(base).__name__})"
            )
        if isinstance(base, torch.optim.LBFGS):
            raise TypeError("Preconditioned: base must step without a closure (got LBFGS)")
        check_choice("Preconditioned", "graft", graft, (*get_args(Graft), None))
        if momentum is not None:
            check_number("Preconditioned", "momentum", momentum, at_least=0, below=1)
            if graft != "base":
                raise ValueError(
                    "Preconditioned: momentum must be None unless graft='base', the base has its "
                    f"own (got momentum={momentum}, graft={graft!r})"
                )
        self.base = base
        self.graft = graft
        self.momentum = momentum
        self.decoupled_weight_decay = decoupled_weight_decay
        for group in base.param_groups:
            self._decays_apart(group)
        # torch's constructor sets up the hooks; the groups it makes are replaced by the base's.
        super().__init__([dict(group) for group in base.param_groups], base.defaults)
        self._momenta: dict[int, Tensor] = {}
        if capturable is None:
            capturable = any(group.get("capturable") for group in base.param_groups)
        self.engine = KroneckerPreconditioner(
            base.param_groups,
            raise_on_failure=raise_on_failure,
            capturable=capturable,
            caller="Preconditioned",
            **options,
        )
        self._share_base()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base and to the engine."""
        if "engine" not in vars(self):
            super().add_param_group(param_group)  # for torch's constructor
            return
        self.base.add_param_group(param_group)
        try:
            self._decays_apart(self.base.param_groups[-1])
            self.engine.add_param_group(self.base.param_groups[-1])
        except (TypeError, ValueError):
            self.base.param_groups.pop()
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
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.graft == "base":
            self._redirect_base()
        else:
            self._feed_base()
        return loss

    def _feed_base(self) -> None:
        """Let the base step on preconditioned gradients."""
        gradients = self.engine.update()
        directions = self.engine.precondition(gradients)
        changed = [
            (index, gradient, direction)
            for index, (gradient, direction) in enumerate(zip(gradients, directions, strict=True))
            if gradient is not None and direction is not None and direction is not gradient
        ]
        kinds = [(gradient.device, gradient.dtype) for _, gradient, _ in changed]
        for bucket in buckets(changed, kinds):
            raw = [gradient for _, gradient, _ in bucket]
            steps = [direction for _, _, direction in bucket]
            if self.graft == "grad":
                is_zero = rescale_(steps, norms(raw), [1] * len(steps))
                if may_hold(is_zero):
                    torch._foreach_add_(steps, torch._foreach_mul(raw, is_zero.unbind()))
            for (index, _, _), step in zip(bucket, narrowed(steps, raw[0].dtype), strict=True):
                directions[index] = step
        with self._gradients_set(directions):
            self.base.step()

    def _redirect_base(self) -> None:
        """Let the base step on raw gradients, then turn its steps into the directions."""
        params = self.engine.params
        group_of = [k for k, group in enumerate(self.param_groups) for _ in group["params"]]
        objective = self._objective_gradients()
        usable = self.engine.update(objective)
        averages = self._average(usable, group_of)
        given = [index for index, average in enumerate(averages) if average is not None]
        lists = self.engine.precondition_blocks(given, [a for a in averages if a is not None])
        directions = {i: blocks for i, blocks in zip(given, lists, strict=True) if blocks}
        kinds = [(group_of[i], params[i].device, params[i].dtype) for i in directions]
        grouped = buckets(list(directions), kinds)
        decayed = [
            torch._foreach_mul(
                [params[index] for index in bucket],
                self._kept_part(self.param_groups[group_of[bucket[0]]]),
            )
            for bucket in grouped
        ]
        with self._gradients_set(self._usable_own(objective, usable)):
            self.base.step()
        members = self.engine.members
        for bucket, starts in zip(grouped, decayed, strict=True):
            moved = [params[index] for index in bucket]
            targets, ahead, counts = paired(
                [members[index] for index in bucket],
                [directions[index] for index in bucket],
            )
            torch._foreach_sub_(moved, starts)
            is_zero = rescale_(ahead, -norms(moved), counts)
            # Where there is no direction the base's step stands.
            if may_hold(is_zero):
                torch._foreach_mul_(moved, is_zero.unbind())
                torch._foreach_add_(moved, starts)
            else:
                torch._foreach_copy_(moved, starts)
            torch._foreach_add_(targets, ahead)

    def _objective_gradients(self) -> list[Tensor | None]:
        """Return the gradients of what the base minimises: sign and L2 penalty taken in."""
        gradients = [parameter.grad for parameter in self.engine.params]
        members = self.engine.members
        start = 0
        for group in self.param_groups:
            indices = range(start, start + len(group["params"]))
            start = indices.stop
            penalty = 0.0 if self._decays_apart(group) else group.get("weight_decay") or 0.0
            if not (penalty or group.get("maximize")):
                continue
            chosen = [
                (index, gradient, parameter)
                for index, parameter in zip(indices, group["params"], strict=True)
                if members[index].options is not None
                and (gradient := gradients[index]) is not None
                and gradient.layout == torch.strided
            ]
            if not chosen:
                continue
            sign = -1.0 if group.get("maximize") else 1.0
            changed = torch._foreach_mul([gradient for _, gradient, _ in chosen], sign)
            torch._foreach_add_(changed, [parameter for _, _, parameter in chosen], alpha=penalty)
            for (index, _, _), gradient in zip(chosen, changed, strict=True):
                gradients[index] = gradient
        return gradients

    def _usable_own(
        self, objective: Sequence[Tensor | None], usable: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """Return the base's own gradients, without those that the engine found unusable."""
        fed = list(usable)
        unscreened: list[Tensor | None] = [None] * len(fed)
        rows = zip(self.engine.params, objective, usable, strict=True)
        for index, (parameter, gradient, use) in enumerate(rows):
            if use is None or gradient is parameter.grad:
                continue
            # The engine's has the sign and the penalty that the base takes in by itself.
            if use is gradient:
                fed[index] = parameter.grad
            else:
                unscreened[index] = parameter.grad
        screened = screen(unscreened).gradients
        return [use if own is None else own for own, use in zip(screened, fed, strict=True)]

    def _average(
        self, gradients: Sequence[Tensor | None], group_of: Sequence[int]
    ) -> list[Tensor | None]:
        """Return the gradients averaged with the momentum of their group, where it has one."""
        averages = list(gradients)
        momenta = [self._momentum_of(group) for group in self.param_groups]
        chosen = [
            (index, gradient)
            for index, (gradient, member) in enumerate(
                zip(gradients, self.engine.members, strict=True)
            )
            if gradient is not None and member.options is not None and momenta[group_of[index]]
        ]
        kinds = [(group_of[index], gradient.device, gradient.dtype) for index, gradient in chosen]
        for bucket in buckets(chosen, kinds):
            for index, gradient in bucket:
                if index not in self._momenta:
                    self._momenta[index] = torch.zeros_like(gradient)
                averages[index] = self._momenta[index]
            torch._foreach_lerp_(
                [self._momenta[index] for index, _ in bucket],
                [gradient for _, gradient in bucket],
                1 - momenta[group_of[bucket[0][0]]],
            )
        return averages

    def _momentum_of(self, group: dict[str, Any]) -> float:
        if self.momentum is not None:
            return self.momentum
        return float(group["betas"][0] if "betas" in group else group.get("momentum") or 0.0)

    def _decays_apart(self, group: dict[str, Any]) -> bool:
        """Return whether the base decays the weights of a group apart from the gradient."""
        if not group.get("weight_decay"):
            return False
        if self.decoupled_weight_decay is not None:
            return self.decoupled_weight_decay
        if "decoupled_weight_decay" in group:
            return bool(group["decoupled_weight_decay"])
        if f"{type(self.base).__module__}.".startswith("torch.optim."):
            return isinstance(self.base, (torch.optim.Adafactor, torch.optim.Muon))
        if self.graft != "base":
            return False
        raise ValueError(
            "Preconditioned: decoupled_weight_decay must say how this base decays weights "
            f"(got base={type(self.base).__name__}, weight_decay={group['weight_decay']})"
        )

    def _kept_part(self, group: dict[str, Any]) -> Any:
        """Return what decoupled decay leaves of a weight, a float or a tensor like `lr`."""
        return 1 - group["lr"] * group["weight_decay"] if self._decays_apart(group) else 1.0

    @contextmanager
    def _gradients_set(self, gradients: Sequence[Tensor | None]) -> Iterator[None]:
        """Put these gradients in `.grad`, and the old ones back however the block ends."""
        replaced = [
            (parameter, parameter.grad, gradient)
            for parameter, gradient in zip(self.engine.params, gradients, strict=True)
            if parameter.grad is not gradient
        ]
        try:
            for parameter, _, gradient in replaced:
                parameter.grad = gradient
            yield
        finally:
            for parameter, raw, _ in replaced:
                parameter.grad = raw

    def state_dict(self) -> dict[str, Any]:
        """Return the base's state dict with a `kronecker` entry in the state of each parameter."""
        for pre_hook in self._optimizer_state_dict_pre_hooks.values():
            pre_hook(self)
        entries = self.engine.state_dict()
        for index, momentum in self._momenta.items():
            entries[index]["momentum"] = momentum
        state_dict = checkpoint.merge(self.base.state_dict(), entries)
        for post_hook in self._optimizer_state_dict_post_hooks.values():
            changed = post_hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        return state_dict

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave; training goes on bit for bit.

        The state dict of an unwrapped base may be loaded too: the factors then start anew.

        Raises:
            ValueError: groups, blocks or estimators differ; nothing was written.
        """
        state_dict = state_dict.copy()
        for pre_hook in self._optimizer_load_state_dict_pre_hooks.values():
            changed = pre_hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        base_state, entries = checkpoint.split(state_dict)
        self.engine.check_state_dict(entries)
        params = self.engine.params
        for index, entry in entries.items():
            if "momentum" in entry:
                label = f"Preconditioned: state {index}"
                checkpoint.check_buffer(label, "momentum", entry["momentum"], params[index])
        self.base.load_state_dict(base_state)
        self.engine.load_state_dict(entries)
        self._momenta = {
            index: entry["momentum"].detach().to(params[index].device, copy=True)
            for index, entry in entries.items()
            if "momentum" in entry
        }
        for post_hook in self._optimizer_load_state_dict_post_hooks.values():
            post_hook(self)

    def _share_base(self) -> None:
        """Make groups and state those of the base, now and whenever it loads new ones."""

        def share(base: Optimizer) -> None:
            self.param_groups = base.param_groups
            self.state = base.state

        share(self.base)
        self.base.register_load_state_dict_post_hook(share)

    def __getstate__(self) -> dict[str, Any]:
        own = ("base", "graft", "momentum", "decoupled_weight_decay", "engine", "_momenta")
        return super().__getstate__() | {name: getattr(self, name) for name in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "base" in state:
            self._share_base()

    def __repr__(self) -> str:
        return f"Preconditioned(graft={self.graft!r}, {self.engine.options}, base={self.base!r})"
