"""Lies told to a process by a library that is loaded before its own: clocks that jump, files whose device fails.

What it does not reach: clocks that the kernel itself goes by (the times of files that are written, timeouts that run),
programs without a C library of the system's, and what a library calls within itself.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "real" / "liar.c"
#: Calls that fail, as in the source.
WRITING, SYNCING, RENAMING, READING, CREATING = 1, 2, 4, 8, 16
EVERYTHING = WRITING | SYNCING | RENAMING | READING | CREATING
PATHS = 4
_CLOCKS = struct.Struct("=qq")
_FAILURES = struct.Struct("=qqq" + "256s" * PATHS)


class Liar:
    """Nothing but the truth at first. Whatever runs with :attr:`environment` hears every lie at once, its children too."""

    def __init__(self, folder: Path) -> None:
        """The library is built in ``folder``; skips the test where there is no compiler."""
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("NOT TESTED: a machine that lies; needs a C compiler")
        library, control = folder / "liar.so", folder / "lies"
        command = [compiler, "-std=gnu11", "-O1", "-Wall", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        control.write_bytes(bytes(_CLOCKS.size + _FAILURES.size))
        self.environment = {"LD_PRELOAD": str(library), "LIAR_CONTROL": str(control)}
        with control.open("r+b") as file:
            self._lies = mmap.mmap(file.fileno(), 0)

    def close(self) -> None:
        """Who is lied to hears the lies of now for ever."""
        self._lies.close()

    def jump(self, seconds: float, *, boottime_seconds: float = 0.0) -> None:
        """The wall clock, and that of the time since boot, show so much more than the truth, or less."""
        _CLOCKS.pack_into(self._lies, 0, int(seconds * 1e9), int(boottime_seconds * 1e9))

    @contextmanager
    def failing(self, *beginnings: Path, kinds: int = EVERYTHING, error: int = errno.EIO) -> Iterator[None]:
        """Meanwhile these calls fail with ``error`` on files whose paths begin so."""
        paths = [os.fsencode(path) for path in beginnings]
        assert len(paths) <= PATHS and all(len(path) < 256 for path in paths)
        _FAILURES.pack_into(self._lies, _CLOCKS.size, error, kinds, 0, *paths, *[b""] * (PATHS - len(paths)))
        try:
            yield
        finally:
            struct.pack_into("=q", self._lies, _CLOCKS.size, 0)

    @property
    def told(self) -> int:
        """How many calls have failed since the last failing began."""
        return int(_FAILURES.unpack_from(self._lies, _CLOCKS.size)[2])
