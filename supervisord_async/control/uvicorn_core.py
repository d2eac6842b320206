"""uvicorn without its command line, which its package loads for everybody: with click, multiprocessing and a file watcher.

None of that is used here, and it would be 2 MiB of every daemon's memory and 10 ms of every start and re-exec.
"""

from __future__ import annotations

import sys
from types import ModuleType

__all__ = ["Config", "H11Protocol", "Server"]

_COMMAND_LINE = "uvicorn.main"


class _Absent(ModuleType):
    """Has every name that is asked for, and nothing behind it."""

    def __getattr__(self, name: str) -> None:
        return None


_already = "uvicorn" in sys.modules
if not _already:
    sys.modules[_COMMAND_LINE] = _Absent(_COMMAND_LINE)
try:
    from uvicorn.config import Config
    from uvicorn.protocols.http.h11_impl import H11Protocol
    from uvicorn.server import Server
finally:
    if not _already:
        del sys.modules[_COMMAND_LINE]  # whoever wants it in this process has the real one
