from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from supervisord_async.system import identity


@pytest.fixture(autouse=True)
def unasked() -> None:
    """As in a process that has just begun."""
    identity.boot_id.cache_clear()


def test_a_boot_that_cannot_be_asked_for_just_now_is_not_taken_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object, **__: object) -> str:
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Too many open files"):
        patch.setattr(Path, "read_text", none_left)
        identity.boot_id()
    assert identity.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_where_nobody_tells_the_boot_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", closed)
        assert identity.boot_id() == ""
    identity.boot_id.cache_clear()
