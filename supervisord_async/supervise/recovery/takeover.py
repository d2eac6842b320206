"""Taking over from a daemon that is gone: which processes live, and what became of the others.

There are two sources. The saved state says what was wanted and counted, up to the last save. /proc says what lives, and with
which settings it was started: every child has ``INSTANCE/NAME/RUN`` and a digest of its settings in its environment. Where they
differ, /proc is right about what lives, and the state about what is wanted. A process is recognised as ours by its identity
(PID, start time, boot) or by its tag, never by its PID alone. Anybody can forge a tag: so it makes no process the main process of
a run whose own one lives, or that must have another user.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress

import msgspec
from msgspec import structs
from msgspec.structs import replace

from supervisord_async.config.model import Program
from supervisord_async.core.state import Cause, Snapshot, State
from supervisord_async.errors import SpawnError
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.recovery import ending, persist
from supervisord_async.supervise.recovery.persist import SavedProcess, SavedState
from supervisord_async.system.credentials import Credentials
from supervisord_async.system.identity import Identity, began, is_alive, is_same_boot
from supervisord_async.system.tags import Tagged, mains

_log = logging.getLogger("asupd")

#: States in which a run has, or may have, a process.
LIVE = frozenset({State.STARTING, State.RUNNING, State.STOPPING, State.UNKNOWN})


class Inherited(msgspec.Struct, frozen=True):
    """What is known of one process of the former daemon."""

    name: str
    snapshot: Snapshot
    main: Identity | None  #: the living main process of ``snapshot.run``; None: it is gone, or there was none
    saved: SavedProcess | None  #: None: it was found by its tag alone
    settings: str = ""  #: digest of the settings that ``main`` was started with; "": not known
    stray_runs: tuple[int, ...] = ()  #: runs that are over, but of which something lives
    by_reexec: bool = False  #: it comes from this very process, before a re-exec
    watched_since_ns: int | None = None  #: later changes of its watched files are still to be acted on (since 1970, as files have it)
    ending: bool = False  #: all that lives was signalled to stop, see :mod:`.ending`

    @property
    def begins_anew(self) -> bool:
        """Whether it starts by ``autostart``, as under a first daemon: if it is not wanted up, and its cause is one of these.

        * None: it was never started (``autostart`` may be new), or all that was known of it is lost and only leftovers live.
        * ``daemon_stop``: it was stopped with the daemon, which was killed before everything was down.
        * ``config_changed``: it was stopped because the file did not list it for a while.
        """
        if self.snapshot.wanted:
            return False
        return self.snapshot.cause in (None, Cause.CONFIG_CHANGED) or (not self.by_reexec and self.snapshot.cause is Cause.DAEMON_STOP)


async def without_impostors(
    living: list[Tagged],
    programs: Mapping[str, Program],
    look_up: Callable[[str | None, str | None], Awaitable[Credentials | None]],
) -> list[Tagged]:
    """``living``, without leadership for processes whose tag may be forged, as their user is not the one that we spawn the program as.

    Such a process is killed as a leftover of the run, unless it is known by its identity. ``look_up`` returns a program's
    credentials; if it raises SpawnError, the user is not known, and every process is believed.
    """
    ours = (None, os.geteuid(), 0)  # root need not forge anything; and what became root by sudo must not be started a second time
    users: dict[str, int | None] = {}
    for name in {each.name for each in living if each.is_leader and each.uid not in ours}:
        program = programs.get(name.partition(":")[0])
        with suppress(SpawnError):
            who = await look_up(program.user, program.group_name) if program is not None else None
            users[name] = who.uid if who is not None else None
    return [replace(each, is_leader=False) if each.uid not in (*ours, users.get(each.name, each.uid)) else each for each in living]


def reconcile(saved: SavedState | None, living: Iterable[Tagged], boot_id: str, *, by_reexec: bool = False) -> dict[str, Inherited]:
    """Combine the two sources, by process name; pure, but for the clock. A state of another boot is ignored."""
    slots: dict[str, Inherited] = {}
    of_this_boot = saved is not None and is_same_boot(saved.boot_id, boot_id)
    records = {process.name: process for process in saved.processes} if saved is not None and of_this_boot else {}
    by_name: dict[str, list[Tagged]] = {}
    for process in living:
        by_name.setdefault(process.name, []).append(process)
    for name in records.keys() | by_name.keys():
        found = by_name.get(name, [])
        slot = _slot(name, records.get(name), found, boot_id)
        alive = slot.snapshot.run if slot.main is not None else None
        strays = tuple(sorted({process.run for process in found} - {alive}))
        since_ns = _watched_since(slot.snapshot, saved) if saved is not None and alive is not None else None
        slots[name] = replace(slot, settings=_settings(slot, found), stray_runs=strays, by_reexec=by_reexec, watched_since_ns=since_ns)
    return slots


def take_note_of_ending(run_dir: str, saved: SavedState | None) -> SavedState | None:
    """After an ending was begun: ``saved`` with what lived as STOPPING. That is saved, and the mark of the ending removed. Blocks."""
    _log.warning("the previous daemon's programs were being ended: those still alive are stopped, then all start afresh")
    if saved is not None:
        saved = _told_to_end(saved, time.monotonic())
        try:
            persist.save(run_dir, saved)
        except OSError as error:
            _log.warning("cannot save the state in %s yet: %s", run_dir, error.strerror)
    ending.finish(run_dir)
    return saved


def _told_to_end(saved: SavedState, now: float) -> SavedState:
    """``saved``, with what lived as STOPPING with the daemon since ``now`` (monotonic): all were signalled to stop."""

    def told(process: SavedProcess) -> SavedProcess:
        if not process.snapshot.wanted or process.snapshot.state not in LIVE:
            return process
        return replace(process, snapshot=_stopping(process.snapshot, now))

    return replace(saved, processes=tuple(told(process) for process in saved.processes))


def finish_ending(slots: dict[str, Inherited], now: float) -> dict[str, Inherited]:
    """``slots``, with what lives to be stopped once more, its grace period counted from ``now``, and then started by ``autostart``."""

    def told(slot: Inherited) -> Inherited:
        lives = slot.main is not None and slot.snapshot.wanted
        return replace(slot, ending=True, snapshot=_stopping(slot.snapshot, now) if lives else slot.snapshot)

    return {name: told(slot) for name, slot in slots.items()}


def _stopping(snapshot: Snapshot, now: float) -> Snapshot:
    return structs.replace(snapshot, state=State.STOPPING, since=now, wanted=False, cause=Cause.DAEMON_STOP, detail="", kills=0, restarts=0)


def holders(slots: dict[str, Inherited]) -> dict[str, list[int]]:
    """The PIDs of the living main processes, by program."""
    found: dict[str, list[int]] = {}
    for slot in slots.values():
        if slot.main is not None:
            found.setdefault(slot.name.partition(":")[0], []).append(slot.main.pid)
    return found


def _slot(name: str, record: SavedProcess | None, found: list[Tagged], boot_id: str) -> Inherited:
    newest = max(mains(found).values(), key=lambda process: process.run, default=None)
    if record is None:
        if newest is None:  # only descendants of a run that is over
            return Inherited(name, Snapshot(run=max(process.run for process in found)), None, None)
        fresh = Snapshot(state=State.UNKNOWN, wanted=True, run=newest.run, ended_run=newest.run - 1, cause=Cause.ADOPTED)
        fresh = structs.replace(fresh, run_since=began(newest.identity))
        return Inherited(name, fresh, newest.identity, None)
    snapshot = record.snapshot
    known = Identity(snapshot.pid, record.start_ticks, boot_id) if snapshot.pid is not None else None
    if known is not None and is_alive(known):  # while it lives there is no later run, whatever carries the tag of one
        return Inherited(name, snapshot, known, record)
    if newest is not None and newest.run > snapshot.run:  # it was spawned after the last save
        later = structs.replace(snapshot, state=State.UNKNOWN, wanted=True, run=newest.run, ended_run=newest.run - 1, pid=None)
        later = structs.replace(later, run_since=began(newest.identity))
        return Inherited(name, later, newest.identity, record)
    if known is not None:
        return Inherited(name, snapshot, known, record)
    in_flight = snapshot.state in LIVE and snapshot.ended_run != snapshot.run
    main = newest.identity if newest is not None and newest.run == snapshot.run and in_flight else None
    if main is not None and snapshot.state is State.STARTING:  # it has a process, which status shows before it is taken over
        snapshot = structs.replace(snapshot, pid=main.pid)
    return Inherited(name, snapshot, main, record)


def _watched_since(snapshot: Snapshot, saved: SavedState) -> int | None:
    """Since when a living run's files count as changed: what is older than the run, or was acted on, does not; None: not known."""
    if not saved.watched_until_ns:
        return None
    return max(saved.watched_until_ns, time.time_ns() - round((time.monotonic() - snapshot.run_since) * 1e9))


def _settings(slot: Inherited, found: Iterable[Tagged]) -> str:
    """The digest in the main process's environment; without one, the saved state's, if that is of this run and not an earlier one."""
    said = next((process.settings for process in found if process.identity == slot.main), "")
    saved = slot.saved
    return said or (saved.settings if saved is not None and saved.snapshot.run == slot.snapshot.run else "")


def tell_adopted(bus: Bus, name: str, found: Snapshot, pid: int, now: float) -> None:
    """Publish that the run of ``found`` was adopted. Its state may be unchanged, so that there is no other record of it."""
    message = f"run {found.run} was found alive, pid {pid}, and taken over from an earlier daemon"
    data = {"pid": pid, "uptime_seconds": round(now - found.run_since, 3)}
    if found.state is State.RUNNING:
        data["running_seconds"] = round(now - found.since, 3)
    bus.publish("adopted", name=name, run=found.run, cause=str(Cause.ADOPTED), message=message, data=data)
