"""Limits that a run starts with: set by a launcher before the program is executed, and only where configured.

No Python code runs between fork and exec (unsafe with threads): instead :mod:`.launcher` is executed first, by
``python -I -S``, which takes some 15 ms, and then executes the program. It reports failures by a pipe.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping

import msgspec

from supervisord_async.system import launcher
from supervisord_async.system.credentials import Credentials

#: A report of the launcher is one short line.
_NEWS_BYTES = 4096


class Refusal(msgspec.Struct, frozen=True):
    """What the launcher could not do."""

    stage: str  #: ``limits``, ``user``, ``socket``, ``exec``, or ``launcher`` where it did nothing at all
    errno: int
    words: str


def through_launcher(
    argv: tuple[str, ...],
    limits: Mapping[str, str],
    credentials: Credentials | None,
    pipe: int,
    descriptors: tuple[int, ...],
    pid_variables: tuple[str, ...],
) -> list[str]:
    """The command that sets ``limits``, becomes ``credentials`` (None: does not change the user) and executes ``argv``.

    ``limits`` are by the keys of :data:`.launcher.STEPS`; ``descriptors`` are moved to 3, 4, …; ``pid_variables`` are set to the PID in
    the environment.
    """
    settings = [f"{key}={value}" for key, value in limits.items()]
    if descriptors:
        settings.append("descriptors=" + ",".join(map(str, descriptors)))
    if pid_variables:
        settings.append("pid_variables=" + ",".join(pid_variables))
    if credentials is not None:
        settings.append("user=" + ",".join(map(str, (credentials.uid, credentials.gid, *credentials.groups))))
    return [sys.executable, "-I", "-S", launcher.__file__, str(pipe), *settings, "--", *argv]


async def wait_executed(pipe: int) -> Refusal | None:
    """Wait until the launcher has executed the program; returns None then, else what it could not do. ``pipe`` is the read end."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    os.set_blocking(pipe, False)
    news = b""
    loop.add_reader(pipe, readable.set)
    try:
        while True:
            await readable.wait()
            readable.clear()
            try:
                chunk = os.read(pipe, _NEWS_BYTES)
            except BlockingIOError:
                continue
            if not chunk:
                break
            news += chunk
    finally:
        loop.remove_reader(pipe)
    if news == b"\n":
        return None
    if not news:  # it never began: its file, or Python, is just being replaced, or cannot be read
        return Refusal("launcher", 0, "the launcher ended before it began")
    news = news.removeprefix(b"\n")
    stage, number, words = news.decode(errors="replace").split("\0", 2)
    return Refusal(stage, int(number), words)
