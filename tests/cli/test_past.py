"""What ``history`` says of an end: how and why, each once."""

from __future__ import annotations

import pytest

from supervisord_async.cli.verbs.past import _end
from supervisord_async.client import Run

AT = "2026-11-21T12:00:00.000Z"
TERM = {"signal": "SIGTERM", "core": False}
KILL = {"signal": "SIGKILL", "core": False}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "still running"),
        ({"end_cause": "operator", "end_detail": "stopping (operator)"}, "stopping; operator"),
        (
            {"ended_at": AT, "exit_status": {"code": 3}, "end_cause": "exited",
             "end_detail": "exited with 3 after 0.2 s; restart 6 in 4.2 s"},
            "exited with 3; restart 6 in 4.2 s",
        ),
        (
            {"ended_at": AT, "exit_status": TERM, "end_cause": "heartbeat_missed",
             "end_detail": "stopping (no heartbeat for 3.0 s (timeout 3 s))"},
            "killed by SIGTERM; no heartbeat for 3.0 s (timeout 3 s)",
        ),
        (
            {"ended_at": AT, "exit_status": TERM, "end_cause": "operator", "end_detail": "stopping (operator)"},
            "killed by SIGTERM; operator",
        ),
        (
            {"ended_at": AT, "end_cause": "spawn_failed", "end_detail": "exec: /no/such: No such file or directory; restart 6 in 14.8 s"},
            "not started; exec: /no/such: No such file or directory; restart 6 in 14.8 s",
        ),
        ({"ended_at": AT, "exit_status": {"code": 0}, "end_cause": "exited", "end_detail": "exited with 0; not restarted"},
         "exited with 0; not restarted"),
        ({"ended_at": AT, "exit_status": {"code": 3}, "end_cause": "restart_limit",
          "end_detail": "restart limit of 2 reached; last: exited with 3"},
         "exited with 3; restart limit of 2 reached"),
        ({"ended_at": AT, "exit_status": KILL, "end_cause": "exited",
          "end_detail": "killed by SIGKILL: the kernel was out of memory, up 1.1 s; restart 3 in 2.2 s"},
         "killed by SIGKILL: the kernel was out of memory; restart 3 in 2.2 s"),
        ({"ended_at": AT, "exit_status": KILL, "end_cause": "restart_limit",
          "end_detail": "restart limit of 1 reached; last: killed by SIGKILL: the kernel was out of memory"},
         "killed by SIGKILL: the kernel was out of memory; restart limit of 1 reached"),
        ({"ended_at": AT, "exit_status": TERM, "end_cause": "restart_limit",
          "end_detail": "restart limit of 1 reached; last: no heartbeat for 3.0 s"},
         "killed by SIGTERM; no heartbeat for 3.0 s; restart limit of 1 reached"),
        ({"ended_at": AT, "exit_status": {"unknown": True}, "end_cause": "exited", "end_detail": ""}, "ended, exit status unknown"),
    ],
)  # fmt: skip
def test_an_end_is_said_once(fields: dict[str, object], words: str) -> None:
    assert _end(Run(run=1, **fields)) == words  # type: ignore[arg-type]
