"""Server-sent events: past records from memory or history, then new ones; the client is told about every gap.

The record numbers of one daemon are contiguous, so a gap in them is exactly what a slow client lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import anyio
import msgspec

from supervisord_async.control.view import event_view
from supervisord_async.core.record import Record
from supervisord_async.jsontext import json_bytes

if TYPE_CHECKING:
    from supervisord_async.control.stream import SendChunk
    from supervisord_async.supervise.records.bus import Bus, Subscription
    from supervisord_async.supervise.records.history import History

#: A silent stream sends a comment this often.
HEARTBEAT_SECONDS = 15.0
#: New records are gathered for this long after each chunk, so that a thousand records a second become twenty chunks.
GATHER_SECONDS = 0.05
#: Records in one query of the history, and in one chunk.
PAGE_RECORDS = 500
#: Encoded records that are kept, shared by all subscribers.
ENCODED_RECORDS = 4096

Choice = Callable[[Record], bool]


class Encoder:
    """Encodes records as server-sent events, each once however many subscribers there are."""

    def __init__(self) -> None:
        self._known: dict[int, bytes] = {}

    def __call__(self, record: Record) -> bytes:
        """The event for ``record``."""
        event = self._known.get(record.id)
        if event is None:
            if len(self._known) >= ENCODED_RECORDS:
                self._known.clear()
            event = b"id: %d\nevent: %s\ndata: %s\n\n" % (record.id, record.type.encode(), json_bytes(event_view(record)))
            self._known[record.id] = event
        return event


class Events:
    """One daemon's event streams."""

    def __init__(self, bus: Bus, history: History | None) -> None:
        self.bus, self.history = bus, history
        #: Numbers up to this one are from earlier daemons, and may have gaps.
        self.first_id = next((record.id - 1 for record in bus.since(0)[0]), bus.last_id)
        self._encode = Encoder()

    async def follow(self, send: SendChunk, chosen: Choice, *, after: int | None = None) -> None:
        """Send the records after number ``after``, then new ones, until cancelled or the daemon ends."""
        with self.bus.subscribe() as news:
            position = self.bus.last_id
            await send(b"retry: 1000\n\n")
            if after is not None:
                position = await self._send_past(send, chosen, after)
            await self._send_news(send, chosen, news, position)

    async def past(self, chosen: Choice, *, after: int | None, last: int) -> list[Record]:
        """At most ``last`` of the ``chosen`` records, oldest first: the first ones after number ``after``, else the newest."""
        kept = self.bus.since(after or 0)[0]
        if self.history is None:
            found = [record for record in kept if chosen(record)]
            return found[:last] if after is not None else found[-last:]
        if after is None:
            return await self._last(chosen, kept, last)
        found, position = [], after
        while len(found) < last:
            page = await self.history.records(position, PAGE_RECORDS)
            newest = page[-1].id if page else position
            if len(page) < PAGE_RECORDS:  # the history may lag behind memory
                page += [record for record in kept if record.id > newest]
            found += filter(chosen, page)
            if not page or len(page) < PAGE_RECORDS or page[-1].id > newest:
                break
            position = page[-1].id
        return found[:last]

    async def _last(self, chosen: Choice, kept: list[Record], last: int) -> list[Record]:
        found = [record for record in kept if chosen(record)]
        if len(found) < last and self.history is not None:
            oldest = kept[0].id if kept else self.bus.last_id + 1
            older = await self.history.last_records(min(20 * last, 20_000) + len(kept))
            found = [record for record in older if record.id < oldest and chosen(record)] + found
        return found[-last:]

    async def _send_past(self, send: SendChunk, chosen: Choice, after: int) -> int:
        """Sends all records after number ``after`` in history and memory; returns the number of the last one."""
        position = after
        while self.history is not None and position < self.bus.last_id and not self.bus.since(position)[1]:
            page = await self.history.records(position, PAGE_RECORDS)
            if not page:
                break
            await self._send(send, filter(chosen, page))
            position = page[-1].id
        records, complete = self.bus.since(position)
        if position > self.bus.last_id:  # a number from another history: how many were missed cannot be known
            await send(_missed(None))
            return self.bus.last_id
        if not complete:
            oldest = records[0].id if records else self.bus.last_id + 1
            if (lost := oldest - 1 - max(position, self.first_id)) > 0:
                await send(_missed(lost))
        for begin in range(0, len(records), PAGE_RECORDS):
            await self._send(send, filter(chosen, records[begin : begin + PAGE_RECORDS]))
        return records[-1].id if records else position

    async def _send_news(self, send: SendChunk, chosen: Choice, news: Subscription, position: int) -> None:
        while True:
            record = None
            with anyio.move_on_after(HEARTBEAT_SECONDS):
                record = await news.receive()
                if record is None:
                    return
            if record is None:
                await send(b": still here\n\n")
                continue
            records: list[Record] = []
            while record is not None:
                if record.id > position + 1 and position >= self.first_id:  # the subscription's queue overflowed
                    await self._send(send, records)
                    records, position = [], await self._send_past(send, chosen, position)
                if record.id > position:
                    position = record.id
                    if chosen(record):
                        records.append(record)
                record = news.receive_nowait()
            await self._send(send, records)
            if records:
                await anyio.sleep(GATHER_SECONDS)

    async def _send(self, send: SendChunk, records: Iterable[Record]) -> None:
        chunk = b"".join(map(self._encode, records))
        if chunk:
            await send(chunk)


def _missed(count: int | None) -> bytes:
    """An event without a number, so that a client resumes after the last record that it has received."""
    return b"event: missed\ndata: %s\n\n" % msgspec.json.encode({"missed": count})
