"""The short form of scripts/chaos: real processes, misfortune at random."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.chaos import run

pytestmark = pytest.mark.real


def test_some_seconds_of_every_misfortune_lose_and_double_nothing(tmp_path: Path) -> None:
    seed = 20
    report = run(tmp_path, seed=seed, seconds=10)
    assert not report.complaints, f"seed {seed}: {report.describe()}"
    assert len(report.faults) >= 6  # each kind at least once, however slow the machine is
