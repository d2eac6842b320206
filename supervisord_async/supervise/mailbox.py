"""The one way into a process's task."""

from __future__ import annotations

from collections.abc import Awaitable

from supervisord_async.core.inputs import Input, News
from supervisord_async.errors import BusyError
from supervisord_async.system.bell import Bell

#: Requests that may wait for one process. News of a run is bounded by nature and never refused.
REQUEST_LIMIT = 256


class Mailbox:
    """Inputs in the order in which they came."""

    __slots__ = ("_bell", "_inputs", "closed")

    def __init__(self) -> None:
        self.closed = False  #: nothing will be received any more
        self._inputs: list[Input] = []  # short: a deque would cost more than it saves
        self._bell = Bell()

    def post(self, input_: Input) -> None:
        """``input_`` will be received; raises BusyError for a request when too many wait already."""
        if len(self._inputs) >= REQUEST_LIMIT and not isinstance(input_, News):
            raise BusyError(f"cannot take the request: {len(self._inputs)} others wait for this process already")
        self._inputs.append(input_)
        self.wake()

    def wake(self) -> None:
        """:meth:`wait` returns, with or without an input."""
        self._bell.ring()

    def close(self) -> None:
        """Whoever receives is to end."""
        self.closed = True
        self.wake()

    def receive_nowait(self) -> Input | None:
        """The oldest input, None where there is none."""
        return self._inputs.pop(0) if self._inputs else None

    def wait(self, until: float | None) -> Awaitable[None]:
        """Over after the next :meth:`post` or :meth:`wake`, or when the loop's clock says ``until``. For when it is empty."""
        return self._bell.wait(until)
