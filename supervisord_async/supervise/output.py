"""The output of one process slot: its pipes and captures, one per stream, kept across its runs."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from supervisord_async.config.model import Logs
from supervisord_async.errors import SpawnError
from supervisord_async.logs.capture import Capture
from supervisord_async.logs.target import Target
from supervisord_async.system.credentials import Credentials
from supervisord_async.system.pipes import Pipe

if TYPE_CHECKING:
    from supervisord_async.supervise.surroundings import Surroundings

STREAMS = ("stdout", "stderr")


class Output:
    """Where a process's stdout and stderr go."""

    def __init__(self, name: str, replica: int, surroundings: Surroundings) -> None:
        self._name = name
        self._replica = replica
        self._around = surroundings
        self._pipes: dict[str, Pipe] = {}
        self._captures: dict[str, Capture] = {}
        self._logs: Logs | None = None

    @property
    def captures(self) -> tuple[Capture, ...]:
        """The captures that there are, stdout's first."""
        return tuple(self._captures.values())

    def paths(self) -> tuple[str, ...]:
        """The files that are written."""
        return tuple(capture.target.path for capture in self.captures if capture.target.path is not None)

    def open(self, logs: Logs, credentials: Credentials | None) -> tuple[int, int]:
        """The descriptors for the next run's stdout and stderr; raises SpawnError, stage ``log``."""
        self._logs = logs
        try:
            stdout = self._open("stdout", logs.stdout, credentials)
            stderr = stdout if logs.stderr == "stdout" else self._open("stderr", logs.stderr, credentials)
        except OSError as error:
            raise SpawnError("log", error.errno, f"cannot make a pipe for {self._name}") from error
        return stdout, stderr

    def _open(self, stream: str, where: str, credentials: Credentials | None) -> int:
        if where == "inherit":
            return STREAMS.index(stream) + 1
        if where == "none" and self._around.echo is None:
            return self._around.null_fd
        pipe = self._pipes.get(stream)
        if pipe is None:
            pipe = self._pipes[stream] = Pipe()
            echo = partial(self._around.echo, self._name, stream) if self._around.echo is not None else None
            capture = Capture(
                pipe,
                self._target(where),
                process_name=self._name,
                stream=stream,
                writer=self._around.writer,
                journal=self._around.journal,
                on_loss=self._report,
                echo=echo,
            )
            self._captures[stream] = capture
            capture.start()
        if credentials is not None:
            os.fchown(pipe.child_fd, credentials.uid, credentials.gid)
        return pipe.child_fd

    def _target(self, where: str) -> Target:
        logs = self._logs
        assert logs is not None  # noqa: S101  set by whoever opens or reconfigures
        path = None if where == "none" else where.replace("{replica}", str(self._replica))
        return Target(path=path, max_size_bytes=logs.max_size_bytes, backups=logs.backups, compress=logs.compress, format=logs.format)

    def reconfigure(self, logs: Logs) -> None:
        """What is captured from now on goes where ``logs`` says."""
        self._logs = logs
        for stream, where in (("stdout", logs.stdout), ("stderr", logs.stderr)):
            capture = self._captures.get(stream)
            if capture is not None and where not in ("inherit", "stdout"):
                capture.reconfigure(self._target(where))

    def run_started(self, run: int) -> None:
        """What comes from now on is of ``run``."""
        for capture in self.captures:
            capture.run_started(run)

    def reopen(self) -> None:
        """The files that have the paths now are written."""
        for capture in self.captures:
            capture.reopen()

    async def drain(self) -> None:
        """What was in the pipes is in the files."""
        for capture in self.captures:
            await capture.drain()

    async def aclose(self) -> None:
        """What was in the pipes is in the files, and nothing is held any more."""
        for stream, capture in list(self._captures.items()):
            await capture.aclose()
            self._pipes[stream].close()
        self._captures.clear()
        self._pipes.clear()

    def _report(self, report: object) -> None:
        """A loss, or its end, is a record."""
        self._around.bus.publish(**report.record(self._name))  # type: ignore[attr-defined]
