"""The HTTP server: uvicorn inside our own loop, listening on the unix socket and, if configured, on TCP.

Signals stay the daemon's, an idle server never wakes up, and its end never hangs. If TCP cannot be served, that is reported,
and the unix socket still answers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import h11

from supervisord_async.control.auth import Authorizer, TcpAccess, refuse_open_address, token_of
from supervisord_async.control.certificate import Certificate
from supervisord_async.control.connection import KEEP_ALIVE_SECONDS, Connection, most_connections
from supervisord_async.control.http import HEAD_LIMIT_BYTES, Application
from supervisord_async.control.operation import Api
from supervisord_async.control.stream import Streams
from supervisord_async.control.uvicorn_core import Config, ServerState
from supervisord_async.errors import DaemonError
from supervisord_async.supervise.retry import retry_on_shortage
from supervisord_async.system.accepting import Accepting
from supervisord_async.system.shortage import is_shortage
from supervisord_async.system.sockets import bind_unix, is_answered
from supervisord_async.system.threads import DaemonThreads

if TYPE_CHECKING:
    from supervisord_async.config.model import Daemon

#: How long requests under way may take at the daemon's end.
CLOSE_SECONDS = 2.0
#: How long those that are not answered by then have to notice that their clients are gone, before they are cancelled.
GONE_SECONDS = 0.2
#: The same before a re-exec, while new clients wait in the kernel's queue; and the time between two checks.
PAUSE_SECONDS = 0.5
PAUSE_POLL_SECONDS = 0.005
BACKLOG = 256
#: How long checking the certificate may delay checking the socket: its disk may hang, and be another one.
CERTIFICATE_SECONDS = 2.0
#: How long reading the token and the certificate may delay the answers of the unix socket.
FILES_SECONDS = 5.0
#: How long looking up the name in ``daemon.http`` may delay the answers of the unix socket.
NAME_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Listening:
    """The listening sockets, the unix socket first."""

    def __init__(
        self,
        daemon: Daemon,
        sockets: list[socket.socket],
        identity: tuple[int, int] | None,
        server: _Server,
        certificate: Certificate | None,
    ) -> None:
        """``identity`` is that of the unix socket's file."""
        self.sockets = sockets
        self._daemon, self._server, self._certificate = daemon, server, certificate
        self._identity = identity
        self._said: str | None = None
        self._said_of_certificate: str | None = None
        self._threads = DaemonThreads(1, "control-socket")
        self._certificate_threads = DaemonThreads(1, "certificate")

    async def renew(self) -> bool:
        """The unix socket is at its path; returns whether it was gone and a new one had to be bound.

        If it cannot be bound again, that is reported once. Open connections stay open. Waits for the disk however long it takes.
        New TLS connections use the certificate that is now in its files.
        """
        if self._certificate is not None:
            await self._renew_certificate(self._certificate)
        return await self._renew_socket()

    async def _renew_certificate(self, certificate: Certificate) -> None:
        try:
            with anyio.move_on_after(CERTIFICATE_SECONDS):
                await retry_on_shortage("look at the certificate", lambda: self._certificate_threads.run(certificate.renew))
        except DaemonError as error:
            if str(error) != self._said_of_certificate:
                _log.error("degraded: %s; the one before stays in use", error)
            self._said_of_certificate = str(error)
            return
        self._said_of_certificate = None
        if self._server.encrypt(certificate.context):
            _log.info("new connections over TCP have the certificate that was renewed")

    async def _renew_socket(self) -> bool:
        path = self._daemon.socket
        try:
            made = await retry_on_shortage(f"look after {path}", lambda: self._threads.run(self._bind_if_gone))
            if made is not None:
                self._exchange(made)
        except (DaemonError, OSError) as error:
            if str(error) != self._said:
                _log.error("degraded: the control socket %s was removed: %s; signals still work", path, error)
            self._said = str(error)
            return False
        self._said = None
        if made is not None:
            _log.warning("the control socket %s was removed; it was made again", path)
        return made is not None

    def _exchange(self, made: socket.socket) -> None:
        """``made`` replaces the former unix socket. Raises OSError if it cannot; then the next :meth:`renew` binds another one."""
        try:
            self._server.exchange(made)
        except OSError:  # such as no descriptor left
            made.close()
            self._identity = None
            raise
        self.sockets[0].close()
        self.sockets[0] = made

    def _bind_if_gone(self) -> socket.socket | None:
        """A new socket at the path; None if ours is still there. Runs in a thread, since the disk may hang. Raises DaemonError."""
        daemon, present = self._daemon, _identity(self._daemon.socket)
        if present is not None and present == self._identity:
            return None
        made = _bind_local(daemon)
        self._identity = _identity(daemon.socket)
        return made

    @property
    def descriptors(self) -> list[int]:
        """The sockets' file descriptors."""
        return [sock.fileno() for sock in self.sockets]

    async def pause(self) -> None:
        """No connection is left. New clients are not refused: the kernel queues them for the next daemon that listens."""
        await self._server.pause()

    async def resume(self) -> None:
        """After a pause: clients, also those that waited, are answered again."""
        self._server.startup()

    async def aclose(self) -> None:
        """The sockets are closed, and the unix socket's file is removed if it is still ours and its disk answers in time."""
        for sock in self.sockets:
            sock.close()
        with anyio.move_on_after(CLOSE_SECONDS, shield=True), suppress(OSError):  # no thread can be started: the file stays
            await self._threads.run(self._unlink_if_ours)

    def _unlink_if_ours(self) -> None:
        if self._identity is not None and _identity(self._daemon.socket) == self._identity:
            with suppress(OSError):
                os.unlink(self._daemon.socket)


@asynccontextmanager
async def listening(daemon: Daemon, api: Api, inherited: Sequence[int] = ()) -> AsyncIterator[Listening]:
    """``api`` answers on the sockets that ``daemon`` configures: on ``inherited`` ones that match, and on new ones for the rest."""
    adopted = [socket.socket(fileno=fd) for fd in inherited]
    try:
        local, identity = await _local_off_the_loop(daemon, adopted)
        try:
            tcp, access, certificate = await _tcp(daemon, api, adopted)
        except BaseException:
            local.close()
            raise
        while adopted:  # no longer configured: close them, so that clients there are refused instead of waiting for ever
            adopted.pop().close()
        api.page_url = access.url if access is not None else None
        sockets = [(local, None)] + ([(tcp, certificate.context if certificate is not None else None)] if tcp is not None else [])
        server = _Server(Application(api, Authorizer(group=daemon.socket_group, tcp=access)), sockets, api.streams)
        listeners = Listening(daemon, [sock for sock, _ in sockets], identity, server, certificate)
        try:
            server.startup()
            yield listeners
        finally:
            with anyio.CancelScope(shield=True):
                await server.leave()
            await listeners.aclose()
    finally:
        for sock in adopted:
            sock.close()


async def _local_off_the_loop(daemon: Daemon, adopted: list[socket.socket]) -> tuple[socket.socket, tuple[int, int] | None]:
    """As :func:`_local`, in a thread, as the socket's disk may hang; on the loop if none can be started."""
    try:
        return await DaemonThreads(1, "bind").run(_local, daemon, adopted)
    except OSError as error:
        if not is_shortage(error):
            raise
        return _local(daemon, adopted)


def _local(daemon: Daemon, adopted: list[socket.socket]) -> tuple[socket.socket, tuple[int, int] | None]:
    """The unix socket, one of ``adopted`` if that still leads here, and the identity of its file. Raises DaemonError."""
    taken = _taken(adopted, lambda sock: sock.family == socket.AF_UNIX and _leads_to_us(daemon.socket))
    return taken or _bind_local(daemon), _identity(daemon.socket)


def _taken(adopted: list[socket.socket], matches: Callable[[socket.socket], bool]) -> socket.socket | None:
    """The first of ``adopted`` that ``matches``, removed from there; None if there is none."""
    found = next(filter(matches, adopted), None)
    if found is not None:
        adopted.remove(found)
        found.setblocking(False)
    return found


def _leads_to_us(path: str) -> bool:
    """Whether a connection to ``path`` reaches this process: a socket from before the re-exec."""
    try:
        return is_answered(path, by=os.getpid())
    except OSError:
        return False


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


async def _tcp(daemon: Daemon, api: Api, adopted: list[socket.socket]) -> tuple[socket.socket | None, TcpAccess | None, Certificate | None]:
    """The TCP socket with its token and certificate; None for each if none is configured, or if it cannot be served, which is reported."""
    api.http_trouble = None
    if daemon.http is None:
        return None, None, None
    host, port = daemon.http
    try:
        refuse_open_address(host, tls=daemon.http_tls is not None, insecure=daemon.http_insecure)
        token, certificate = await _files_of(daemon)
        sock = _taken(adopted, lambda sock: sock.family != socket.AF_UNIX and sock.getsockname()[1] == port) or await _bind_tcp(host, port)
    except DaemonError as error:
        _log.error("degraded: no HTTP over TCP: %s", error)
        api.http_trouble = str(error)
        return None, None, None
    return sock, TcpAccess(host=host, port=sock.getsockname()[1], token=token, tls=certificate is not None), certificate


async def _files_of(daemon: Daemon) -> tuple[str, Certificate | None]:
    """The token and the certificate, read off the loop. Raises DaemonError, also if that takes longer than :data:`FILES_SECONDS`."""
    path, threads = daemon.http_token_file or Path(daemon.run_dir) / "http.token", DaemonThreads(1, "http-files")
    try:
        with anyio.fail_after(FILES_SECONDS):
            token = await threads.run(token_of, path)
            return token, await threads.run(Certificate, daemon.http_tls) if daemon.http_tls is not None else None
    except TimeoutError:
        words = f"the disk of {path}, or of the certificate, has not answered for {FILES_SECONDS:g} s"
        raise DaemonError(f"cannot read the files of daemon.http: {words}") from None


def _bind_local(daemon: Daemon) -> socket.socket:
    return bind_unix(daemon.socket, daemon.socket_mode, daemon.socket_group, backlog=BACKLOG)


async def _bind_tcp(host: str, port: int) -> socket.socket:
    """Raises DaemonError, also if the name of the host has not been looked up within :data:`NAME_SECONDS`."""
    words = f"cannot bind {host}:{port}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with anyio.fail_after(NAME_SECONDS):
            found = await anyio.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return _listener(family, found[0][4])
    except TimeoutError:
        raise DaemonError(f"{words}: no name server has answered for {NAME_SECONDS:g} s") from None
    except (OSError, UnicodeError) as error:  # UnicodeError: not a valid host name
        raise DaemonError(f"{words}: {getattr(error, 'strerror', None) or error}") from error


def _listener(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


class _Server:
    """Serves an application by uvicorn's connections, on our own sockets; uvicorn's server would handle signals, and tick."""

    def __init__(self, app: Application, sockets: list[tuple[socket.socket, ssl.SSLContext | None]], streams: Streams) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # a malformed request is not worth a warning
        self._config = Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            h11_max_incomplete_event_size=HEAD_LIMIT_BYTES,
        )
        self._config.load()
        self.state = ServerState()
        self.state.default_headers = [(b"x-content-type-options", b"nosniff")]
        self._sockets, self._streams = sockets, streams
        self._accepting: list[Accepting] = []

    def startup(self) -> None:
        """All sockets are listened on, each with its own TLS or none."""
        for accepting in self._accepting:  # of an earlier attempt, which had no descriptor for all
            accepting.close()
        self._accepting = []
        for sock, tls in self._sockets:
            self._accepting.append(self._listen(sock, tls))

    def exchange(self, sock: socket.socket) -> None:
        """``sock`` is listened on instead of the first socket; open connections stay."""
        former, self._accepting[0] = self._accepting[0], self._listen(sock, None)
        self._sockets[0] = sock, None
        former.close()

    def encrypt(self, tls: ssl.SSLContext) -> bool:
        """New TLS connections use ``tls`` from now on; returns whether they used another context before."""
        changed = False
        for index, (sock, former) in enumerate(self._sockets):
            if former is not None and former is not tls:
                self._sockets[index] = sock, tls
                self._accepting[index].tls = tls
                changed = True
        return changed

    def _listen(self, sock: socket.socket, tls: ssl.SSLContext | None) -> Accepting:
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            return Connection(config=self._config, server_state=self.state, app_state={}, _loop=loop)

        listener = sock.dup()
        listener.setblocking(False)
        listener.listen(BACKLOG)
        return Accepting(listener, protocol, tls, most_connections() // 2)

    async def pause(self) -> None:
        """No connection is accepted or left. Requests under way were answered, if that took less than :data:`PAUSE_SECONDS`.

        A client that has connected but sent nothing yet is about to, so it is waited for as well. Streams are cut: their clients
        know how to resume.
        """
        for accepting in self._accepting:
            accepting.close()
        connections: Any = self.state.connections
        with anyio.move_on_after(PAUSE_SECONDS):
            for accepting in self._accepting:
                await accepting.introduced()
            while len(connections) > self._streams.open:
                for connection in list(connections):
                    if connection.has_asked:
                        connection.shutdown()
                await anyio.sleep(PAUSE_POLL_SECONDS)
        for connection in list(connections):
            connection.transport.abort()

    async def leave(self) -> None:
        """No connection is accepted or left; requests under way had :data:`CLOSE_SECONDS` to be answered."""
        for accepting in self._accepting:
            accepting.close()
        self._streams.close()
        state = self.state
        for connection in list(state.connections):
            with suppress(h11.LocalProtocolError):  # the client sent something that is not HTTP: already closing
                connection.shutdown()
        tasks = list(state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
        for connection in list(state.connections):
            connection.transport.abort()  # whoever still waits for a client, for the rest of its request perhaps, takes it for gone
        if late := list(state.tasks):
            _, hanging = await asyncio.wait(late, timeout=GONE_SECONDS)
            for task in hanging:
                task.cancel()
            if hanging:
                await asyncio.wait(hanging, timeout=1.0)
        with anyio.move_on_after(1.0):
            while state.connections:  # noqa: ASYNC110  uvicorn's set has no event to wait for
                await anyio.sleep(0.01)
