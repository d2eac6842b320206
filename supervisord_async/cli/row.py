"""One process as ``asupctl status`` has it: the object that was sent, without the cost of a typed answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Row:
    """One process as it was sent; what another version of the daemon leaves out has the value here."""

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
