"""Real processes for tests: short to start, and all gone afterwards."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import sys
import time
from pathlib import Path
from typing import Any

from supervisord_async.system import orphans
from supervisord_async.system.child import Child
from supervisord_async.system.credentials import Credentials
from supervisord_async.system.identity import Identity, is_alive
from supervisord_async.system.pipes import Pipe
from supervisord_async.system.spawn import SpawnSpec, spawn
from supervisord_async.system.tree import Tree
from supervisord_async.wire import ENV_TAG
from tests.waiting import wait_until

PATH = "/usr/local/bin:/usr/bin:/bin"
PATIENCE_SECONDS = 20.0
_numbers = itertools.count(1)


class Nursery:
    """Spawns children with one pipe for their output; ends all of them with all that is left of them."""

    def __init__(self) -> None:
        self.pipe = Pipe.open()
        self._children: list[tuple[Child, Tree]] = []
        self._heard = b""

    async def spawn(self, *argv: str, environment: dict[str, str] | None = None, directory: str = "/", **more: Any) -> Child:
        tag = f"test{os.getpid()}/p{next(_numbers)}/1"
        variables = {"PATH": PATH, ENV_TAG: tag} | (environment or {})
        options: dict[str, Any] = {"stdout": self.pipe.child_fd, "stderr": self.pipe.child_fd} | more
        child = await spawn(SpawnSpec(argv=argv, directory=directory, environment=variables, **options))
        self._children.append((child, Tree.of(child, variables[ENV_TAG])))
        return child

    async def shell(self, script: str, **more: Any) -> Child:
        return await self.spawn("/bin/sh", "-c", script, **more)

    async def python(self, script: str, *arguments: str, **more: Any) -> Child:
        return await self.spawn(sys.executable, "-S", "-E", "-c", script, *arguments, **more)

    def tree(self, child: Child) -> Tree:
        return next(tree for known, tree in self._children if known is child)

    def heard(self) -> str:
        """All that was said so far."""
        with contextlib.suppress(BlockingIOError):  # nothing more for now; the pipe has a writer always: ourselves
            while True:
                self._heard += os.read(self.pipe.read_fd, 65536)
        return self._heard.decode()

    async def hear(self, lines: int) -> list[str]:
        """What was said, once it is that many whole lines."""
        await wait_until(lambda: self.heard().count("\n") >= lines, what=f"{lines} lines of output")
        return self.heard().splitlines()

    async def output_of(self, child: Child) -> str:
        """All that was said when it has ended."""
        await child.wait()
        return self.heard()

    async def aclose(self) -> None:
        for child, tree in self._children:
            left = await tree.kill(PATIENCE_SECONDS)
            assert not left, f"would not die: {left}"
            await child.wait()
            child.close()
        self.pipe.close()
        orphans.reap_orphans()  # of one that died in this very moment the signal may still be on its way


def credentials_of(uid: int, gid: int, *groups: int) -> Credentials:
    return Credentials(uid, gid, groups or (gid,), f"user{uid}", "/")


async def gone(identity: Identity) -> None:
    await wait_until(lambda: not is_alive(identity), what=f"the end of process {identity.pid}")


def status_field(pid: int, field: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return line.split(":", 1)[1].strip()
    raise AssertionError(f"/proc/{pid}/status has no {field}")


def read_all(fd: int, until: bytes) -> bytes:
    """What comes out of a non-blocking descriptor up to ``until``."""
    data, deadline = b"", time.monotonic() + PATIENCE_SECONDS
    while until not in data:
        left = deadline - time.monotonic()
        assert left > 0, f"heard only {data!r}"
        if select.select([fd], [], [], left)[0]:
            data += os.read(fd, 65536)
    return data
