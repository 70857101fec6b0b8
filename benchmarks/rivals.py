"""Optimizers of others that do the same job; each is a rival where it can be imported.

    pip install --no-deps pytorch-optimizer==4.1.0 heavyball==3.2.1 opt-einsum
    git clone https://github.com/facebookresearch/optimizers    # and put it on PYTHONPATH

Shampoo with the root -1/4 stands against itself; SOAP does another job in its place: Adam in an
eigenbasis that one QR step mends where Shampoo has to find it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

# Every optimizer is asked for the same.
LR, BETAS, EPS, GRAFT_EPS = 1e-3, (0.9, 0.999), 1e-8, 1e-8
NEVER = 10**9


@dataclass(frozen=True)
class OptimizerRival:
    """A rival of the optimizer step.

    Attributes:
        name: as the report shows it.
        module: what must be importable.
        make: takes parameters, the side of blocks, whether roots are refreshed at every step or
            only at the first, and the betas.
        cuts_blocks: whether it cuts matrices into blocks itself; others are given the blocks.
        is_shampoo: whether its directions are `L^{-1/4} G R^{-1/4}`, so that they can be checked.
    """

    name: str
    module: str
    make: Callable[[list[nn.Parameter], int, bool, tuple[float, float]], Optimizer]
    cuts_blocks: bool
    is_shampoo: bool

    def is_installed(self) -> bool:
        """Whether it can be imported; it is imported when it is made."""
        return importlib.util.find_spec(self.module) is not None


def _meta(
    params: list[nn.Parameter], block_size: int, refreshes: bool, betas: tuple[float, float]
) -> Optimizer:
    import distributed_shampoo

    optimizer = distributed_shampoo.DistributedShampoo(
        params,
        lr=LR,
        betas=betas,
        epsilon=EPS,
        max_preconditioner_dim=block_size,
        precondition_frequency=1,
        start_preconditioning_step=1,
        grafting_config=distributed_shampoo.AdamPreconditionerConfig(
            beta2=betas[1], epsilon=GRAFT_EPS
        ),
    )
    return _then_rarely(optimizer, refreshes, "precondition_frequency")


def _shampoo(
    params: list[nn.Parameter], block_size: int, refreshes: bool, betas: tuple[float, float]
) -> Optimizer:
    import pytorch_optimizer

    interval = 1 if refreshes else NEVER
    return pytorch_optimizer.Shampoo(
        params, lr=LR, momentum=betas[0], preconditioning_compute_steps=interval, matrix_eps=EPS
    )


def _soap(
    params: list[nn.Parameter], block_size: int, refreshes: bool, betas: tuple[float, float]
) -> Optimizer:
    import pytorch_optimizer

    return pytorch_optimizer.SOAP(
        params,
        lr=LR,
        betas=betas,
        weight_decay=0.0,
        precondition_frequency=1 if refreshes else NEVER,
        max_precondition_dim=block_size,
    )


def _heavyball(
    params: list[nn.Parameter], block_size: int, refreshes: bool, betas: tuple[float, float]
) -> Optimizer:
    import heavyball

    return heavyball.SOAP(
        params,
        lr=LR,
        betas=betas,
        shampoo_beta=betas[1],
        weight_decay=0.0,
        precondition_frequency=1 if refreshes else NEVER,
        max_precond_dim=block_size,
        merge_dims=False,
        consume_grad=False,
    )


def _then_rarely(optimizer: Optimizer, refreshes: bool, key: str) -> Optimizer:
    """Let the roots be refreshed at the first step alone: before that nothing is preconditioned."""
    if not refreshes:

        def stop(made: Optimizer, *_: Any) -> None:
            for group in made.param_groups:
                group[key] = NEVER
            handle.remove()

        handle = optimizer.register_step_post_hook(stop)
    return optimizer


RIVALS = [
    OptimizerRival("Distributed Shampoo", "distributed_shampoo", _meta, True, True),
    OptimizerRival("pytorch-optimizer Shampoo", "pytorch_optimizer", _shampoo, False, True),
    OptimizerRival("pytorch-optimizer SOAP", "pytorch_optimizer", _soap, False, False),
    OptimizerRival("HeavyBall SOAP", "heavyball", _heavyball, False, False),
]
