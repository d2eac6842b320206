"""What the machine may order. Imperative; the driver carries them out and answers with inputs."""

from __future__ import annotations

import msgspec


class Effect(msgspec.Struct, frozen=True):
    """Something to be done."""


class Spawn(Effect, frozen=True):
    """Start a run; answered by Spawned or SpawnFailed."""

    run: int


class Terminate(Effect, frozen=True):
    """Ask whatever lives of the run to go, the way its ``stop`` settings say."""

    run: int


class Kill(Effect, frozen=True):
    """End whatever lives of the run."""

    run: int


class SendSignal(Effect, frozen=True):
    """Send one signal to the run's main process."""

    run: int
    signal: int


class ShutDown(Effect, frozen=True):
    """End the daemon, because this process's limit says so."""

    detail: str
