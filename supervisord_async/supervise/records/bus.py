"""Numbered records, fanned out: the only way in which the rest of the daemon, and its clients, learn of a change.

Publishing never waits and never fails. A subscriber that does not keep up loses its oldest records and is told how
many; others are not affected. The last :data:`RING_RECORDS` are kept for clients that reconnect with a record's number.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import anyio

from supervisord_async.core.record import Record, RecordType
from supervisord_async.jsontext import spelt
from supervisord_async.system.alarm import Alarm

RING_RECORDS = 1024
SUBSCRIBER_RECORDS = 1024
#: While starts are under way, a change is published at most this much later.
LATE_SECONDS = 1.0
#: The pause between two checks whether starts are still under way.
CHECK_SECONDS = 0.001
#: How many changes are published in one turn of the loop; when late, more than the starts of one turn can add.
PUBLISHED_A_TURN, LATE_PUBLISHED_A_TURN = 32, 128

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Subscription:
    """An async iterator over records from now on; ``missed`` counts those that it lost by being too slow."""

    def __init__(self, limit: int) -> None:
        self.missed = 0
        self._queue: deque[Record] = deque(maxlen=limit)
        self._news = anyio.Event()
        self._closed = False

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Record:
        record = await self.receive()
        if record is None:
            raise StopAsyncIteration
        return record

    async def receive(self) -> Record | None:
        """The next record; None when the bus was closed and all was delivered."""
        while not self._queue:
            if self._closed:
                return None
            self._news = anyio.Event()
            await self._news.wait()
        return self._queue.popleft()

    def receive_nowait(self) -> Record | None:
        """The next record, if one is waiting; else None."""
        return self._queue.popleft() if self._queue else None

    async def wait_for_news(self, seconds: float) -> None:
        """Wait for a record, ``seconds`` at most, and drop all that have come: for those that look at the processes themselves."""
        with anyio.move_on_after(seconds):
            await self.receive()
        self._queue.clear()

    async def wait_for_names(self, seconds: float) -> set[str] | None:
        """Wait for a record, ``seconds`` at most; the processes that all that have come are about. None: anything may have changed."""
        with anyio.move_on_after(seconds):
            while not self._queue and not self._closed:
                self._news = anyio.Event()
                await self._news.wait()
        names = {record.name for record in self._queue}
        self._queue.clear()
        return {name for name in names if name is not None} if names and None not in names and not self.take_missed() else None

    def take_missed(self) -> int:
        """How many records were lost since the last call."""
        missed, self.missed = self.missed, 0
        return missed

    def _deliver(self, record: Record) -> None:
        if len(self._queue) == self._queue.maxlen:
            self.missed += 1
        self._queue.append(record)
        self._news.set()

    def _close(self) -> None:
        self._closed = True
        self._news.set()


class Bus:
    """Numbers records and hands them to listeners (called at once) and subscriptions (queued)."""

    def __init__(
        self, *, last_id: int = 0, wall_clock: Callable[[], float] = time.time, starting: Callable[[], bool] = lambda: False
    ) -> None:
        """Numbers continue from ``last_id``. While ``starting`` returns True, what is given to :meth:`publish_soon` is delayed."""
        self.last_id = last_id
        self._wall_clock = wall_clock
        self._starting = starting
        self._ring: deque[Record] = deque(maxlen=RING_RECORDS)
        self._subscriptions: set[Subscription] = set()
        self._listeners: list[Callable[[Record], None]] = []
        #: For each change: when it happened (monotonic, wall), the function that publishes it, and its argument.
        self._pending: deque[tuple[float, float, Callable[[Any, float], object], Any]] = deque()
        self._alarm = Alarm(self._publish_some)

    def publish_soon(self, publish: Callable[[T, float], object], what: T) -> None:
        """``publish``, which publishes records, will be called with ``what`` and the wall time of now.

        So the effects of a change begin before it is published. ``publish`` is called at the loop's next turn; or, while
        ``starting`` says that starts are under way, at most :data:`LATE_SECONDS` later; but always before another
        record is published or records are queried. To be called on the running loop; ``publish`` must not raise.
        """
        self._pending.append((time.monotonic(), self._wall_clock(), publish, what))
        self._alarm.ring()

    def catch_up(self) -> None:
        """Everything given to :meth:`publish_soon` is published."""
        self._publish_oldest(len(self._pending))

    def _publish_some(self) -> None:
        if not self._starting():
            self._publish_oldest(PUBLISHED_A_TURN)
        elif self._pending and self._pending[0][0] <= time.monotonic() - LATE_SECONDS:
            self._publish_oldest(LATE_PUBLISHED_A_TURN)
        if self._pending:
            if self._starting():
                self._alarm.set(asyncio.get_running_loop().time() + CHECK_SECONDS)
            else:
                self._alarm.ring()

    def _publish_oldest(self, count: int) -> None:
        """Publish the oldest ``count`` changes. The queue is empty meanwhile: else each :meth:`publish` would catch up, and recurse."""
        pending, self._pending = self._pending, deque()
        try:
            for _ in range(min(count, len(pending))):
                _, at, publish, what = pending.popleft()
                publish(what, at)
        finally:
            pending += self._pending
            self._pending = pending

    def publish(self, type_: RecordType, *, at: float | None = None, message: str = "", **fields: Any) -> Record:
        """Number a record, keep it, and hand it to all listeners and subscriptions; returns it.

        ``at``: when it happened, by the wall clock; None: now. ``message`` may contain any path, also one that is not valid UTF-8.
        """
        if self._pending:
            self.catch_up()
        self.last_id += 1
        record = Record(id=self.last_id, at=self._wall_clock() if at is None else at, type=type_, message=spelt(message), **fields)
        self._ring.append(record)
        for subscription in self._subscriptions:  # before the listeners, one of which may publish another record
            subscription._deliver(record)  # noqa: SLF001  the two are one mechanism
        for listener in self._listeners:
            try:
                listener(record)
            except Exception:  # a listener's bug must not reach the process that published
                _log.exception("a listener failed on record %d (%s)", record.id, record.type)
        return record

    def resume(self, last_id: int, records: Iterable[Record]) -> None:
        """Numbers continue from ``last_id``, and ``records``, the last ones before a re-exec, are kept for clients that reconnect."""
        self.last_id = last_id
        self._ring.extend(records)

    def listen(self, listener: Callable[[Record], None]) -> None:
        """Call ``listener`` with every record from now on, on the loop. It must not block.

        A record that it publishes overtakes this one on the way to the listeners after it.
        """
        self._listeners.append(listener)

    @contextmanager
    def subscribe(self, *, limit: int = SUBSCRIBER_RECORDS) -> Iterator[Subscription]:
        """A subscription from this moment on, which holds at most ``limit`` undelivered records."""
        self.catch_up()
        subscription = Subscription(limit)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def since(self, last_id: int) -> tuple[list[Record], bool]:
        """The kept records after ``last_id``, and whether that is all of them."""
        self.catch_up()
        records = [record for record in self._ring if record.id > last_id]
        oldest = self._ring[0].id if self._ring else self.last_id + 1
        return records, last_id + 1 >= oldest or last_id >= self.last_id

    def close(self) -> None:
        """Each subscription ends once it has delivered the records that it holds."""
        self.catch_up()
        for subscription in self._subscriptions:
            subscription._close()  # noqa: SLF001
