"""What every verb shares: which daemon, which output. How options say so is ``options``'."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from supervisord_async.cli.locate import Target, locate

if TYPE_CHECKING:
    from supervisord_async.client import Client
    from supervisord_async.client.asking import Asking


class Session:
    """One call of asupctl: its options, and the client that they lead to."""

    __slots__ = ("_target", "file", "json", "socket")

    def __init__(self, file: str | None = None, socket: str | None = None, *, json: bool = False) -> None:
        self.file, self.socket, self.json = file, socket, json
        self._target: Target | None = None

    @property
    def target(self) -> Target:
        """The daemon that is meant; raises as :func:`locate`."""
        if self._target is None:
            self._target = locate(self.file, self.socket)
        return self._target

    def use(self, target: Target) -> None:
        """Whatever the options say, ``target`` is meant."""
        self._target = target

    def look_again(self) -> None:
        """Where the daemon is will be looked up once more: a new one may have the socket that its file names by now."""
        self._target = None

    def advice(self, error: Exception) -> str:
        """How to start the daemon that was not there, by ``error``; nothing where none was looked for.

        A socket's file that nobody listens at is that of a daemon that was killed.
        """
        if self._target is None:
            return ""
        died = isinstance(error.__cause__, ConnectionRefusedError) and not os.path.isdir(self._target.socket)
        words = "; the last one died, and what it ran may live on: the next one takes it back, `asupctl cleanup` shows it"
        return self._target.advice + (words if died else "")

    def asking(self) -> Asking:
        """As :meth:`client`, of one that only asks: it is loaded sooner."""
        from supervisord_async.client.asking import Asking

        return Asking(self.target.socket)

    def client(self, *, timeout_seconds: float = 30.0) -> Client:
        """A new client of that daemon."""
        from supervisord_async.client import Client

        return Client(self.target.socket, timeout_seconds=timeout_seconds)
