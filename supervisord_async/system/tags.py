"""Who is of one run_dir's daemon: every process that descends from a child of it, by the tag in its environment or its cgroup.

What is missed, where runs have no cgroups: a process that replaced its environment (``env -i``), and one of another user
where we may not look.
"""

from __future__ import annotations

import msgspec

from supervisord_async.system import cgroups, procfs
from supervisord_async.system.identity import Identity, of
from supervisord_async.wire import ENV_TAG


class Tagged(msgspec.Struct, frozen=True):
    """A living process of the tag ``INSTANCE/NAME/RUN``."""

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
    found += _confined(instance, {each.identity.pid for each in found})
    return sorted(found, key=lambda each: each.identity.start_ticks)


def _confined(instance: str, known: set[int]) -> list[Tagged]:
    """Those in the cgroups of its runs but ``known``, which say who they are. The oldest of a run is its main process, if it lives."""
    found = []
    for tag, cgroup in cgroups.of_instance(instance).items():
        name, _, run = tag.partition("/")[2].rpartition("/")
        members = [each for each in map(procfs.stat, cgroup.pids()) if each is not None and not each.dead]
        oldest = min(members, key=lambda each: (each.start_ticks, each.pid), default=None)
        strangers = [each for each in members if each.pid not in known]
        found += [Tagged(of(each), name, int(run), each is oldest and each.session == each.pid) for each in strangers]
    return found
