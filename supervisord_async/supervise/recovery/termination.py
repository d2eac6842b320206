"""Ending all processes of a daemon that is gone, each as its program's ``stop`` settings say.

The dead daemon's saved state has the signal, grace period and scope of every program for which these are not the defaults; without
it every program gets TERM and ten seconds. ``stop.command`` is not run, as it may depend on the daemon. Nothing here waits, and next
to nothing is imported: the guardian is small, and the code on the disk may have changed by the time it acts.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from supervisord_async.system import cgroups
from supervisord_async.system.identity import Identity
from supervisord_async.system.pidfd import send_signal
from supervisord_async.system.tags import Tagged, mains

#: The files of the saved state, the newest first.
STATE_NAMES = ("state.json", "state.json.previous")


class StopSettings(NamedTuple):
    """How a program is stopped: ``stop.signal``, ``stop.grace_period`` and ``stop.scope``."""

    signal: int = 15
    grace_seconds: float = 10.0
    scope: str = "tree"


DEFAULTS = StopSettings()

_Audience: TypeAlias = tuple[str, int, bool]  #: process name, run, and whether only the main process is meant, not all of the run


def stop_settings(run_dir: str) -> dict[str, StopSettings]:
    """Those that are not :data:`DEFAULTS`, by program, as the last daemon of ``run_dir`` saved them; empty if no state can be read."""
    for state in _states(run_dir):
        try:
            found = state["manners"]  # so is the field called in the file
            return {program: StopSettings(int(signum), float(grace), str(scope)) for program, (signum, grace, scope) in found.items()}
        except (LookupError, ValueError, TypeError, AttributeError):
            continue  # damaged, or by a version that saved none: try the other file
    return {}


def file_of(run_dir: str) -> str | None:
    """The real path of the configuration of the last daemon of ``run_dir``; None where it is not known."""
    return next((file for state in _states(run_dir) if isinstance(file := state.get("file"), str)), None)


def _states(run_dir: str) -> Iterator[dict[str, Any]]:
    """The states that the last daemon saved, the newest first; files that are missing or unreadable are skipped."""
    for name in STATE_NAMES:
        try:
            with open(os.open(os.path.join(run_dir, name), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
                state = json.loads(file.read().partition(b"\n")[2])
        except (OSError, ValueError):
            continue
        if isinstance(state, dict):
            yield state


class Termination:
    """Stops all processes of ``instance``, and kills those that outlive their grace period, in as many rounds as that takes.

    Arguments:
        others: the settings that are not :data:`DEFAULTS`, by program.
        grace_seconds: one grace period for all; None: each program's own.

    Processes that we may not signal are skipped; the caller finds them among the living.
    """

    def __init__(self, instance: str, others: Mapping[str, StopSettings], grace_seconds: float | None) -> None:
        self._instance, self._others, self._grace_seconds = instance, others, grace_seconds
        self._begun = time.monotonic()
        self._signalled: set[_Audience] = set()
        self._mains: dict[tuple[str, int], Identity] = {}  # by name and run, as first seen: survivors do not become main processes

    def overdue_seconds(self, living: list[Tagged]) -> float:
        """The seconds since the last grace period among ``living`` ran out; negative while one still runs."""
        return time.monotonic() - self._begun - max((self._grace(each) for each in living), default=0.0)

    def advance(self, living: list[Tagged]) -> None:
        """One round: kill those of ``living`` whose grace period is over; send the others their stop signal, each run once.

        Like the daemon, this does not signal what a run starts after its stop signal: that belongs to its way of ending.
        """
        passed = time.monotonic() - self._begun
        late = [each for each in living if passed >= self._grace(each)]
        if late:
            self._kill_cgroups({f"{self._instance}/{each.name}/{each.run}" for each in late})
        for each in late:
            self._send(each, signal.SIGKILL)
        for audience in self._audiences(living).items():
            self._signal_once(*audience)

    def _audiences(self, living: list[Tagged]) -> dict[_Audience, list[Tagged]]:
        """Those of each run to signal: with ``scope: main`` and ``mixed`` the main process alone, as long as it lives."""
        for run, process in mains(living).items():
            self._mains.setdefault(run, process.identity)
        alive = {each.identity for each in living}
        found: dict[_Audience, list[Tagged]] = {}
        for each in living:
            main = self._mains.get((each.name, each.run))
            alone = self._settings_of(each).scope != "tree" and main in alive
            if each.identity == main or not alone:
                found.setdefault((each.name, each.run, alone), []).append(each)
        return found

    def _signal_once(self, audience: _Audience, members: list[Tagged]) -> None:
        if audience in self._signalled:
            return
        self._signalled.add(audience)
        for each in members:
            if self._send(each, self._settings_of(each).signal):
                self._send(each, signal.SIGCONT)

    def _send(self, each: Tagged, signum: int) -> bool:
        try:
            return send_signal(each.identity, signum)
        except PermissionError:
            return False

    def _settings_of(self, each: Tagged) -> StopSettings:
        return self._others.get(each.name.partition(":")[0], DEFAULTS)

    def _grace(self, each: Tagged) -> float:
        return self._settings_of(each).grace_seconds if self._grace_seconds is None else self._grace_seconds

    def _kill_cgroups(self, late: set[str]) -> None:
        for tag, cgroup in cgroups.of_instance(self._instance).items():
            if tag in late:
                try:
                    cgroup.kill()
                except OSError:  # we may not; the caller reports what lives on
                    continue
