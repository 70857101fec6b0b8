"""Along a training run: how near are the optimizer's Kronecker factors to `H_Ada`, and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from kronext import ops
from kronext.curvature.approximation import KroneckerFactors
from kronext.curvature.hutchinson import Estimate, dots, jackknife
from kronext.curvature.thinning import RunningPair, Thinning
from kronext.optim.blocks import BlockedParameter
from kronext.optim.engine import KroneckerPreconditioner
from kronext.optim.lists import buckets
from kronext.optim.options import Options, check_count


class Monitor:
    """`cos(H_Ada, A (x) B)` and the alignment of one step, in any training run.

    After every `every`-th step of the optimizer its gradients are folded into the products with
    random signs `v`, kept as running sums (Appendix B of the paper), with no further backward pass,

        H v <- decay H v + weight <G, v> G,

    and after every `factors_every`-th one into

        L  <- decay L + weight G GT            one step from the identity, R likewise;
        L* <- decay L* + weight G R*/|R*| GT   the optimum, a step a gradient, R* likewise.

    With an optimizer of `kronext.optim` the decay is that of its factors and the similarity is
    theirs, which see every gradient; with any other all are plain sums and the similarity is that
    of `L (x) R`. Averages over a part of the steps are noisier than those over all. What that adds
    to their squares is known and taken out (see `kronext.curvature.thinning`), so that the numbers
    mean all steps; a cosine may then exceed 1 by chance, and does while few gradients were seen.
    `every` and `factors_every` should lie far below the memory `1 / (1 - beta)` of the factors.

    The memory of a weight is that of `1.25 probes` gradients and of two pairs of factors.

        monitor = curvature.Monitor(optimizer, model.named_parameters())
        for step, (x, y) in enumerate(loader):
            ...
            optimizer.step()
            if step % 1000 == 0:
                for name, value in monitor.scalars().items():
                    writer.add_scalar(name, value, step)

    Args:
        optimizer: of `kronext.optim`, or any other torch optimizer.
        named_parameters: which of its parameters to watch, and their names. By default all that
            are matrices, named by their place.
        every: steps between gradients that the products see; by default 25, or 50 with an
            optimizer that has no factors of its own and therefore cheaper steps.
        factors_every: likewise for `L`, `R`, `L*` and `R*`; 40 or 300.
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
        every: int | None = None,
        factors_every: int | None = None,
        probes: int = 8,
        block_size: int = 1024,
        seed: int = 0,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                "Monitor: optimizer must be a torch.optim.Optimizer "
                f"(got {type(optimizer).__name__})"
            )
        engine = getattr(optimizer, "engine", None)
        self._has_factors = isinstance(engine, KroneckerPreconditioner)
        usual_every, usual_factors_every = (25, 40) if self._has_factors else (50, 300)
        every = usual_every if every is None else every
        factors_every = usual_factors_every if factors_every is None else factors_every
        check_count("Monitor", "every", every)
        check_count("Monitor", "factors_every", factors_every)
        check_count("Monitor", "probes", probes)
        check_count("Monitor", "block_size", block_size)
        if probes < 2:
            raise ValueError(f"Monitor: probes must be at least 2 (got probes={probes})")
        self.every = every
        self.factors_every = factors_every
        if isinstance(engine, KroneckerPreconditioner):
            members = engine.members
        else:
            members = _blocked_parameters(optimizer, block_size)
        generator = torch.Generator().manual_seed(seed)
        self._blocks: dict[BlockedParameter, list[_Block]] = {
            member: [
                _Block(name, member, index, every, factors_every, probes, generator)
                for index in range(len(member.block_shapes))
            ]
            for name, member in _named(members, named_parameters)
            if member.options is not None
        }
        if not self._blocks:
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
        # Not the same steps, where it can be helped: chance that both share would look like truth.
        factors_due = (self._step - 1) % self.factors_every == 0
        self._step += 1
        if not (products_due or factors_due):
            return
        pairs = [
            pair
            for member, blocks in self._blocks.items()
            for pair in zip(blocks, _usable_gradient(member), strict=False)
        ]
        for block, gradient in pairs if products_due else []:
            block.fold_into_products(gradient)
        for bucket in buckets(pairs, [(gradient.device, gradient.dtype) for _, gradient in pairs]):
            if factors_due:
                _fold_into_factors(bucket)

    @torch.no_grad()
    def scalars(self) -> dict[str, float]:
        """What is known so far, as plain numbers, for a weight of name `w`.

        - `w/similarity`: the cosine similarity of the factors and `H`;
        - `w/similarity_error`: its standard error, from the spread over the probes alone;
        - `w/alignment_left`: the cosine of `L` and `L*`;
        - `w/alignment_right`: the cosine of `R` and `R*`.

        There is none before the second gradient was seen. Where a weight has several blocks `w`
        stands for `w/block0`, `w/block1` and so on. A call costs as much as `2 probes` products
        with both factors, and with the estimator "shampoo" two eigenvalue decompositions.
        """
        scalars = {}
        for block in (block for blocks in self._blocks.values() for block in blocks):
            if block.seen > 1 and (self._has_factors or block.left.count > 1):
                similarity = block.similarity(own_factors=not self._has_factors)
                scalars[f"{block.name}/similarity"] = similarity.value
                scalars[f"{block.name}/similarity_error"] = similarity.standard_error
            if block.left.count > 1:
                scalars[f"{block.name}/alignment_left"] = block.left.cosine()
                scalars[f"{block.name}/alignment_right"] = block.right.cosine()
        return scalars


class _Block:
    """One block of a parameter.

    Attributes:
        signs: the probes, `(p, mn)`, as bytes.
        images: `H v` for each of them.
        seen: how many gradients they have seen.
        left: `L` and `L*`.
        right: `R` and `R*`.
    """

    def __init__(
        self,
        name: str,
        member: BlockedParameter,
        index: int,
        every: int,
        factors_every: int,
        probes: int,
        generator: torch.Generator,
    ) -> None:
        assert member.options is not None
        self.name = name if len(member.block_shapes) == 1 else f"{name}/block{index}"
        self._member, self._index = member, index
        m, n = self._shape = member.block_shapes[index]
        parameter = member.parameter
        dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
        options: dict[str, Any] = {"dtype": dtype, "device": parameter.device}
        signs = torch.randint(
            2, (probes, m * n), generator=generator, dtype=torch.int8, device="cpu"
        )
        self.signs = signs.mul_(2).sub_(1).to(parameter.device)
        self.images = torch.zeros(probes, m * n, **options)
        self.seen = 0
        self._thinning = Thinning(member.options.beta, every)
        # What each gradient adds to the square of the images by itself.
        self._own = torch.zeros(probes, dtype=torch.float64, device=parameter.device)
        factors = Thinning(member.options.beta, factors_every)
        self.left = RunningPair(factors, torch.zeros(m, m, **options))
        self.right = RunningPair(factors, torch.zeros(n, n, **options))

    def fold_into_products(self, gradient: Tensor) -> None:
        """`H v <- decay H v + weight <G, v> G`."""
        self.seen += 1
        decay, weight = self._thinning.weights(self.seen)
        g = gradient.flatten().to(self.images.dtype)
        coefficients = self.signs.to(g.dtype) @ g
        self.images.addr_(coefficients, g, beta=decay, alpha=weight)
        lengths = coefficients.double() * torch.linalg.vector_norm(g, dtype=torch.float64)
        self._own.mul_(decay**2).add_(lengths.square(), alpha=weight**2)

    def similarity(self, *, own_factors: bool) -> Estimate:
        """Of `H` and the running factors; see `Hutchinson.similarity`."""
        if own_factors:
            factors = KroneckerFactors(self.left.first, self.right.first)
            shrinking = self.left.shrinking() * self.right.shrinking()
        else:
            factors, shrinking = self._factors_of_optimizer(), 1.0
        probes = self.signs.view(-1, *self._shape).to(self.images.dtype)
        other = factors.unit().matvec(probes).flatten(1)
        products, squares = dots(self.images, other), shrinking * dots(other, other)
        truth = dots(self.images, self.images)
        truth = self._thinning.of_all_steps(self.seen, truth, self._own)
        return jackknife(
            lambda mean: mean(products) / (mean(truth) * mean(squares)).sqrt(), len(products)
        )

    def _factors_of_optimizer(self) -> KroneckerFactors:
        """The Kronecker product that the optimizer preconditions with, up to its scale."""
        member, index = self._member, self._index
        factors = KroneckerFactors(member.left[index], member.right[index])
        assert member.options is not None
        return factors.power(0.5) if member.options.estimator == "shampoo" else factors


def _fold_into_factors(pairs: list[tuple[_Block, Tensor]]) -> None:
    """`L <- decay L + weight G GT`, `L* <- decay L* + weight G R*/|R*| GT`, and the right sides."""
    blocks, gradients = [block for block, _ in pairs], [gradient for _, gradient in pairs]
    # What a gradient adds is formed by itself: its own square is needed too.
    left = [torch.empty_like(block.left.first) for block in blocks]
    right = [torch.empty_like(block.right.first) for block in blocks]
    ops.outer_update_list_(left, right, gradients, decay=0.0, weight=1.0)
    best_left = [block.left.second.clone() for block in blocks]
    best_right = [block.right.second.clone() for block in blocks]
    ops.power_iteration_list_(best_left, best_right, gradients, decay=0.0, weight=1.0)
    for place, block in enumerate(blocks):
        block.left.add(left[place], best_left[place])
        block.right.add(right[place], best_right[place])


def _usable_gradient(member: BlockedParameter) -> list[Tensor]:
    """The blocks of the gradient, none where there is no gradient that could be folded in."""
    gradient = member.parameter.grad
    if gradient is None or gradient.layout != torch.strided:
        return []
    wide = torch.promote_types(gradient.dtype, torch.float32)
    return member.blocks(gradient) if bool(gradient.sum(dtype=wide).isfinite()) else []


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
