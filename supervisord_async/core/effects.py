"""The actions that the machine may order, named in the imperative. The driver carries them out and answers with inputs."""

from __future__ import annotations

import msgspec


class Effect(msgspec.Struct, frozen=True):
    """An action for the driver to carry out."""


class Spawn(Effect, frozen=True):
    """Start a run; answered by Spawned or SpawnFailed."""

    run: int


class Terminate(Effect, frozen=True):
    """Ask the run's remaining processes to exit, as its ``stop`` settings say."""

    run: int


class Kill(Effect, frozen=True):
    """Send KILL to all that still lives of the run."""

    run: int


class SendSignal(Effect, frozen=True):
    """Send one signal to the run's main process."""

    run: int
    signal: int


class ShutDown(Effect, frozen=True):
    """Stop everything and end the daemon: this process reached its restart limit with ``on_limit: shutdown``."""

    detail: str
