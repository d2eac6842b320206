"""Spells shorthands out and makes paths absolute, so that ``defaults`` and programs can be merged key by key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from supervisord_async.config.files import absolute
from supervisord_async.config.shape import Data

#: The words that may stand in place of a log's path.
STREAM_WORDS = frozenset({"none", "inherit", "stdout"})
PROBE_KINDS: tuple[Literal["http", "tcp", "command", "log"], ...] = ("http", "tcp", "command", "log")


def spelt_out(data: Data, directory: str, variables: Mapping[str, str]) -> Data:
    """A program's ``data``, which fits its shape, with every shorthand as a mapping and every path absolute."""
    data = dict(data)
    for key, spell in _SPELLINGS.items():
        if data.get(key) is not None:
            data[key] = spell(data[key])
    if isinstance(data.get("directory"), str):
        data["directory"] = absolute(data["directory"], directory, variables)
    if data.get("environment_files"):
        data["environment_files"] = [absolute(path, directory, variables) for path in data["environment_files"]]
    for key, inner in (("heartbeat", ("file",)), ("logs", ("stdout", "stderr"))):
        if data.get(key):
            data[key] = {
                name: absolute(value, directory, variables)
                if name in inner and isinstance(value, str) and not (key == "logs" and value in STREAM_WORDS)
                else value
                for name, value in data[key].items()
            }
    watch = data.get("watch")
    if isinstance(watch, list):
        data["watch"] = [_watch_absolute(item, directory, variables) for item in watch]
    elif watch:
        data["watch"] = _watch_absolute(watch, directory, variables)
    return data


def merged(under: Data, over: Data) -> Data:
    """``over`` on top of ``under``: mappings key by key, anything else as a whole."""
    result = dict(under)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def without_nulls(data: Data) -> Data:
    """``data`` without keys whose value is null: a null cancels a default."""
    return {key: without_nulls(value) if isinstance(value, dict) else value for key, value in data.items() if value is not None}


def _watch_absolute(item: Any, directory: str, variables: Mapping[str, str]) -> Any:
    return {**item, "paths": [absolute(path, directory, variables) for path in item.get("paths", ())]}


def _watch(value: Any) -> Any:
    if isinstance(value, dict) or not value:
        return value or None
    paths = [item for item in value if isinstance(item, str)]
    if len(paths) == len(value):
        return {"paths": paths}
    return [*([{"paths": paths}] if paths else []), *(item for item in value if isinstance(item, dict))]


def _probe(value: Data) -> Data:
    """A probe of one kind, with the other kinds null, so that those of ``defaults`` are cancelled."""
    if any(value.get(kind) is not None for kind in PROBE_KINDS):
        return {**dict.fromkeys(PROBE_KINDS), **value}
    return value


_SPELLINGS = {
    "restart": lambda value: {"policy": value} if isinstance(value, str) else value,
    "heartbeat": lambda value: value if isinstance(value, dict) else {"timeout": value},
    "notify": lambda value: {} if value is True else None if value is False else value,
    "schedule": lambda value: {"at": value} if isinstance(value, str) else value,
    "sockets": lambda value: {name: {"url": item} if isinstance(item, str) else item for name, item in value.items()},
    "watch": _watch,
    "readiness": _probe,
    "liveness": _probe,
}
