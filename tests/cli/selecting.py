"""Selectors against the list of processes that the daemon gave: a name, a program's name, ``group:*``, a glob, ``all``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from supervisord_async.errors import NotFoundError

P = TypeVar("P", bound=Mapping[str, Any])


def select(processes: Sequence[P], selectors: Sequence[str]) -> list[P]:
    """The processes that any selector names, each once, in their own order.

    Raises NotFoundError for a selector that fits nothing, with the nearest known name.
    """
    chosen: set[str] = set()
    for selector in selectors:
        names = {process["name"] for process in processes if _fits(process, selector)}
        if not names and selector != "all":
            raise NotFoundError(_unknown(processes, selector))
        chosen |= names
    return [process for process in processes if process["name"] in chosen]


def _fits(process: Mapping[str, Any], selector: str) -> bool:
    name, program = process["name"], process.get("program")
    if selector in ("all", name, program):
        return True
    if selector.endswith(":*") and process.get("group") == selector[:-2]:
        return True
    return any(char in selector for char in "*?[") and (fnmatchcase(name, selector) or fnmatchcase(str(program), selector))


def _unknown(processes: Sequence[Mapping[str, Any]], selector: str) -> str:
    from difflib import get_close_matches

    if any(char in selector for char in "*?["):
        return f"no program fits '{selector}'"
    known = {str(process[key]) for process in processes for key in ("name", "program") if process.get(key)}
    near = get_close_matches(selector, sorted(known), n=1)
    return f"no program '{selector}'" + (f": did you mean '{near[0]}'?" if near else "")
