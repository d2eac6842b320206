"""Ending all processes of a daemon that is gone, each as its program's ``stop`` settings say.

The dead daemon's state has the signal, grace period and scope of programs where these are not the defaults; without it every program
gets TERM and ten seconds. ``stop.command`` is not run: it may need what only a daemon has. Nothing here waits, and next to nothing is
imported: the guardian is small, and the code on the disk may have changed by the time it acts.
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

#: Of the dead daemon's state, the newest first.
STATE_NAMES = ("state.json", "state.json.previous")


class Manner(NamedTuple):
    """How a program is stopped: ``stop.signal``, ``stop.grace_period`` and ``stop.scope``."""

    signal: int = 15
    grace_seconds: float = 10.0
    scope: str = "tree"


USUAL = Manner()

_Audience: TypeAlias = tuple[str, int, bool]  #: of a process's run, all that lives of it or its main process alone


def manners(run_dir: str) -> dict[str, Manner]:
    """Of programs where it is not :data:`USUAL`, as the last daemon of ``run_dir`` saved it; none where nothing can be read."""
    for state in _states(run_dir):
        try:
            return {program: Manner(int(signum), float(grace), str(scope)) for program, (signum, grace, scope) in state["manners"].items()}
        except (LookupError, ValueError, TypeError, AttributeError):
            continue  # of a daemon that saved none: the other one, or the usual manner
    return {}


def file_of(run_dir: str) -> str | None:
    """The configuration of the last daemon of ``run_dir``, by its real path; None where it is not known."""
    return next((file for state in _states(run_dir) if isinstance(file := state.get("file"), str)), None)


def _states(run_dir: str) -> Iterator[dict[str, Any]]:
    """What the last daemon saved, the newest first; what is not there or damaged is passed over."""
    for name in STATE_NAMES:
        try:
            with open(os.open(os.path.join(run_dir, name), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
                state = json.loads(file.read().partition(b"\n")[2])
        except (OSError, ValueError):
            continue
        if isinstance(state, dict):
            yield state


class Farewell:
    """All of ``instance`` is told to stop, and what outlives its grace period is killed, in as many rounds as that takes.

    ``grace_seconds`` is for all alike; None: each program's own. What we may not signal is left to the caller, who sees it live on.
    """

    def __init__(self, instance: str, others: Mapping[str, Manner], grace_seconds: float | None) -> None:
        self._instance, self._others, self._grace_seconds = instance, others, grace_seconds
        self._begun = time.monotonic()
        self._told: set[_Audience] = set()
        self._mains: dict[tuple[str, int], Identity] = {}  # by name and run, as first seen: who is left later does not become one

    def overdue_seconds(self, living: list[Tagged]) -> float:
        """For how long the last one of ``living`` should have been gone; below 0: it has time yet."""
        return time.monotonic() - self._begun - max((self._grace(each) for each in living), default=0.0)

    def tell(self, living: list[Tagged]) -> None:
        """Those of ``living`` whose grace period is over are killed; the others are told to stop, each run once.

        What a run starts after it was told belongs to its way of ending: like a daemon, this does not signal that.
        """
        passed = time.monotonic() - self._begun
        late = [each for each in living if passed >= self._grace(each)]
        if late:
            self._kill_cgroups({f"{self._instance}/{each.name}/{each.run}" for each in late})
        for each in late:
            self._send(each, signal.SIGKILL)
        for audience in self._audiences(living).items():
            self._tell_once(*audience)

    def _audiences(self, living: list[Tagged]) -> dict[_Audience, list[Tagged]]:
        """Those of each run who are meant: with ``scope: main`` and ``mixed`` the main process alone, as long as there is one."""
        for run, process in mains(living).items():
            self._mains.setdefault(run, process.identity)
        alive = {each.identity for each in living}
        found: dict[_Audience, list[Tagged]] = {}
        for each in living:
            main = self._mains.get((each.name, each.run))
            alone = self._manner(each).scope != "tree" and main in alive
            if each.identity == main or not alone:
                found.setdefault((each.name, each.run, alone), []).append(each)
        return found

    def _tell_once(self, audience: _Audience, members: list[Tagged]) -> None:
        if audience in self._told:
            return
        self._told.add(audience)
        for each in members:
            if self._send(each, self._manner(each).signal):
                self._send(each, signal.SIGCONT)

    def _send(self, each: Tagged, signum: int) -> bool:
        try:
            return send_signal(each.identity, signum)
        except PermissionError:
            return False

    def _manner(self, each: Tagged) -> Manner:
        return self._others.get(each.name.partition(":")[0], USUAL)

    def _grace(self, each: Tagged) -> float:
        return self._manner(each).grace_seconds if self._grace_seconds is None else self._grace_seconds

    def _kill_cgroups(self, late: set[str]) -> None:
        for tag, cgroup in cgroups.of_instance(self._instance).items():
            if tag in late:
                try:
                    cgroup.kill()
                except OSError:  # we may not kill it; what lives on is reported by the caller
                    continue
