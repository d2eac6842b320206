"""Encodes values as JSON and back. What has no faithful form is refused instead of being silently turned into something else.

JSON's own types stay as they are. Tuples, deques and queues become lists (a queue's items in the order in which
putting them back gives the same queue). Objects with ``to_dict()`` and dataclasses become dictionaries; if their class is
known, they come back as objects. Sets, bytes, dates, paths and the like come back as what they were, by means of a tag; so
do dictionaries whose keys are not all strings. Everything else is refused. No class is ever imported because a file names it.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import queue
from collections import deque
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

#: The key that marks a value of another type: {"$type": name, "value": …}.
TAG = "$type"

_ATOMS = frozenset({str, int, float, bool, type(None)})


def _iso(value: datetime | time) -> str | list[Any]:
    """ISO 8601; with ``fold`` and the name of the zone beside it where the text alone would lose them."""
    zone = getattr(value.tzinfo, "key", None)  # a zone's offset changes, so the text's would not do
    if zone is None and not value.fold:
        return value.isoformat()
    return [(value.replace(tzinfo=None) if zone is not None else value).isoformat(), value.fold, zone]


def _moment(kind: type[datetime | time], value: str | list[Any]) -> datetime | time:
    """What :func:`_iso` was given."""
    if isinstance(value, str):
        return kind.fromisoformat(value)
    text, fold, zone = value
    moment = kind.fromisoformat(text).replace(fold=fold)
    if zone is None:
        return moment
    from zoneinfo import ZoneInfo

    return moment.replace(tzinfo=ZoneInfo(zone))


_ENCODERS: tuple[tuple[type, str, Callable[[Any], Any]], ...] = (
    (datetime, "datetime", _iso),
    (date, "date", date.isoformat),
    (time, "time", _iso),
    (timedelta, "timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    (PurePath, "path", str),
    (UUID, "uuid", str),
    (Decimal, "decimal", str),
    (bytes, "bytes", lambda value: base64.b64encode(value).decode("ascii")),
    (bytearray, "bytearray", lambda value: base64.b64encode(value).decode("ascii")),
)

_DECODERS: dict[str, Callable[[Any], Any]] = {
    "datetime": lambda value: _moment(datetime, value),
    "date": date.fromisoformat,
    "time": lambda value: _moment(time, value),
    "timedelta": lambda value: timedelta(*value),
    "path": Path,
    "uuid": UUID,
    "decimal": Decimal,
    "bytes": lambda value: base64.b64decode(value, validate=True),
    "bytearray": lambda value: bytearray(base64.b64decode(value, validate=True)),
    "set": lambda value: set(map(_hashable, value)),
    "frozenset": lambda value: frozenset(map(_hashable, value)),
    "dict": lambda value: {_hashable(key): item for key, item in value},
}


class CannotEncodeError(TypeError):
    """A value has no faithful form in JSON; the message says where in the state it was found."""

    def __init__(self, what: str, where: str = "") -> None:
        self.what, self.where = what, where
        super().__init__(f"{where.removeprefix('.')}: {what}" if where else what)

    def inside(self, step: str) -> CannotEncodeError:
        """The same error as seen from the container, in which the value is at ``step``."""
        return CannotEncodeError(self.what, step + self.where)


def encode(value: Any, known: Mapping[str, type] | None = None) -> Any:
    """``value`` as JSON's own types.

    ``known`` are the classes, by name, whose instances come back as objects. Raises CannotEncodeError for a value without
    a faithful form, RecursionError for one that contains itself or is nested some hundred levels deep.
    """
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is dict:
        return _encode_dict(value, known)
    if kind is list or kind is tuple or kind is deque:
        return _encode_items(value, known)
    return _encode_object(value, known or {})


def _encode_items(value: Any, known: Mapping[str, type] | None) -> list[Any]:
    # A copy first: another thread may be appending.
    items, atoms = list(value), _ATOMS
    for index, item in enumerate(items):
        if type(item) not in atoms:
            try:
                items[index] = encode(item, known)
            except CannotEncodeError as error:
                raise error.inside(f"[{index}]") from None
    return items


def _encode_dict(value: dict[Any, Any], known: Mapping[str, type] | None) -> Any:
    copy, atoms = value.copy(), _ATOMS
    if TAG in copy or not all(type(key) is str for key in copy):
        pairs = _encode_items([list(pair) for pair in copy.items()], known)
        _require_hashable([key for key, _ in pairs])
        return {TAG: "dict", "value": pairs}
    for key, item in copy.items():
        if type(item) not in atoms:
            try:
                copy[key] = encode(item, known)  # no key is added: safe while iterating
            except CannotEncodeError as error:
                raise error.inside(f".{key}") from None
    return copy


def _encode_object(value: Any, known: Mapping[str, type]) -> Any:
    name = type(value).__qualname__
    if known.get(name) is type(value):
        return {TAG: f"object:{name}", "value": encode(_content(value), known)}
    to_dict = getattr(value, "to_dict", None)
    if callable(to_dict) and not isinstance(value, type):
        return encode(to_dict(), known)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return encode(_content(value), known)
    items = _queued(value)
    if items is not None:
        return encode(items, known)
    if isinstance(value, set | frozenset):
        members = _encode_items(value, known)
        _require_hashable(members)
        return {TAG: "set" if isinstance(value, set) else "frozenset", "value": members}
    for kind, tag, encoder in _ENCODERS:
        if isinstance(value, kind):
            return {TAG: tag, "value": encoder(value)}
    return _encode_subclass(value, known)


def _encode_subclass(value: Any, known: Mapping[str, type]) -> Any:
    """A subclass of one of JSON's types (defaultdict, Counter, a named tuple, StrEnum …), encoded as that type."""
    if isinstance(value, Enum) and not isinstance(value, str | int):
        raise CannotEncodeError(f"the class {type(value).__qualname__} of {value!r} is not among the known ones")
    if isinstance(value, dict):
        return _encode_dict(dict(value), known)
    if isinstance(value, list | tuple | deque):
        return encode(list(value), known)
    plain = value.value if isinstance(value, Enum) else value
    if isinstance(plain, str):
        return str.__str__(plain)
    for base in (bool, int, float):
        if isinstance(plain, base):
            return base(plain)
    raise CannotEncodeError(f"cannot save a {type(value).__module__}.{type(value).__qualname__}")


def _content(value: Any) -> Any:
    """The content of an instance of a known class, or of a dataclass."""
    to_dict = getattr(value, "to_dict", None)
    if callable(to_dict):
        return to_dict()
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
    raise CannotEncodeError(f"{type(value).__qualname__} has no to_dict() and is not a dataclass")


def _queued(value: Any) -> list[Any] | None:
    """The items of a queue, which stay in it; None if ``value`` is not a queue."""
    if isinstance(value, queue.Queue):
        with value.mutex:
            items = list(value.queue)
        return sorted(items) if isinstance(value, queue.PriorityQueue) else items
    if isinstance(value, queue.SimpleQueue):
        return _cycled(value)
    # Does not import asyncio for programs that do not use it.
    if type(value).__module__ == "asyncio.queues" and hasattr(value, "_queue"):
        items = list(value._queue)  # noqa: SLF001 - there is no other way to look without taking
        return sorted(items) if type(value).__name__ == "PriorityQueue" else items
    return None


def _cycled(source: queue.SimpleQueue[Any]) -> list[Any]:
    """The items of a queue that can only be read by taking them out: they are put back in the same order."""
    items: list[Any] = []
    with contextlib.suppress(queue.Empty):
        items.extend(source.get_nowait() for _ in range(source.qsize()))
    for item in items:
        source.put(item)
    return items


def decode(text: str | bytes, known: Mapping[str, type] | None = None) -> Any:
    """The value that was given to ``encode``; instances of classes that are not ``known`` come back as dictionaries.

    For text that ``encode`` did not make, raises ValueError, TypeError, KeyError or whatever a known class's ``from_dict`` raises.
    """
    classes = known or {}

    def untag(value: dict[str, Any]) -> Any:
        tag = value.get(TAG)
        if tag is None:
            return value
        if tag.startswith("object:"):
            return _object(classes.get(tag.removeprefix("object:")), value["value"])
        return _DECODERS[tag](value["value"])

    # Most states have no tag at all: they need no hook, which would slow the parser down.
    tagged = TAG in text if isinstance(text, str) else TAG.encode() in text
    return json.loads(text, object_hook=untag) if tagged else json.loads(text)


def _object(kind: type | None, content: Any) -> Any:
    if kind is None:
        return content
    from_dict = getattr(kind, "from_dict", None)
    if callable(from_dict):
        return from_dict(content)
    return kind(**content) if dataclasses.is_dataclass(kind) else kind(content)


def _require_hashable(encoded: Any) -> None:
    """Raises CannotEncodeError where a part of ``encoded`` would come back as a dictionary, which no set and no key can contain."""
    if isinstance(encoded, list):
        for part in encoded:
            _require_hashable(part)
    elif isinstance(encoded, dict) and encoded.get(TAG) in (None, "dict"):
        raise CannotEncodeError("an object in a set or a key would come back as a dictionary: its class is not among the known ones")


def _hashable(key: Any) -> Any:
    """``key`` with tuples in the place of lists, as no list was in a key or a set."""
    return tuple(_hashable(part) for part in key) if isinstance(key, list) else key
