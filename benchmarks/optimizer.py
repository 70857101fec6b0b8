"""The optimizer step: `Shampoo` grafted onto Adam against optimizers of others.

The mean step of a run that refreshes roots every `k` steps: one that does and `k - 1` that do not,
timed apart and weighed, so that an interval of 100 does not take 100 steps to time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks import rivals, shapes
from benchmarks.inputs import error_of, gradients
from benchmarks.rivals import OptimizerRival
from benchmarks.runner import Call, Case, Growth, Job
from kronext import optim

INTERVALS = (1, 10, 100)
SMALL = (64, 64)
MODELS = {
    "d=256 x 4, block 256": (shapes.transformer(256, 4), 256),
    "d=512 x 2, block 512": (shapes.transformer(512, 2), 512),
    "1000 of 64 x 64": ([SMALL] * 1000, 64),
}


def steps() -> Iterator[Case]:
    """Transformer layers and many small parameters, by interval; and how a step grows."""
    for name, (layers, side) in MODELS.items():
        for interval in INTERVALS:
            label = f"{name}, roots / {interval}"
            growth = _growth(len(layers)) if layers[0] == SMALL and interval == 10 else None
            yield Case("Shampoo.step", label, partial(_step, layers, side, interval), growth=growth)
    for count in (1, 10, 100):
        label = f"{count} of 64 x 64, roots / 10"
        build = partial(_step, [SMALL] * count, 64, 10)
        yield Case("Shampoo.step", label, build, growth=_growth(count))


def _growth(count: int) -> Growth:
    return Growth("64 x 64, roots / 10", "parameters", count)


def _step(
    layers: list[shapes.Shape], side: int, interval: int, wants: Callable[[str], bool]
) -> Job:
    blocks = shapes.blocks(layers, side)
    chosen = [r for r in rivals.RIVALS if wants(r.name) and r.is_installed()]
    once = [(m, n, m * n * (m + n)) for m, n in blocks]
    roots = sum(9.0 * (m**3 + n**3) for m, n, _ in once) / interval
    return Job(
        _both_steps(_ours, layers, side),
        {r.name: _both_steps(r.make, layers if r.cuts_blocks else blocks, side) for r in chosen},
        partial(_error_of, _ours, layers, side, rivals.BETAS[1]),
        # Products for the factors and the direction, and the roots.
        flops=3.0 * sum(flops for _, _, flops in once),
        wide_flops=roots,
        # Weight, gradient, both moments, direction; factors read and written, roots read.
        moved=4.0 * sum(9 * m * n + 2.5 * (m * m + n * n) for m, n, _ in once),
        rival_errors={
            r.name: partial(_error_of_rival, r, layers, side) for r in chosen if r.is_shampoo
        },
        weights=(1 / interval, 1 - 1 / interval),
    )


Make = Callable[[list[nn.Parameter], int, bool, "tuple[float, float]"], Optimizer]


def _ours(
    params: list[nn.Parameter], block_size: int, refreshes: bool, betas: tuple[float, float]
) -> Optimizer:
    return optim.Shampoo(
        params,
        lr=rivals.LR,
        betas=betas,
        graft_eps=rivals.GRAFT_EPS,
        estimator="shampoo",
        beta=betas[1],
        eps=rivals.EPS,
        relative_eps=0.0,
        block_size=block_size,
        start_step=1,
        update_interval=1 if refreshes else rivals.NEVER,
    )


def _both_steps(make: Make, layers: list[shapes.Shape], side: int) -> list[Call]:
    """A step that refreshes roots, and one that does not."""
    calls: list[Call] = []
    for refreshes in (True, False):
        params = [nn.Parameter(torch.zeros(m, n)) for m, n in layers]
        for parameter, gradient in zip(params, gradients(layers), strict=True):
            parameter.grad = gradient
        optimizer = make(params, side, refreshes, rivals.BETAS)
        calls.append(partial(_call_step, optimizer))
    return calls


def _call_step(optimizer: Optimizer, _: int) -> object:
    return optimizer.step()


def _error_of_rival(rival: OptimizerRival, layers: list[shapes.Shape], side: int) -> float:
    sizes = layers if rival.cuts_blocks else shapes.blocks(layers, side)
    # pytorch-optimizer sums where the others average.
    decay = 1.0 if rival.module == "pytorch_optimizer" else rivals.BETAS[1]
    return _error_of(rival.make, sizes, side, decay)


def _error_of(make: Make, layers: list[shapes.Shape], side: int, decay: float) -> float:
    """How far the third step without momentum is from `L^{-1/4} G R^{-1/4}` in float64.

    Block by block and each at length 1, because grafting takes place per block or per parameter.
    A few parameters tell.
    """
    layers = layers[:4]
    params = [nn.Parameter(torch.zeros(m, n)) for m, n in layers]
    optimizer = make(params, side, True, (0.0, rivals.BETAS[1]))
    seen = [gradients(layers, seed=100 * step) for step in range(3)]
    for of_step in seen:
        before = [parameter.detach().clone() for parameter in params]
        for parameter, gradient in zip(params, of_step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    results, oracles = [], []
    for index, (parameter, old) in enumerate(zip(params, before, strict=True)):
        moved = _cut(old - parameter.detach(), side)
        histories = zip(*(_cut(of_step[index], side) for of_step in seen), strict=True)
        for block, history in zip(moved, histories, strict=True):
            results.append(_unit(block).flatten())
            oracles.append(_unit(_direction(history, decay)).flatten())
    return error_of(torch.cat(results), torch.cat(oracles))


def _cut(matrix: Tensor, side: int) -> list[Tensor]:
    return [block for band in matrix.split(side, 0) for block in band.split(side, 1)]


def _unit(matrix: Tensor) -> Tensor:
    return matrix.double() / matrix.double().norm()


def _direction(history: tuple[Tensor, ...], decay: float) -> Tensor:
    """`L^{-1/4} G R^{-1/4}` of the last gradient, with the factors of all of them."""
    weights = [decay**age for age in reversed(range(len(history)))]
    scale = 1.0 if decay == 1.0 else sum(weights)
    wide = [gradient.double() for gradient in history]
    roots = []
    for factor in (
        sum(w * g @ g.T for w, g in zip(weights, wide, strict=True)),
        sum(w * g.T @ g for w, g in zip(weights, wide, strict=True)),
    ):
        assert isinstance(factor, Tensor)
        values, vectors = torch.linalg.eigh(factor / scale)
        powers = (values.clamp_min(0) + rivals.EPS) ** -0.25
        roots.append((vectors * powers) @ vectors.T)
    return roots[0] @ wide[-1] @ roots[1]
