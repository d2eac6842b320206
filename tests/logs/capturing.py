"""A capture on a real pipe, as the daemon has it, with a hand on the child's end."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.lowlevel

from supervisord_async.logs import rotation
from supervisord_async.logs.capture import Capture
from supervisord_async.logs.journal import Journal
from supervisord_async.logs.target import LossReport, Target
from supervisord_async.logs.writer import Writer
from supervisord_async.system.pipes import Pipe


def everything(path: str | Path) -> bytes:
    """A log with all its backups, the oldest first."""
    files = [file for _, file in reversed(rotation.backups_of(str(path)))] + [str(path)]
    parts = [Path(file).read_bytes() for file in files if os.path.exists(file)]
    return b"".join(gzip.decompress(part) if file.endswith(".gz") else part for file, part in zip(files, parts, strict=True))


class Captured:
    """What a test holds of one stream."""

    def __init__(self, writer: Writer, target: Target, name: str = "web", journal: Journal | None = None) -> None:
        self.writer = writer
        self.pipe = Pipe.open()
        self.losses: list[LossReport] = []
        self.echoed: list[bytes] = []
        self.journal = journal or Journal(None)
        self.target = target
        self.name = name
        self.capture = self.make_capture()

    def make_capture(self) -> Capture:
        """A capture of this pipe; not started."""
        return Capture(
            self.pipe,
            self.target,
            process_name=self.name,
            stream="stdout",
            writer=self.writer,
            on_loss=self.losses.append,
            journal=self.journal,
        )

    def with_echo(self) -> Captured:
        """The same, echoed; before it is started."""
        self.capture.echo = self.echoed.append
        return self

    def say(self, data: bytes) -> None:
        """The child writes ``data``, which must fit into the pipe."""
        os.set_blocking(self.pipe.child_fd, False)
        try:
            assert os.write(self.pipe.child_fd, data) == len(data)
        finally:
            os.set_blocking(self.pipe.child_fd, True)

    async def say_all(self, data: bytes) -> None:
        """The child writes ``data``, of any size, waiting as a child waits."""
        view = memoryview(data)

        def write() -> None:
            rest = view
            while rest:
                rest = rest[os.write(self.pipe.child_fd, rest) :]

        done = anyio.Event()
        error: list[BaseException] = []
        token = anyio.lowlevel.current_token()

        def run() -> None:
            try:
                write()
            except BaseException as caught:
                error.append(caught)
            anyio.from_thread.run_sync(done.set, token=token)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        await done.wait()
        thread.join()
        assert not error, error


@asynccontextmanager
async def captured(target: Target, *others: Target, journal: Journal | None = None, start: bool = True) -> AsyncIterator[list[Captured]]:
    """Captures of ``target`` and ``others``, started; closed afterwards, with everything that they hold."""
    writer = Writer()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run)
        streams = [Captured(writer, each, f"web:{number}", journal) for number, each in enumerate((target, *others))]
        try:
            if start:
                for stream in streams:
                    stream.capture.start()
            yield streams
        finally:
            for stream in streams:
                await stream.capture.aclose()
                stream.pipe.close()
            await writer.aclose()
