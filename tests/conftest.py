"""Puts the shared helpers on the path and keeps every test seeded."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Before torch loads its thread library: waiting threads that spin make tests crawl where anything
# else uses the machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
