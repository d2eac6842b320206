"""Who carries our tag: every process that descends from a child of one run_dir's daemon, found by its environment.

What is missed: a process that replaced its environment (``env -i``), and one of another user where we may not look.
"""

from __future__ import annotations

import msgspec

from supervisord_async.system import procfs
from supervisord_async.system.identity import Identity, of
from supervisord_async.wire import ENV_TAG


class Tagged(msgspec.Struct, frozen=True):
    """A living process that carries a tag ``INSTANCE/NAME/RUN``."""

    identity: Identity
    name: str
    run: int
    is_leader: bool  #: of a session, as the main process of every run is


def living(instance: str) -> list[Tagged]:
    """The living processes of ``instance``, oldest first; one pass over /proc, to be made off the loop."""
    found = []
    for pid in procfs.pids():
        tag = procfs.environment_value(pid, ENV_TAG)
        if tag is None or not tag.startswith(f"{instance}/"):
            continue
        name, _, run = tag.removeprefix(f"{instance}/").rpartition("/")
        process = procfs.stat(pid)
        if process is not None and not process.dead and run.isdecimal():
            found.append(Tagged(of(process), name, int(run), process.session == pid))
    return sorted(found, key=lambda each: each.identity.start_ticks)
