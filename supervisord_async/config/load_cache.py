"""The programs of the last load, so that a reload resolves only those that have changed in the file.

A program with the same text, under the same ``defaults``, in the same folder, with the same run_dir and variables, is
the same program. Two kinds are never remembered: a program with a problem, which has to be reported again, and one with
``environment_files``, whose contents may have changed. Checks across programs are made at each load.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from supervisord_async.config.model import Program

Digests: TypeAlias = tuple[bytes, bytes]  #: digests of the ``defaults`` under a program, and of its own section


class LoadCache:
    """The programs of the last sound file by name, each with its digests."""

    def __init__(self) -> None:
        self._run_dir = ""
        self._variables: Mapping[str, str] = {}
        self._programs: dict[str, tuple[Digests, Program]] = {}

    def programs(self, run_dir: str, variables: Mapping[str, str]) -> Mapping[str, tuple[Digests, Program]]:
        """The remembered programs if this run_dir and these variables are the same as then; else none."""
        return self._programs if run_dir == self._run_dir and variables == self._variables else {}

    def replace(self, run_dir: str, variables: Mapping[str, str], programs: dict[str, tuple[Digests, Program]]) -> None:
        """``programs`` are remembered, and nothing else."""
        self._run_dir, self._variables, self._programs = run_dir, variables, programs


def digest_of(data: Any) -> bytes | None:
    """A digest, equal for equal data, types and order included; None if data cannot be encoded, such as text that is not UTF-8."""
    try:
        return hashlib.blake2b(msgspec.msgpack.encode(data), digest_size=16).digest()
    except (UnicodeEncodeError, OverflowError):
        return None
