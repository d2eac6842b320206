"""Whether one process belongs to a run: by descent, session or tag, without looking at all processes."""

from __future__ import annotations

import os

from supervisord_async.system import process_table, procfs
from supervisord_async.system.identity import Identity, of

#: The longest chain of parents that is followed.
_GENERATIONS = 256


def is_of_run(pid: int, main: Identity, session: int, tag: str) -> bool:
    """True if ``pid`` descends from ``main``, is in the run's session, or is an orphan of the run that came to us. A zombie counts too.

    A tag alone proves nothing, since anybody can put it into an environment: it counts only for what became our child.
    """
    process = procfs.stat(pid)
    if process is None or (process.start_ticks < main.start_ticks and pid != main.pid):
        return False
    leader = procfs.stat(session)  # the session's number may have been reused
    session_is_ours = leader is None or leader.start_ticks <= main.start_ticks
    ancestor: procfs.Stat | None = process
    for _ in range(_GENERATIONS):
        if ancestor is None or ancestor.pid <= 1:
            break
        if of(ancestor) == main or (session_is_ours and ancestor.session == session):
            return True
        if ancestor.parent == os.getpid():
            return process_table.tag_of(ancestor) == tag
        ancestor = procfs.stat(ancestor.parent)
    return False
