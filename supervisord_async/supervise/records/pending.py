"""The unpublished changes of one process: noted when they are decided on, and published once their effects have begun."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from supervisord_async.core.policy import Policy
from supervisord_async.core.state import Snapshot
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.records.narrate import records_of
from supervisord_async.system.child import Ended


class Change(NamedTuple):
    """A change of the snapshot, with all that its records will need."""

    before: Snapshot
    after: Snapshot
    policy: Policy
    at: float  #: monotonic
    ended: Ended | None  #: how the last run ended


class PendingChanges:
    """The changes of one process that are not published yet."""

    __slots__ = ("_bus", "_fail", "_name", "changes")

    def __init__(self, name: str, bus: Bus, fail: Callable[[Exception], None]) -> None:
        """``name`` is the process's; ``fail`` is called with an exception of :meth:`publish_soon`."""
        self._name = name
        self._bus = bus
        self._fail = fail
        self.changes: tuple[Change, ...] = ()  #: the driver appends to it

    def publish_soon(self) -> None:
        """``changes`` will be published, see :meth:`.Bus.publish_soon`."""
        changes, self.changes = self.changes, ()
        if changes:
            self._bus.publish_soon(self._publish_or_fail, changes)

    def publish_now(self) -> None:
        """``changes`` are published; exceptions are raised."""
        changes, self.changes = self.changes, ()
        self._publish(changes, None)

    def _publish_or_fail(self, changes: tuple[Change, ...], wall_time: float) -> None:
        try:
            self._publish(changes, wall_time)
        except Exception as error:
            self._fail(error)

    def _publish(self, changes: tuple[Change, ...], wall_time: float | None) -> None:
        for before, after, policy, at, ended in changes:
            for type_, fields in records_of(self._name, before, after, policy, at):
                if type_ == "state" and "exit" in fields["data"] and ended is not None:
                    fields["data"] |= ended.figures()
                self._bus.publish(type_, at=wall_time, **fields)
