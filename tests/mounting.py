"""File systems of a test's own. Where this machine lets nobody mount any, the test says so and is skipped."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, *how: str) -> Iterator[Path]:
    """``folder``, made if need be, is what ``mount HOW… folder`` makes of it; ended also while something of it is open."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *how, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NOT TESTED: cannot mount: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def small_disk(folder: Path, size: str = "1m") -> AbstractContextManager[Path]:
    """``folder`` is a file system of that size."""
    return mounted(folder, "-t", "tmpfs", "-o", f"size={size}", "tmpfs")


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """What is opened on ``disk`` meanwhile is on a file system that has become read-only, as ext4 does after an error."""
    with mounted(disk, "-o", "bind", str(disk)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)
        yield
