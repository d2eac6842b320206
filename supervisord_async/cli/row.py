"""One process for ``asupctl status``: the JSON object as attributes, without the cost of a typed answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Row:
    """One process; what another version of the daemon does not send has the default given here."""

    name: str
    program: str = ""
    state: str = "UNKNOWN"
    health: str = "none"
    pid: int | None = None
    uptime_seconds: float | None = None
    restarts: int = 0
    flapping: bool = False
    exit_status: Mapping[str, Any] | None = None
    cause: str | None = None
    next_at: str | None = None
    description: str = ""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.__dict__.update(document)
