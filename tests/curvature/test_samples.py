"""Inner products of samples: by pairs of positions and by whole gradients."""

from __future__ import annotations

import pytest
from torch.utils.flop_counter import FlopCounterMode

from kronext.curvature import moments
from kronext.curvature.samples import FactoredMoment, GradientMoment


@pytest.mark.parametrize(("count", "positions"), [(6, 8), (6, 96)])
def test_norms_of_a_million_entries_do_not_lose_digits(normal, count, positions):
    """What is cheap here is pairs of positions in the first case, gradients in the second."""
    m = n = 1024
    D, A = normal(count, positions, m), normal(count, positions, n)
    gradients = (D.mT @ A).flatten(1)
    expected = float((gradients @ gradients.mT).square().sum())
    D, A = D.float(), A.float()
    assert FactoredMoment(D, A).squared_products() == pytest.approx(expected, rel=1e-6)
    assert GradientMoment(D.mT @ A).squared_products() == pytest.approx(expected, rel=1e-6)


@pytest.mark.cpu
@pytest.mark.parametrize("memory", [2000, 2**24])
@pytest.mark.parametrize(("positions", "m", "n"), [(2, 40, 30), (9, 40, 30), (60, 12, 100)])
def test_inner_products_go_the_way_of_fewer_multiplications(
    normal, monkeypatch, memory, positions, m, n
):
    monkeypatch.setattr(moments, "MEMORY_ENTRIES", memory)
    count = 100
    moment = FactoredMoment(normal(count, positions, m), normal(count, positions, n))
    with FlopCounterMode(display=False) as counter:
        total = moment.squared_products()
    together = min(count, memory // count)
    of_a_pair = min(positions**2 * (m + n), m * n * (1 + positions / together))
    assert 0 < counter.get_total_flops() / 2 <= count**2 * of_a_pair
    gradients = moment.gradients(0, count).flatten(1)
    assert total == pytest.approx(float((gradients @ gradients.mT).square().sum()), rel=1e-12)
