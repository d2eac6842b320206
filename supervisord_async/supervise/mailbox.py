"""The queue of inputs to a process's driver, which also calls the driver when an input or a deadline has come."""

from __future__ import annotations

from collections.abc import Callable

from supervisord_async.core.inputs import Input, News
from supervisord_async.errors import BusyError
from supervisord_async.system.alarm import Alarm

#: How many requests may wait for one process. News of a run is never refused: a run makes only so much of it.
REQUEST_LIMIT = 256


class Mailbox:
    """Inputs, received in the order in which they were posted."""

    __slots__ = ("_alarm", "_inputs")

    def __init__(self) -> None:
        self._inputs: tuple[Input, ...] = ()  # short, and mostly empty
        self._alarm: Alarm | None = None  # None while closed

    def open(self, callback: Callable[[], None]) -> None:
        """From now on ``callback`` is called at the loop's turn after a :meth:`post` or :meth:`wake`, and when :meth:`wake_at` is due."""
        self._alarm = Alarm(callback)
        self.wake()

    def close(self) -> None:
        """The callback is not called any more."""
        if self._alarm is not None:
            self._alarm.stop()
            self._alarm = None

    def post(self, input_: Input) -> None:
        """``input_`` is queued. Raises BusyError for a request when :data:`REQUEST_LIMIT` inputs wait already."""
        if len(self._inputs) >= REQUEST_LIMIT and not isinstance(input_, News):
            raise BusyError(f"cannot take the request: {len(self._inputs)} others wait for this process already")
        self._inputs += (input_,)
        self.wake()

    def wake(self) -> None:
        """The callback is called at the loop's next turn, whether or not an input waits."""
        if self._alarm is not None:
            self._alarm.ring()

    def wake_at(self, at: float | None) -> None:
        """The callback is called when the loop's clock reaches ``at``, which replaces any time set before; None only cancels that."""
        if self._alarm is not None:
            self._alarm.set(at)

    def holds(self, kind: type[Input]) -> bool:
        """Whether an input of that kind waits."""
        return any(isinstance(input_, kind) for input_ in self._inputs)

    def receive_nowait(self) -> Input | None:
        """Remove and return the oldest input; None if there is none."""
        if not self._inputs:
            return None
        oldest, *later = self._inputs
        self._inputs = tuple(later)
        return oldest
