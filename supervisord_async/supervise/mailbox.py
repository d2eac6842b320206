"""The one way into a process's driver, and what calls it."""

from __future__ import annotations

from collections.abc import Callable

from supervisord_async.core.inputs import Input, News
from supervisord_async.errors import BusyError
from supervisord_async.system.alarm import Alarm

#: Requests that may wait for one process. News of a run is bounded by nature and never refused.
REQUEST_LIMIT = 256


class Mailbox:
    """Inputs in the order in which they came."""

    __slots__ = ("_alarm", "_inputs")

    def __init__(self) -> None:
        self._inputs: tuple[Input, ...] = ()  # short, and mostly empty
        self._alarm: Alarm | None = None  # while it is open

    def open(self, callback: Callable[[], None]) -> None:
        """From now on ``callback`` is called at the loop's turn after each :meth:`post` and :meth:`wake`, and at each time set."""
        self._alarm = Alarm(callback)
        self.wake()

    def close(self) -> None:
        """Nobody is called any more."""
        if self._alarm is not None:
            self._alarm.stop()
            self._alarm = None

    def post(self, input_: Input) -> None:
        """``input_`` will be received; raises BusyError for a request when too many wait already."""
        if len(self._inputs) >= REQUEST_LIMIT and not isinstance(input_, News):
            raise BusyError(f"cannot take the request: {len(self._inputs)} others wait for this process already")
        self._inputs += (input_,)
        self.wake()

    def wake(self) -> None:
        """The receiver is called, with or without an input."""
        if self._alarm is not None:
            self._alarm.ring()

    def wake_at(self, at: float | None) -> None:
        """The receiver is called when the loop's clock says ``at``, and at no time that was set before; None: at none."""
        if self._alarm is not None:
            self._alarm.set(at)

    def holds(self, kind: type[Input]) -> bool:
        """Whether one of that kind waits."""
        return any(isinstance(input_, kind) for input_ in self._inputs)

    def receive_nowait(self) -> Input | None:
        """The oldest input, None where there is none."""
        if not self._inputs:
            return None
        oldest, *later = self._inputs
        self._inputs = tuple(later)
        return oldest
