"""What the last load made of each program, so that a reload resolves only those that have changed in the file.

A program that reads as it did, below the same ``defaults``, in the same folder, with the same run_dir and variables, is
the same program. Two things are never taken from here: a program with anything to report, which must be reported again,
and one with ``environment_files``, whose contents are others' business. What concerns several programs is checked each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from supervisord_async.config.model import Program

Reading: TypeAlias = tuple[bytes, bytes]  #: of what lies under a program, and of what its own section says


class Recollection:
    """The programs of the last sound file by name, each with its reading."""

    def __init__(self) -> None:
        self._run_dir = ""
        self._variables: Mapping[str, str] = {}
        self._programs: dict[str, tuple[Reading, Program]] = {}

    def programs(self, run_dir: str, variables: Mapping[str, str]) -> Mapping[str, tuple[Reading, Program]]:
        """What may be used again with this run_dir and these variables."""
        return self._programs if run_dir == self._run_dir and variables == self._variables else {}

    def replace(self, run_dir: str, variables: Mapping[str, str], programs: dict[str, tuple[Reading, Program]]) -> None:
        """``programs`` is what the file says now."""
        self._run_dir, self._variables, self._programs = run_dir, variables, programs


def reading_of(data: Any) -> bytes | None:
    """The same bytes for the same data, types and order included; None where there are none, as of a variable that is not UTF-8."""
    try:
        return hashlib.blake2b(msgspec.msgpack.encode(data), digest_size=16).digest()
    except (UnicodeEncodeError, OverflowError):
        return None
