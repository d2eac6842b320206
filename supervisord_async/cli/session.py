"""What every verb shares: which daemon is meant, and whether to print JSON. The options that set this are in ``options``."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from supervisord_async.cli.locate import Target, is_socket, locate
from supervisord_async.errors import SupervisordError

if TYPE_CHECKING:
    from supervisord_async.client import Client
    from supervisord_async.client.json_client import JsonClient


#: How long to wait for an answer that a daemon gives from memory, usually within milliseconds: the user waits and wants to know why.
STATUS_SECONDS = 10.0
#: How long to wait for what a reload would do: it is no more than advice.
PLAN_SECONDS = 2.0


class Session:
    """One call of asupctl: its global options, and clients of the daemon that they mean."""

    __slots__ = ("_target", "file", "json", "socket")

    def __init__(self, file: str | None = None, socket: str | None = None, *, json: bool = False) -> None:
        self.file, self.socket, self.json = file, socket, json
        self._target: Target | None = None

    @property
    def target(self) -> Target:
        """The daemon that is meant. Raises as :func:`locate` does."""
        if self._target is None:
            self._target = locate(self.file, self.socket)
        return self._target

    def use(self, target: Target) -> None:
        """From now on ``target`` is meant, whatever the options say."""
        self._target = target

    def look_again(self) -> None:
        """The daemon will be located anew: a new one may listen at another socket, which the file names now."""
        self._target = None

    def advice(self, error: Exception) -> str:
        """How to start the daemon that, by ``error``, was not there; empty if none was located.

        A socket file at which nobody listens was left by a daemon that was killed.
        """
        if self._target is None:
            return ""
        died = isinstance(error.__cause__, ConnectionRefusedError) and is_socket(self._target.socket)
        words = "; the last one died, and its programs may still run: the next one takes them back, `asupctl cleanup` shows them"
        return self._target.advice + (words if died else "")

    def plan(self) -> dict[str, Any]:
        """What a reload would do by now, as the API tells it; empty if that cannot be told soon."""
        document: dict[str, Any] = {}
        with suppress(SupervisordError), self.client() as client:
            document = client.request("POST", "/v1/reload", {"plan": "true"}, silence_seconds=PLAN_SECONDS)
        return document.get("plan") or {}

    def json_client(self) -> JsonClient:
        """As :meth:`client`, but a client for plain queries only, which is quicker to import."""
        from supervisord_async.client.json_client import JsonClient

        return JsonClient(self.target.socket, timeout_seconds=STATUS_SECONDS)

    def client(self, *, timeout_seconds: float = 30.0) -> Client:
        """A new client of the daemon that is meant."""
        from supervisord_async.client import Client

        return Client(self.target.socket, timeout_seconds=timeout_seconds)
