"""Changing the number of replicas at run time: gives the program that a file with that number would give. Pure."""

from __future__ import annotations

import os

from msgspec import structs

from supervisord_async.config.files import apart
from supervisord_async.config.model import Program
from supervisord_async.errors import FailedError

_MARK = "{replica}"


def rescaled(program: Program, replicas: int) -> Program:
    """``program`` with ``replicas`` processes, each with files of its own.

    Raises FailedError where they would share the heartbeat file that the configuration names.
    """
    if replicas == program.replicas:
        return program
    heartbeat = program.heartbeat
    if replicas > 1 and heartbeat is not None and heartbeat.file is not None and _MARK not in heartbeat.file:
        advice = f"put '{_MARK}' into it, or leave it out"
        raise FailedError(f"cannot scale {program.name}: {replicas} processes would share heartbeat.file {heartbeat.file} ({advice})")
    place = _shared if replicas == 1 else apart
    logs = structs.replace(program.logs, stdout=place(program.logs.stdout), stderr=place(program.logs.stderr))
    return structs.replace(program, replicas=replicas, logs=logs)


def _shared(path: str) -> str:
    """A log's path for a single process; the inverse of :func:`.apart`."""
    stem, suffix = os.path.splitext(path)
    return stem.removesuffix(f"-{_MARK}") + suffix
