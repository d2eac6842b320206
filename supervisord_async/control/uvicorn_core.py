"""uvicorn without modules that it imports but that are not used here: its command line, which needs click, multiprocessing and a file
watcher; the configuration of logging by files, which needs sockets, pickle and parsers; date headers, which need the email package.

They would cost 3.5 MiB of every daemon's memory, and 15 ms of every start and re-exec.
"""

from __future__ import annotations

import sys
from types import ModuleType

__all__ = ["Config", "H11Protocol", "ServerState"]

_UNUSED = ("uvicorn.main", "logging.config", "configparser", "email.utils")


class _Absent(ModuleType):
    """A stand-in module in which every name is None."""

    def __getattr__(self, name: str) -> None:
        return None


_absent = [] if "uvicorn" in sys.modules else [name for name in _UNUSED if name not in sys.modules]
for _name in _absent:
    sys.modules[_name] = _Absent(_name)
try:
    from uvicorn.config import Config
    from uvicorn.protocols.http.h11_impl import H11Protocol
    from uvicorn.server import ServerState
finally:
    for _name in _absent:
        del sys.modules[_name]  # a later import gets the real module
