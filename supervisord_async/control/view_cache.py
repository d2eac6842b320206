"""The JSON list of many processes for clients that poll it: for a process that runs unchanged, only uptime and figures are encoded anew.

Refreshing a table of a thousand running programs costs a tenth of encoding a thousand views. This is a cache: before an entry is
used, everything that it was made from is compared.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from supervisord_async.control.view import process_view
from supervisord_async.core.state import State
from supervisord_async.jsontext import json_bytes

if TYPE_CHECKING:
    from supervisord_async.supervise.process import Process
    from supervisord_async.supervise.records.figures import Figures

#: The list is kept in pieces, three for each object: everything up to its uptime, with the joint to the previous object; the uptime;
#: the rest. One more piece ends the list. With more pieces, joining them would take longer than everything else.
_PIECES = 3
_UPTIME, _REST = 1, 2
_BEGIN, _JOINT, _END = b"[{", b"},{", b"}]"
#: Where an object is cut. No name or text can contain this: a quotation mark inside a string is escaped.
_UPTIME_CUT, _FIGURES_CUT = b'"uptime_seconds":', b'"cpu_percent":'


class _Use(msgspec.Struct, frozen=True):
    """The members of an object that hold its figures."""

    cpu_percent: float | None = None
    memory_bytes: int | None = None


class ViewCache:
    """Encodes lists of processes as JSON, and keeps the last one in pieces."""

    def __init__(self) -> None:
        self._made_of: list[tuple[Any, ...]] = []  # for each process, what its pieces were made from
        self._pieces: list[bytes] = []
        self._middles: list[bytes] = []  # for each process, the part of its rest before its figures
        self._since: list[float] = []  # for each process, when its run began (monotonic)
        self._moving: list[int] = []  # the indexes of those that are not steady, whose pieces cannot be kept
        self._figures: Mapping[str, Figures] | None = None  # the figures in the pieces

    def json(self, processes: Sequence[Process], now: float, wall_now: float, figures: Mapping[str, Figures]) -> bytes:
        """The list of ``processes`` at ``now`` (monotonic), which is wall time ``wall_now``, with ``figures`` by process name."""
        if not processes:
            return b"[]"
        made_of = [(one.name, one.snapshot, one.program, one.scheduled_at, one.status_text, one.output.trouble) for one in processes]
        if made_of != self._made_of:
            self._remake(processes, made_of, now, wall_now)
        pieces = self._pieces
        if figures is not self._figures:
            pieces[_REST::_PIECES] = map(operator.add, self._middles, _figures_of(processes, figures))
            self._figures = figures
        uptimes = [int((now - since) * 1000) / 1000 for since in self._since]
        pieces[_UPTIME::_PIECES] = msgspec.json.encode(uptimes)[1:-1].split(b",")
        for place in self._moving:
            process = processes[place]
            text = json_bytes(process_view(process, now, wall_now, figures.get(process.name)))
            pieces[place * _PIECES : (place + 1) * _PIECES] = [_joint(place) + text[1:-1], b"", b""]
        return b"".join(pieces)

    def _remake(self, processes: Sequence[Process], made_of: list[tuple[Any, ...]], now: float, wall_now: float) -> None:
        """The pieces are those of ``processes``, without figures; a process that has not changed or moved keeps its own."""
        before, heads, middles, since = self._made_of, self._pieces[::_PIECES], self._middles, self._since
        self._made_of, self._pieces, self._middles, self._since, self._moving, self._figures = made_of, [], [], [], [], None
        for place, process in enumerate(processes):
            if not _is_steady(process):
                self._moving.append(place)
                head, middle, begin = b"", b"", now
            elif place < len(before) and before[place] == made_of[place]:
                head, middle, begin = heads[place], middles[place], since[place]
            else:
                head, middle = _cut(process, now, wall_now)
                head, begin = _joint(place) + head, min(process.snapshot.run_since, now)
            self._pieces += (head, b"", b"")
            self._middles.append(middle)
            self._since.append(begin)
        self._pieces.append(_END)


def _joint(place: int) -> bytes:
    return _JOINT if place else _BEGIN


def _is_steady(process: Process) -> bool:
    """Whether the view changes only in uptime and figures, as long as nothing that it is made from changes."""
    return process.snapshot.state is State.RUNNING and process.snapshot.pid is not None


def _cut(process: Process, now: float, wall_now: float) -> tuple[bytes, bytes]:
    """The process's object up to its uptime, and from after that to its figures."""
    head, cut, rest = json_bytes(process_view(process, now, wall_now)).partition(_UPTIME_CUT)
    _, comma, tail = rest.partition(b",")
    return head[1:] + cut, comma + tail[: tail.rindex(_FIGURES_CUT)]


def _figures_of(processes: Sequence[Process], figures: Mapping[str, Figures]) -> list[bytes]:
    """The members for each of ``processes``, encoded all at once: one by one would take longer than everything else."""
    unknown = _Use()
    found = [figures.get(process.name) for process in processes]
    uses = [_Use(one.cpu_percent, one.memory_bytes) if one is not None else unknown for one in found]
    return msgspec.json.encode(uses)[len(_BEGIN) : -len(_END)].split(_JOINT)
