"""Along a training run: how near are the optimizer's Kronecker factors to `H_Ada`, and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from kronext import ops
from kronext.curvature.approximation import KroneckerFactors
from kronext.curvature.hutchinson import Hutchinson
from kronext.curvature.similarity import matrix_cosine
from kronext.optim.blocks import BlockedParameter
from kronext.optim.engine import KroneckerPreconditioner
from kronext.optim.lists import buckets
from kronext.optim.options import Options, check_count


class Monitor:
    """`cos(H_Ada, A (x) B)` and the alignment of one step, in any training run.

    After every `every`-th step of the optimizer its gradients are folded into the products with
    random signs `v`, kept as running sums (Appendix B of the paper), with no further backward pass:

        H v <- decay H v + weight <G, v> G

    and after every `factors_every`-th one into

        L  <- L + G GT,           R  <- R + GT G              one step from the identity
        L* <- L* + G R*/|R*| GT,  R* <- R* + GT L*/|L*| G     the optimum, a step a gradient.

    With an optimizer of `kronext.optim` the similarity is that of its own factors, which see every
    gradient, to the `H` that has their decay; with any other it is that of `L (x) R` to the sum.
    `H` sees one gradient in `every`. Where gradients are mostly noise and the factors average few
    of them, that makes the similarity lower than it is; `every=1` is exact but for the probes.

    The memory of a weight is that of `1.25 probes` gradients, and of four factors.

        monitor = curvature.Monitor(optimizer, model.named_parameters())
        for step, (x, y) in enumerate(loader):
            ...
            optimizer.step()
            if step % 100 == 0:
                for name, value in monitor.scalars().items():
                    writer.add_scalar(name, value, step)

    Args:
        optimizer: of `kronext.optim`, or any other torch optimizer.
        named_parameters: which of its parameters to watch, and their names. By default all that
            are matrices, named by their place.
        every: steps between gradients that the products see.
        factors_every: steps between gradients that the factors see, which cost more.
        probes: products for each weight; the error of the similarity falls with the root of it.
        block_size: largest side of a block, for optimizers that have none of their own.
        seed: of the probes.

    Raises:
        TypeError: the optimizer is none, or an argument is of the wrong type.
        ValueError: an argument is out of range, or no parameter is left to watch.

    Source: Appendix B and Section 3.1.1 of Morwani et al. 2024.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        named_parameters: Iterable[tuple[str, Tensor]] | None = None,
        *,
        every: int = 10,
        factors_every: int = 250,
        probes: int = 8,
        block_size: int = 1024,
        seed: int = 0,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                "Monitor: optimizer must be a torch.optim.Optimizer "
                f"(got {type(optimizer).__name__})"
            )
        counts = {"every": every, "factors_every": factors_every, "block_size": block_size}
        for name, value in (counts | {"probes": probes}).items():
            check_count("Monitor", name, value)
        if probes < 2:
            raise ValueError(f"Monitor: probes must be at least 2 (got probes={probes})")
        self.every = every
        self.factors_every = factors_every
        generator = torch.Generator().manual_seed(seed)
        engine = getattr(optimizer, "engine", None)
        self._own_factors = not isinstance(engine, KroneckerPreconditioner)
        members = (
            engine.members
            if isinstance(engine, KroneckerPreconditioner)
            else _blocked_parameters(optimizer, block_size)
        )
        self._watched = [
            _Watched(name, member, probes, generator)
            for name, member in _named(members, named_parameters)
            if member.options is not None
        ]
        if not self._watched:
            raise ValueError(
                "Monitor: the optimizer must hold a matrix among the given parameters (got none)"
            )
        self._step = 0
        self._hook = optimizer.register_step_post_hook(lambda *_: self.record())

    def close(self) -> None:
        """Stops watching; what was recorded can still be read."""
        self._hook.remove()

    @torch.no_grad()
    def record(self) -> None:
        """Takes note of one step, whose gradients are still there; the optimizer calls it."""
        products_due = self._step % self.every == 0
        factors_due = self._step % self.factors_every == 0
        self._step += 1
        if not (products_due or factors_due):
            return
        gradients = [(watched, watched.usable_gradient()) for watched in self._watched]
        usable = [(watched, blocks) for watched, blocks in gradients if blocks]
        for watched, blocks in usable if products_due else []:
            watched.fold_into_products(blocks, self.every)
        for bucket in buckets(usable, lambda item: item[0].key) if factors_due else []:
            _fold_into_factors(bucket)

    @torch.no_grad()
    def scalars(self) -> dict[str, float]:
        """What is known so far, as plain numbers, for a weight of name `w`.

        - `w/similarity`: the cosine similarity of the factors and `H`;
        - `w/similarity_error`: its standard error, from the spread over the probes;
        - `w/alignment_left`: the cosine of `L` and `L*`;
        - `w/alignment_right`: the cosine of `R` and `R*`.

        Where a weight has several blocks `w` stands for `w/block0`, `w/block1` and so on. With the
        estimator "shampoo" a similarity costs two eigenvalue decompositions.
        """
        return {
            f"{watched.block_name(index)}/{name}": value
            for watched in self._watched
            if watched.recorded
            for index in range(len(watched.images))
            for name, value in watched.scalars(index, own_factors=self._own_factors).items()
        }


class _Watched:
    """One parameter: its blocks, and for each the running products and factors."""

    def __init__(
        self, name: str, member: BlockedParameter, probes: int, generator: torch.Generator
    ) -> None:
        self.name = name
        self.member = member
        self.recorded = 0
        parameter = member.parameter
        dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
        self.key = (parameter.device, parameter.dtype)
        self.dtype = dtype
        options: dict[str, Any] = {"dtype": dtype, "device": parameter.device}
        sizes = member.block_shapes
        self.signs = [
            torch.randint(2, (probes, m * n), generator=generator, dtype=torch.int8)
            .mul_(2)
            .sub_(1)
            .to(parameter.device)
            for m, n in sizes
        ]
        self.images = [torch.zeros(probes, m * n, **options) for m, n in sizes]
        # L, R, L* and R* of each block.
        self.left, self.best_left = (
            [torch.zeros(m, m, **options) for m, _ in sizes] for _ in range(2)
        )
        self.right, self.best_right = (
            [torch.zeros(n, n, **options) for _, n in sizes] for _ in range(2)
        )

    def block_name(self, index: int) -> str:
        return self.name if len(self.images) == 1 else f"{self.name}/block{index}"

    def usable_gradient(self) -> list[Tensor]:
        """The blocks of the gradient, none where there is no gradient that could be folded in."""
        gradient = self.member.parameter.grad
        if gradient is None or gradient.layout != torch.strided:
            return []
        finite = gradient.sum(dtype=self.dtype).isfinite()
        return self.member.blocks(gradient) if bool(finite) else []

    def fold_into_products(self, blocks: list[Tensor], every: int) -> None:
        """`H v <- decay H v + weight <G, v> G`."""
        self.recorded += 1
        assert self.member.options is not None
        decay, weight = self.member.options.average_weights(self.recorded, every)
        for signs, images, block in zip(self.signs, self.images, blocks, strict=True):
            g = block.flatten().to(images.dtype)
            images.addr_(signs.to(images.dtype) @ g, g, beta=decay, alpha=weight)

    def scalars(self, index: int, *, own_factors: bool) -> dict[str, float]:
        m, n = self.member.block_shapes[index]
        images, signs = (x[index].view(-1, m, n) for x in (self.images, self.signs))
        similarity = Hutchinson(signs.to(images.dtype), images).similarity(
            KroneckerFactors(self.left[index], self.right[index])
            if own_factors
            else _running_factors(self.member, index)
        )
        return {
            "similarity": similarity.value,
            "similarity_error": similarity.standard_error,
            "alignment_left": matrix_cosine(self.left[index], self.best_left[index]),
            "alignment_right": matrix_cosine(self.right[index], self.best_right[index]),
        }


def _fold_into_factors(bucket: list[tuple[_Watched, list[Tensor]]]) -> None:
    """`L += G GT` and `L* += G R*/|R*| GT` of all blocks, and their right sides."""
    gradients = [block for _, blocks in bucket for block in blocks]
    left, right, best_left, best_right = (
        [factor for watched, _ in bucket for factor in getattr(watched, name)]
        for name in ("left", "right", "best_left", "best_right")
    )
    ops.outer_update_list_(left, right, gradients, decay=1.0, weight=1.0)
    ops.power_iteration_list_(best_left, best_right, gradients, decay=1.0, weight=1.0)


def _running_factors(member: BlockedParameter, index: int) -> KroneckerFactors:
    """The Kronecker product that the optimizer preconditions with, up to its scale."""
    factors = KroneckerFactors(member.left[index], member.right[index])
    assert member.options is not None
    return factors.power(0.5) if member.options.estimator == "shampoo" else factors


def _named(
    members: list[BlockedParameter], named_parameters: Iterable[tuple[str, Tensor]] | None
) -> list[tuple[str, BlockedParameter]]:
    """The parameters to watch, with their names."""
    if named_parameters is None:
        return [(f"parameter{place}", member) for place, member in enumerate(members)]
    names = {id(parameter): name for name, parameter in named_parameters}
    ours = [member for member in members if id(member.parameter) in names]
    return [(names[id(member.parameter)], member) for member in ours]


def _blocked_parameters(optimizer: Optimizer, block_size: int) -> list[BlockedParameter]:
    """The parameters of an optimizer without factors, in blocks; `H` is the plain sum."""
    options = Options(beta=None, block_size=block_size)
    return [
        BlockedParameter(parameter, options)
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
