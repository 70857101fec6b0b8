"""The engine: Kronecker factors, inverse roots and preconditioned gradients of many parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from kronext import ops
from kronext.optim import estimators, graphs
from kronext.optim.blocks import BlockedParameter, assembled, blocks_of
from kronext.optim.lists import Screened, buckets, screen
from kronext.optim.options import Options, PreconditionerOptions, checked_options
from kronext.optim.plan import Bucket, Plan, kinds_of
from kronext.optim.report import DeviceCounter, Report

SUPPORTED_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class KroneckerPreconditioner:
    """`U = c^{-p} A^{-p} G B^{-p}` for every matrix-shaped parameter, `H ~ c A (x) B`.

    The engine alone, for a stack with an optimizer of its own. A step is

        gradients = preconditioner.update()                    # factors, and roots that are due
        directions = preconditioner.precondition(gradients)    # what to walk along

    A parameter of two or more dimensions is seen as `out x (in k k)` and cut into blocks of at
    most `block_size` a side; 0-D, 1-D and empty parameters pass through. Factors and roots are
    float32, float64 for float64 parameters. The number of op calls a step depends on the number
    of devices, dtypes and option sets among the parameters, not on how many parameters there
    are. On the hot path the host never waits for an accelerator.

    Args:
        params: parameters, or groups `{"params": [...], "preconditioner": {...}}` whose second
            entry overrides options for the group; None there lets the group pass through.
        raise_on_failure: raise where a gradient is not finite or a root fails, rather than count
            it and go on. Makes the host wait for an accelerator at every step.
        capturable: count steps on the device, so that a CUDA graph can capture one and replay it;
            costs one more pass over the factors. `docs/optimizer.md` says how to capture.
        caller: the name that error messages open with.
        **options: see below.

    Options:
        estimator: "shampoo2" (`A = L`, `B = R`, `c = 1/Tr(L)`), "shampoo" (`A = L^{1/2}`,
            `B = R^{1/2}`, `c = 1`) or "optimal" (power iteration, one round a step, `A = L`,
            `B = R`, `c = 1/sqrt(|L| |R|)`).
        exponent: `p`; 1/2 is Adagrad's. `shampoo` at 1/2 is the classic `L^{-1/4} G R^{-1/4}`.
        beta: `L` is the average of `G GT` with weights `beta^age`, corrected for its start;
            None or 1 makes it the sum (Adagrad).
        eps: damping added to the eigenvalues of the factors, in their units.
        relative_eps: damping as a part of the largest eigenvalue of the factor: unlike `eps` it
            means the same at every scale of the loss.
        block_size: largest side of a block.
        update_interval: steps between two refreshes of the inverse roots.
        start_step: step, counted from 1 for each parameter, at which preconditioning begins.

    Raises:
        TypeError: a parameter is no floating-point tensor or an option of the wrong type.
        ValueError: an option is out of range, or raise_on_failure and capturable are both set.

    Source: Morwani et al., arXiv 2406.17748; Gupta et al., arXiv 1802.09568 (`shampoo`).
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        raise_on_failure: bool = False,
        capturable: bool = False,
        caller: str = "KroneckerPreconditioner",
        **options: Unpack[PreconditionerOptions],
    ) -> None:
        if raise_on_failure and capturable:
            raise ValueError(
                f"{caller}: raise_on_failure must be False where steps can be captured, the host "
                "does not look at those (got raise_on_failure=True, capturable=True)"
            )
        self.caller = caller
        self.raise_on_failure = raise_on_failure
        self.capturable = capturable
        self.options = checked_options(caller, options, Options())
        self._known_options: dict[Options, Options] = {}
        self._members: list[BlockedParameter] = []
        self._params: list[Tensor] = []
        self._plan = Plan([], [])
        self._roots_failed = DeviceCounter()
        self._gradients_skipped = DeviceCounter()
        self._report = Report()
        entries = list(params)
        groups = [entry for entry in entries if isinstance(entry, Mapping)]
        for group in groups if len(groups) == len(entries) else [{"params": entries}]:
            self.add_param_group(group)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add the parameters of `group["params"]`, with the overrides of the class docstring."""
        overrides = group.get("preconditioner", {})
        options = None
        if overrides is not None:
            options = checked_options(self.caller, overrides, self.options)
            # Equal options are made one object: parameters share calls by its identity.
            options = self._known_options.setdefault(options, options)
        params = group["params"]
        members = []
        for parameter in [params] if isinstance(params, Tensor) else params:
            if not isinstance(parameter, Tensor):
                raise TypeError(
                    f"{self.caller}: parameters must be tensors (got {type(parameter).__name__})"
                )
            if parameter.dtype not in SUPPORTED_DTYPES:
                raise TypeError(
                    f"{self.caller}: parameters must be float64, float32, bfloat16 or float16 "
                    f"(got dtype={parameter.dtype})"
                )
            members.append(BlockedParameter(parameter, options))
        self._members += members
        self._params += [member.parameter for member in members]

    @property
    def params(self) -> list[Tensor]:
        """All parameters, in the order of every list this class takes or gives."""
        return list(self._params)

    @property
    def members(self) -> list[BlockedParameter]:
        """Each of `params` with its blocks, factors and roots, to read them."""
        return list(self._members)

    @property
    def steps(self) -> list[int]:
        """How many gradients of each parameter came in so far."""
        if self.capturable:
            return [member.read_step() for member in self._members]
        return [member.step for member in self._members]

    @torch.no_grad()
    def update(self, gradients: Sequence[Tensor | None] | None = None) -> list[Tensor | None]:
        """Fold one gradient per parameter into the factors and refresh the roots that are due.

        Args:
            gradients: one for each of `params`; None skips a parameter. By default their `.grad`.

        Returns:
            The gradients that may be used: None where there was none or where it is not finite
            (on an accelerator, where the host does not look, zeros instead). Such a gradient
            leaves factors and roots as they are and is counted in `report()`.

        Raises:
            TypeError: a gradient is not of a supported dtype; nothing was written.
            ValueError: a gradient is sparse or of the wrong shape, or a parameter changed its
                shape; nothing was written.
            RuntimeError: with `raise_on_failure`, a gradient is not finite (nothing was written)
                or a root failed; or a CUDA graph captures a step that cannot be replayed.
        """
        if gradients is None:
            gradients = [parameter.grad for parameter in self._params]
        self._check("gradient", gradients)
        graphs.check_capture(self.caller, self.capturable, self._members, gradients)
        for counter in (self._roots_failed, self._gradients_skipped):
            counter.start_step()
        screened = screen(gradients)
        for count in screened.skipped:
            self._gradients_skipped.add(count)
        self._raise_if(self._gradients_skipped, "gradients must be finite", "not finite")

        plan = self._plan_for(screened.gradients)
        for member in plan.members:
            member.step += 1
        if self.capturable:
            graphs.count_on_device(plan.members)
        refreshed = 0
        for bucket in plan.buckets:
            self._accumulate(bucket, screened)
            refreshed += self._refresh_roots(bucket)
        self._report = Report(
            step=max([member.step for member in self._members], default=0),
            parameters=len(plan.active) - plan.passed_through,
            blocks=plan.blocks,
            passed_through=plan.passed_through,
            roots_refreshed=refreshed,
        )
        self._raise_if(self._roots_failed, "inverse roots must exist", "failed")
        return screened.gradients

    @torch.no_grad()
    def precondition(self, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return `c^{-p} A^{-p} G B^{-p}` for each tensor `G`, in new tensors.

        They are of the dtype of the factors, or float64 where `G` is: a direction can be too long
        for float16 until something has given it its length.

        Args:
            tensors: one of the parameter's shape for each of `params`, or None. Usually what
                `update` gave, or a momentum of it.

        Returns:
            A list in the same order. Where a parameter passes through, or has no roots before
            its `start_step`, it holds the very tensor that was given.

        Raises:
            TypeError: a tensor is not of a supported dtype.
            ValueError: a tensor is sparse or of the wrong shape.
        """
        self._check("tensor", tensors)
        given = [(index, tensor) for index, tensor in enumerate(tensors) if tensor is not None]
        indices = [index for index, _ in given]
        directions = self.precondition_blocks(indices, [tensor for _, tensor in given])
        turned = [k for k, blocks in enumerate(directions) if blocks is not None]
        members = [self._members[indices[k]] for k in turned]
        wholes = assembled(members, [blocks for blocks in directions if blocks is not None])
        result = list(tensors)
        for k, whole in zip(turned, wholes, strict=True):
            result[indices[k]] = whole
        return result

    def precondition_blocks(
        self, indices: Sequence[int], tensors: Sequence[Tensor]
    ) -> list[list[Tensor] | None]:
        """Return what `precondition` does, each direction as the list of its blocks.

        Args:
            indices: places of parameters.
            tensors: one for each of them.

        Returns:
            None where a parameter passes through, or has no roots yet.
        """
        members = [self._members[index] for index in indices]
        result: list[list[Tensor] | None] = [None] * len(members)
        ready = [k for k, member in enumerate(members) if member.left_root]
        kinds = [
            (tensors[k].device, tensors[k].dtype, members[k].left_root[0].dtype) for k in ready
        ]
        for bucket in buckets(ready, kinds):
            turned = [members[k] for k in bucket]
            products = ops.precondition_list(
                blocks_of(turned, [tensors[k] for k in bucket]),
                [root for member in turned for root in member.left_root],
                [root for member in turned for root in member.right_root],
            )
            start = 0
            for k, member in zip(bucket, turned, strict=True):
                stop = start + len(member.left_root)
                result[k] = products[start:stop]
                start = stop
        return result

    def report(self) -> Report:
        """Return what the last `update` did. Waits for accelerators to read their counters."""
        return replace(
            self._report,
            step=max(self.steps, default=0),
            roots_failed=self._roots_failed.read_step(),
            gradients_skipped=self._gradients_skipped.read_step(),
            total_roots_failed=self._roots_failed.read_total(),
            total_gradients_skipped=self._gradients_skipped.read_total(),
        )

    def state_dict(self) -> dict[int, dict[str, Any]]:
        """Return tensors and plain values for each parameter that saw a gradient, by its index."""
        return {i: member.state() for i, member in enumerate(self._members) if member.step}

    def check_state_dict(self, state: Mapping[int, dict[str, Any]]) -> None:
        """Raise ValueError unless `load_state_dict` can take `state`."""
        for index, entry in state.items():
            if index not in range(len(self._members)):
                raise ValueError(
                    f"{self.caller}: state must be of {len(self._members)} parameters at most "
                    f"(got index={index})"
                )
            self._members[index].check_state(f"{self.caller}: state {index}", entry)

    def load_state_dict(self, state: Mapping[int, dict[str, Any]]) -> None:
        """Take over a copy of `state`; a parameter that it lacks starts anew.

        Raises:
            ValueError: the blocks or the estimator differ; nothing was written.
        """
        self.check_state_dict(state)
        for index, member in enumerate(self._members):
            member.load_state(state.get(index, {"step": 0}))

    def _check(self, name: str, tensors: Sequence[Tensor | None]) -> None:
        if len(tensors) != len(self._members):
            raise ValueError(
                f"{self.caller}: {name}s must be one per parameter "
                f"(got {len(tensors)} for {len(self._members)} parameters)"
            )
        for index, (member, tensor) in enumerate(zip(self._members, tensors, strict=True)):
            if tensor is None:
                continue
            if tensor.dtype not in SUPPORTED_DTYPES:
                raise TypeError(
                    f"{self.caller}: {name} {index} must be float64, float32, bfloat16 or float16 "
                    f"(got dtype={tensor.dtype})"
                )
            if member.options is not None and tensor.layout != torch.strided:
                raise ValueError(
                    f"{self.caller}: {name} {index} must be dense (got layout={tensor.layout})"
                )
            if not tensor.shape == member.parameter.shape == member.shape:
                raise ValueError(
                    f"{self.caller}: parameter {index} and its {name} must keep the shape "
                    f"{tuple(member.shape)} (got parameter {tuple(member.parameter.shape)}, "
                    f"{name} {tuple(tensor.shape)})"
                )

    @property
    def plan(self) -> Plan:
        """Who took part in the last `update`, the same object while that stays the same."""
        return self._plan

    def _plan_for(self, gradients: Sequence[Tensor | None]) -> Plan:
        kinds = kinds_of(self._params, gradients)
        if kinds != self._plan.kinds:
            self._plan = Plan(kinds, self._members)
        return self._plan

    def _accumulate(self, bucket: Bucket, screened: Screened) -> None:
        members = bucket.members
        for member in members:
            if not member.left:
                member.create_factors()
        lefts = [factor for member in members for factor in member.left]
        rights = [factor for member in members for factor in member.right]
        gradients = [g for index in bucket.indices if (g := screened.gradients[index]) is not None]
        blocks = blocks_of(members, gradients)
        options = bucket.options
        if self.capturable and options.beta is not None and options.weights_change:
            before, after = graphs.average_scales(
                members, options.beta, [screened.finite[index] for index in bucket.indices]
            )
            _scale_(lefts, rights, before)
            estimators.accumulate(options, lefts, rights, blocks, decay=1.0, weight=1.0)
            _scale_(lefts, rights, after)
            return
        steps = {member.step for member in members}
        weights_at = {step: options.average_weights(step) for step in steps}
        pairs = [weights_at[member.step] for member in members for _ in member.left]
        flags = [
            flag
            for index, member in zip(bucket.indices, members, strict=True)
            if (flag := screened.finite[index]) is not None
            for _ in member.left
        ]
        decay: float | list[float] = [decay for decay, _ in pairs]
        weight: float | list[float] = [weight for _, weight in pairs]
        if flags:
            # The gradient is zero where it was not finite; to leave the factor as it was its decay
            # must be 1, which only the device knows.
            masks = torch.stack(flags).to(lefts[0].dtype).unbind()
            kept = torch._foreach_mul(masks, [decay - 1 for decay, _ in pairs])
            torch._foreach_add_(kept, 1.0)
            if options.beta == 0:
                # Factors that are zeroed first have no direction, which "optimal" would take.
                saved = torch._foreach_mul(lefts + rights, kept + kept)
                estimators.accumulate(options, lefts, rights, blocks, decay=0.0, weight=1.0)
                torch._foreach_add_(lefts + rights, saved)
                return
            _scale_(lefts, rights, kept)
            decay = 1.0
        elif len(weights_at) == 1:
            decay, weight = pairs[0]
        estimators.accumulate(options, lefts, rights, blocks, decay=decay, weight=weight)

    def _refresh_roots(self, bucket: Bucket) -> int:
        options = bucket.options
        steps = {member.step for member in bucket.members}
        due = {step for step in steps if options.refreshes_roots(step)}
        if not due:
            return 0
        members = [member for member in bucket.members if member.step in due]
        for member in members:
            if not member.left_root:
                member.create_roots()
        lefts = [factor for member in members for factor in member.left]
        rights = [factor for member in members for factor in member.right]
        left_roots = [root for member in members for root in member.left_root]
        right_roots = [root for member in members for root in member.right_root]
        info = ops.inverse_root_list_(
            left_roots + right_roots,
            lefts + rights,
            estimators.factor_root(options),
            eps=options.eps,
            relative_eps=options.relative_eps,
        )
        self._roots_failed.add((info != 0).sum())
        scales = estimators.scales(options, lefts, rights)
        if scales is not None:
            # A root that failed is the old one, which has its scale already.
            succeeded = info[: len(lefts)] == 0
            torch._foreach_mul_(left_roots, torch.where(succeeded, scales, 1.0).unbind())
        return len(info)

    def _raise_if(self, counter: DeviceCounter, expectation: str, outcome: str) -> None:
        if self.raise_on_failure and (count := counter.read_step()):
            raise RuntimeError(f"{self.caller}: {expectation} (got {count} {outcome})")


def _scale_(
    lefts: list[Tensor], rights: list[Tensor], scales: list[Tensor] | tuple[Tensor, ...]
) -> None:
    torch._foreach_mul_(lefts, scales)
    torch._foreach_mul_(rights, scales)
