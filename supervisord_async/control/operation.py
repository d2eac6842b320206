"""The types that operations of the HTTP API are made of: their table's rows, their calls, and what they work on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from supervisord_async.control.askers import Askers
from supervisord_async.control.commands import Commands
from supervisord_async.control.counters import Counters
from supervisord_async.control.events import Events
from supervisord_async.control.message import Headers, Response
from supervisord_async.control.parameters import Parameters
from supervisord_async.control.stream import Stream, Streams
from supervisord_async.core.record import Record
from supervisord_async.supervise.fleet.selectors import selects

if TYPE_CHECKING:
    from supervisord_async.control.metrics import Metrics


class Parameter(msgspec.Struct, frozen=True):
    """One query parameter; a POST may also give it as a member of a JSON object in its body."""

    name: str
    kind: str  #: a key of ``openapi.KINDS``
    says: str


class Operation(msgspec.Struct, frozen=True):
    """One route."""

    method: str
    path: str
    run: Callable[[Api, Call], Awaitable[Response | Stream]]
    summary: str
    answer: Any = None  #: the type of the JSON of a 200; None: no JSON, see ``media``
    media: str = "application/json"
    parameters: tuple[Parameter, ...] = ()
    statuses: tuple[int, ...] = ()  #: in addition to 200 and those that every operation has
    required: tuple[str, ...] = ()  #: parameters that must be given
    until_gone: bool = False  #: it ends when its client has gone: it gives its orders at once, and then only waits

    @property
    def name(self) -> str:
        """The operation's id."""
        return self.run.__name__.rstrip("_")


class Call(msgspec.Struct, frozen=True):
    """One request, checked and decoded."""

    path: dict[str, str]
    parameters: Parameters
    headers: Headers
    by: str = ""  #: who asks, for operations that change something

    @property
    def selectors(self) -> list[str]:
        """The selectors in the path's ``{selector}``, which are separated by commas."""
        return [part for part in self.path["selector"].split(",") if part]


class Api:
    """What the operations work on."""

    def __init__(self, commands: Commands, counters: Counters) -> None:
        self.commands = commands
        self.counters = counters  #: counts since the daemon's start; the other metrics are made at the first scrape
        self.metrics: Metrics | None = None
        self.streams = Streams()
        self.askers = Askers()
        self.events = Events(commands.supervisor.bus, commands.history_store)
        self.description: bytes | None = None
        self.http_trouble: str | None = None  #: why daemon.http is not served
        self.page_url: str | None = None  #: with its token; given only to clients who may read the token's file anyway

    def chosen(self, selectors: tuple[str, ...], types: tuple[str, ...]) -> Callable[[Record], bool]:
        """A filter for records of ``types`` and of the processes that ``selectors`` name; if empty, each admits everything."""
        if not selectors:
            return (lambda record: record.type in types) if types else (lambda _: True)
        supervisor = self.commands.supervisor
        names = {process.name for process in supervisor.select(selectors)}

        def admits(record: Record) -> bool:
            if record.name is not None and record.name not in names:  # it may be there only since then, by a reload or scale
                process = supervisor.processes.get(record.name)
                if process is not None and any(selects(selector, process) for selector in selectors):
                    names.add(record.name)
            return record.name in names and (not types or record.type in types)

        return admits
