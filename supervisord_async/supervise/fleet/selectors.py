"""Selectors: a process's or program's name, ``group:*``, a glob, or ``all``. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from supervisord_async.config.units import nearest
from supervisord_async.errors import NotFoundError

if TYPE_CHECKING:
    from supervisord_async.supervise.process import Process


def select(selectors: Sequence[str], processes: Collection[Process], programs: Collection[str]) -> list[Process]:
    """Those of ``processes`` that ``selectors`` name, each once, in the order of ``processes``; ``programs`` are all names in the file.

    Raises NotFoundError, with the nearest name, for a selector that selects nothing.
    """
    chosen: set[str] = set()
    for selector in selectors:
        names = {process.name for process in processes if selects(selector, process)}
        if not names and selector != "all":
            raise not_found(selector, processes, programs)
        chosen |= names
    return [process for process in processes if process.name in chosen]


def not_found(selector: str, processes: Collection[Process], programs: Collection[str]) -> NotFoundError:
    """The error to raise for a selector that selects nothing: with the reason, or the nearest name."""
    if any(sign in selector for sign in "*?["):
        return NotFoundError(f"no program matches {selector!r}")
    if selector in programs:
        return NotFoundError(f"{selector!r} has no processes, it was scaled to 0: `asupctl scale {selector} N` gives it some")
    group = selector.removeprefix("group:")
    if any(process.program.group == group for process in processes):
        return NotFoundError(f"no program {selector!r}, but a group: did you mean '{group}:*'?")
    near = nearest(selector, {*(process.name for process in processes), *programs})
    return NotFoundError(f"no program {selector!r}" + (f": did you mean {near!r}?" if near else ""))


def selects(selector: str, process: Process) -> bool:
    """Whether ``selector`` names ``process``."""
    if selector in ("all", process.name, process.program.name):
        return True
    if selector.endswith(":*") and process.program.group == selector[:-2]:
        return True
    return any(sign in selector for sign in "*?[") and (
        fnmatch.fnmatchcase(process.name, selector) or fnmatch.fnmatchcase(process.program.name, selector)
    )
