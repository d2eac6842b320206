"""Retrying while the machine has no descriptor, thread or memory to give: such a shortage passes, and is no bug."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from supervisord_async.system.shortage import is_shortage

T = TypeVar("T")

_log = logging.getLogger("asupd")

#: One token for each call, in all of this process, that is being retried.
_waiting: set[object] = set()
#: The pauses between attempts, the last one repeated.
PAUSES_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)


async def retry_on_shortage(what: str, do: Callable[[], Awaitable[T]]) -> T:
    """The result of ``do``, retried while the machine is short of something; the log says when a shortage begins and ends.

    Any other exception of ``do`` is raised at once.
    """
    attempt, token = 0, object()
    try:
        while True:
            try:
                result = await do()
            except OSError as error:
                if not is_shortage(error):
                    raise
                if not _waiting:
                    reason = error.strerror or error
                    _log.warning("transient: cannot %s: %s; trying again, as with everything else that fails for this reason", what, reason)
                _waiting.add(token)
                await anyio.sleep(PAUSES_SECONDS[min(attempt, len(PAUSES_SECONDS) - 1)])
                attempt += 1
            else:
                if _waiting == {token}:
                    _log.info("could %s now; nothing else waits for the same reason", what)
                return result
    finally:
        _waiting.discard(token)
