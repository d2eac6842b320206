"""The one way into a process's task."""

from __future__ import annotations

from collections import deque

import anyio

from supervisord_async.core.inputs import Input, News
from supervisord_async.errors import BusyError

#: Requests that may wait for one process. News of a run is bounded by nature and never refused.
REQUEST_LIMIT = 256


class Mailbox:
    """Inputs in the order in which they came."""

    def __init__(self) -> None:
        self._inputs: deque[Input] = deque()
        self._arrived: anyio.Event | None = None

    def post(self, input_: Input) -> None:
        """``input_`` will be received; raises BusyError for a request when too many wait already."""
        if len(self._inputs) >= REQUEST_LIMIT and not isinstance(input_, News):
            raise BusyError(f"cannot take the request: {len(self._inputs)} others wait for this process already")
        self._inputs.append(input_)
        self.wake()

    def wake(self) -> None:
        """:meth:`wait` returns, with or without an input."""
        if self._arrived is not None:
            self._arrived.set()

    def receive_nowait(self) -> Input | None:
        """The oldest input, None where there is none."""
        return self._inputs.popleft() if self._inputs else None

    async def wait(self) -> None:
        """Returns when an input is there, or after :meth:`wake`."""
        if not self._inputs:
            self._arrived = anyio.Event()
            try:
                await self._arrived.wait()
            finally:
                self._arrived = None
