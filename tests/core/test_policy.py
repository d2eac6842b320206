"""Delays, limits and windows: the numbers."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from supervisord_async.core.policy import Policy, backoff_delay, limit_reached, within_window

JITTERS = st.sampled_from([0.0, 0.1, 0.5, 1.0])


@given(
    initial=st.floats(0.0, 3600.0),
    factor=st.floats(1.0, 10.0),
    maximum=st.floats(0.0, 86400.0),
    jitter=JITTERS,
    attempt=st.integers(0, 100_000),
    run=st.integers(1, 10**9),
)
def test_delay_is_the_formula_spread_by_jitter(
    initial: float, factor: float, maximum: float, jitter: float, attempt: int, run: int
) -> None:
    policy = Policy(backoff_initial_seconds=initial, backoff_factor=factor, backoff_max_seconds=maximum, backoff_jitter=jitter, seed="web")
    try:
        centre = min(maximum, initial * factor**attempt)
    except OverflowError:
        centre = maximum if initial else 0.0
    delay = backoff_delay(policy, attempt, run)
    assert math.isfinite(delay)
    assert centre * (1 - jitter) - 1e-9 <= delay <= centre * (1 + jitter) * (1 + 1e-9) + 1e-9


def test_delay_without_jitter_grows_to_its_cap() -> None:
    policy = Policy(backoff_jitter=0.0)
    assert [backoff_delay(policy, attempt, 1) for attempt in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def test_delay_is_the_same_for_the_same_run_and_differs_between_processes() -> None:
    web, worker = Policy(seed="web"), Policy(seed="worker")
    assert backoff_delay(web, 3, 4) == backoff_delay(web, 3, 4)
    delays = {backoff_delay(policy, 3, run) for policy in (web, worker) for run in range(50)}
    assert len(delays) > 90, "a herd that restarts together"


def test_a_factor_of_one_keeps_the_delay() -> None:
    policy = Policy(backoff_initial_seconds=30.0, backoff_factor=1.0, backoff_jitter=0.0)
    assert {backoff_delay(policy, attempt, 1) for attempt in range(100)} == {30.0}


@given(maximum=st.integers(0, 20), restarts=st.integers(0, 40))
def test_consecutive_limit_allows_exactly_so_many(maximum: int, restarts: int) -> None:
    assert limit_reached(Policy(max_restarts=maximum), restarts, (), 0.0) == (restarts >= maximum)


def test_no_limit_is_never_reached() -> None:
    assert not limit_reached(Policy(max_restarts=-1), 10**9, (), 0.0)
    assert not limit_reached(Policy(max_restarts=-1, within_seconds=1.0), 10**9, (0.0,) * 100, 0.0)


@given(times=st.lists(st.floats(0.0, 1000.0), max_size=30).map(sorted), within=st.floats(0.1, 500.0), maximum=st.integers(0, 5))
def test_window_counts_what_is_younger_than_it(times: list[float], within: float, maximum: int) -> None:
    policy = Policy(max_restarts=maximum, within_seconds=within)
    now = 1000.0
    kept = within_window(policy, tuple(times), now)
    assert list(kept) == [at for at in times if now - at < within]
    assert limit_reached(policy, 10**6, tuple(times), now) == (len(kept) >= maximum), "a window replaces the consecutive count"
