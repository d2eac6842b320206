from __future__ import annotations

import errno
import gc
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from supervisord_async.system import transfer
from supervisord_async.system.pipes import Pipe

pytestmark = pytest.mark.real


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe.open()
    yield made
    made.close()


def test_no_descriptor_for_a_copy_is_an_error_and_nothing_else(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(flags: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(transfer.os, "pipe2", refuse)
    with ThreadPoolExecutor(1) as fresh, pytest.raises(OSError, match="Too many open files"):  # a thread without a scratch pipe
        fresh.submit(transfer.peek, pipe.read_fd, 1).result()
    gc.collect()  # what an object that was not made whole complains of fails the test


def test_what_was_copied_and_could_not_be_read_is_not_taken_for_what_comes_next(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the log would get bytes twice, and nothing at all once the copies have filled their own pipe."""

    def without_memory(_fd: int, _count: int) -> bytes:
        raise MemoryError

    def serve() -> bytes:
        with monkeypatch.context() as patch, pytest.raises(MemoryError):
            patch.setattr(os, "read", without_memory)
            transfer.peek(pipe.read_fd, 100)
        assert os.read(pipe.read_fd, 100) == b"first\n"
        os.write(pipe.child_fd, b"second\n")
        return transfer.peek(pipe.read_fd, 100)

    os.write(pipe.child_fd, b"first\n")
    with ThreadPoolExecutor(1) as thread:  # the copies' pipe goes with it
        assert thread.submit(serve).result(60) == b"second\n"
