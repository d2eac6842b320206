"""While a log cannot be written: when the next attempt is due, how often the pipe is looked at, and what is told."""

from __future__ import annotations

import errno

import pytest

from supervisord_async.logs.outage import POLL_FIRST_SECONDS, POLL_LAST_SECONDS, RETRY_FIRST_SECONDS, RETRY_LAST_SECONDS, Outage

FULL = OSError(errno.ENOSPC, "No space left on device")


def test_attempts_become_rarer_up_to_a_limit() -> None:
    now, pauses = 100.0, []
    outage = Outage(FULL, now)
    for _ in range(8):
        began = now
        while not outage.is_retry_due(now):
            outage.looked()
            now += outage.pause(now)
        pauses.append(round(now - began, 6))
        outage.failed_again(now, progress=False)
    assert pauses[:3] == [RETRY_FIRST_SECONDS, 2 * RETRY_FIRST_SECONDS, 4 * RETRY_FIRST_SECONDS]
    assert pauses[-1] == RETRY_LAST_SECONDS


def test_what_was_written_in_between_makes_the_next_attempt_early_again() -> None:
    outage = Outage(FULL, 0.0)
    for _ in range(5):
        outage.failed_again(10.0, progress=False)
    outage.failed_again(20.0, progress=True)
    assert not outage.is_retry_due(20.0)
    assert outage.is_retry_due(20.0 + RETRY_FIRST_SECONDS)


def test_after_a_change_of_settings_an_attempt_is_due_at_once() -> None:
    outage = Outage(FULL, 50.0)
    outage.failed_again(50.0, progress=False)
    outage.hasten()
    assert outage.is_retry_due(50.0)
    assert outage.pause(50.0) == 0.0


def test_a_pipe_that_is_not_full_is_looked_at_less_often() -> None:
    outage = Outage(FULL, 0.0)
    for _ in range(10):
        outage.failed_again(0.0, progress=False)  # so that no attempt comes before the looks
    looks = []
    for _ in range(8):
        looks.append(outage.pause(0.0))
        outage.looked()
    assert looks[:3] == [POLL_FIRST_SECONDS, 2 * POLL_FIRST_SECONDS, 4 * POLL_FIRST_SECONDS]
    assert looks[-1] == POLL_LAST_SECONDS
    outage.made_room(1, 0)
    assert outage.pause(0.0) == POLL_FIRST_SECONDS  # it fills fast
    outage.made_room(0, 0)
    assert outage.pause(0.0) == POLL_LAST_SECONDS


@pytest.mark.parametrize(("kind", "words"), [("written again", "is written again"), ("given up", "is not written any more")])
def test_its_end_says_what_was_lost_in_all(kind: str, words: str) -> None:
    outage = Outage(FULL, 0.0)
    begin = outage.report("begin", "web", "stdout", "/logs/web.log")
    assert (begin.kind, begin.bytes_lost, begin.errno) == ("begin", 0, errno.ENOSPC)
    assert "cannot write /logs/web.log, the log of web (stdout): No space left on device (free some space" in begin.message
    nothing = outage.report("written again", "web", "stdout", "/logs/web.log")
    assert "nothing was lost" in nothing.message
    outage.made_room(100, 3)
    outage.lost(20, 1)
    end = outage.report(kind, "web", "stdout", "/logs/web.log")  # type: ignore[arg-type]
    assert (end.kind, end.bytes_lost, end.lines_lost) == ("end", 120, 4)
    assert end.message == f"/logs/web.log, the log of web (stdout), {words}; 120 bytes in 4 lines were lost (No space left on device)"
