"""Finds the processes of one run_dir's daemon: all descendants of its children, by the tag in their environment or by their cgroup.

What is missed, if runs have no cgroups: a process that replaced its environment (``env -i``), and one of another user whose
environment we may not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec
from msgspec.structs import replace

from supervisord_async.system import cgroups, procfs
from supervisord_async.system.cgroups import Cgroup
from supervisord_async.system.identity import Identity, of
from supervisord_async.wire import ENV_SETTINGS, ENV_TAG, PROGRAM_NAME

#: What a daemon writes behind its instance: a process, or a command beside its run, and a number with no more digits than runs can need.
#: Any user can put anything else into an environment, and would have whoever reads it fail.
_OURS = re.compile(rf"(?P<name>(?=[^/])(?:{PROGRAM_NAME}(?::[0-9]{{1,5}})?)?(?:#[a-z_]+)?)/(?P<run>0|[1-9][0-9]{{0,14}})")
_DIGEST = re.compile("[0-9a-f]{16}(?:[0-9a-f]{4})?")


class Tagged(msgspec.Struct, frozen=True):
    """A living process with the tag ``INSTANCE/NAME/RUN``."""

    identity: Identity
    name: str
    run: int
    is_leader: bool  #: whether it leads a session, as the main process of every run does
    uid: int | None = None  #: the real user of a leader that is not in its run's cgroup, so that its tag may be forged; else None
    settings: str = ""  #: the digest, in its environment, of the settings that its run was started with; "" if there is none


def living(instance: str) -> list[Tagged]:
    """The living processes of ``instance``, oldest first; one pass over /proc and all cgroups, to be made off the loop."""
    return completed(marked(instance), cgroups.of_instance(instance))


def marked(instance: str) -> list[Tagged]:
    """The living processes of ``instance`` by their environment, in no order; one pass over /proc, to be made off the loop."""
    found = []
    for pid in procfs.pids():
        said = procfs.environment_values(pid, ENV_TAG, ENV_SETTINGS)
        if said is None or not said[0].startswith(f"{instance}/"):
            continue
        tag, settings = said
        ours = _OURS.fullmatch(tag, len(instance) + 1)
        process = procfs.stat(pid)
        if ours is not None and process is not None and not process.dead:
            known = settings if _DIGEST.fullmatch(settings) else ""
            found.append(Tagged(of(process), ours["name"], int(ours["run"]), process.session == pid, settings=known))
    return found


def completed(marked: Iterable[Tagged], runs: Mapping[str, Cgroup]) -> list[Tagged]:
    """``marked``, and the other processes in the cgroups of ``runs`` (by tag), oldest first."""
    found = list(marked)
    known = {each.identity.pid for each in found}
    homes: dict[int, str] = {}
    for tag, cgroup in runs.items():
        pids = cgroup.pids()
        homes.update(dict.fromkeys(pids, tag))
        if not pids <= known:
            found += _strangers(tag, pids, known)
    owned = [_with_owner(each, homes.get(each.identity.pid, "")) for each in found]
    return sorted(owned, key=lambda each: each.identity.start_ticks)


def mains(found: Iterable[Tagged]) -> dict[tuple[str, int], Tagged]:
    """The main process of each run, by name and number: the oldest session leader; the others started sessions of their own."""
    leaders = sorted((each for each in found if each.is_leader), key=lambda each: (each.identity.start_ticks, each.identity.pid))
    return {(each.name, each.run): each for each in reversed(leaders)}


def _with_owner(each: Tagged, home: str) -> Tagged:
    """``each``; with its user, if it is a leader only by its tag, and is not in its run's cgroup (``home`` is the tag of its cgroup)."""
    if not each.is_leader or home.partition("/")[2] == f"{each.name}/{each.run}":
        return each
    return replace(each, uid=procfs.real_uid(each.identity.pid))


def _strangers(tag: str, pids: set[int], known: set[int]) -> list[Tagged]:
    """Those of a run's ``pids`` that are not ``known`` by their environment. Only the oldest of all can be the main process."""
    name, _, run = tag.partition("/")[2].rpartition("/")
    members = [each for each in map(procfs.stat, pids) if each is not None and not each.dead]
    oldest = min(members, key=lambda each: (each.start_ticks, each.pid), default=None)
    return [Tagged(of(each), name, int(run), each is oldest and each.session == each.pid) for each in members if each.pid not in known]
