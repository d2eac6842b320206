"""Hundreds of stories, each from its seed; a failing one prints its number and replays exactly."""

from __future__ import annotations

import pytest

from tests.simulation.world import play

BLOCK = 25


@pytest.mark.parametrize("block", range(8))
def test_no_story_breaks_an_invariant(block: int) -> None:
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        play(seed)


def test_a_seed_replays_exactly() -> None:
    first, second = play(4711), play(4711)
    assert first.trace == second.trace
    assert first.machine.log == second.machine.log
    assert first.deaths and first.runs
