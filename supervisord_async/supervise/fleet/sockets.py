"""The listening sockets of programs: bound once by the daemon, passed to every run, closed when the configuration drops them.

A client that connects while the program restarts, the file is reloaded or the daemon re-executes waits in the socket's
queue, and is not refused. All replicas of a program share its sockets. If the daemon is killed, the programs still have
duplicates, from which the next daemon gets the sockets back.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import stat
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import anyio
import msgspec

from supervisord_async.config.model import Program, Socket
from supervisord_async.errors import DaemonError, SpawnError
from supervisord_async.system import listening

if TYPE_CHECKING:
    from supervisord_async.supervise.host import Host

_log = logging.getLogger(__name__)

#: A start fails if the name in a socket's address has not been looked up for this long.
NAME_SECONDS = 10.0


class SavedSocket(msgspec.Struct, frozen=True):
    """What the next daemon needs to take a socket over: its descriptor after a re-exec, its inode after a death of the daemon."""

    program: str
    settings: Socket
    inode: int
    fd: int


class _Bound(msgspec.Struct, frozen=True):
    settings: Socket
    socket: socket.socket
    file: tuple[int, int] | None  #: device and inode of a unix socket's file


class SocketRegistry:
    """All listening sockets of one daemon's programs."""

    def __init__(self) -> None:
        self._bound: dict[tuple[str, str], _Bound] = {}
        self._lock: anyio.Lock | None = None
        self._watched: dict[str, select.epoll] = {}  #: by program, during :meth:`wait_connection`

    async def open(self, program: Program, host: Host) -> tuple[tuple[str, int], ...]:
        """Bind the sockets of ``program`` that are not bound yet; returns the name and descriptor of each, in the file's order.

        Raises SpawnError: stage ``socket`` where one cannot be bound, ``user`` for an unknown owner.
        """
        if not program.sockets:
            return ()
        if self._lock is None:
            self._lock = anyio.Lock()
        async with self._lock:  # as two replicas may start together
            for settings in program.sockets:
                await self._open(program.name, settings, host)
        try:
            return tuple((settings.name, self._bound[program.name, settings.name].socket.fileno()) for settings in program.sockets)
        except KeyError:
            raise SpawnError("socket", None, "a reload has closed one while another was being bound") from None

    async def _open(self, program: str, settings: Socket, host: Host) -> None:
        key = (program, settings.name)
        bound = self._bound.get(key)
        if bound is not None and bound.settings != settings:
            self._close(key)
            bound = None
        if bound is None:
            self._bound[key] = await _bind(settings, host)

    def descriptors(self, program: str) -> tuple[socket.socket, ...]:
        """The bound sockets of a program."""
        return tuple(bound.socket for (owner, _), bound in self._bound.items() if owner == program)

    async def wait_connection(self, program: str) -> bool:
        """Wait for a client at one of the program's sockets. True: there is one; False: a socket was closed. For one task at a time."""
        poll = self._watched[program] = listening.watched(self.descriptors(program))
        try:
            await anyio.wait_readable(poll)
        except anyio.ClosedResourceError:
            return False
        finally:
            del self._watched[program]
            poll.close()
        return True

    def retain(self, programs: Mapping[str, Program]) -> None:
        """Sockets that the configuration no longer has are closed; changed ones are bound again at the next run."""
        wanted = {(program.name, settings.name) for program in programs.values() for settings in program.sockets}
        for key in [key for key in self._bound if key not in wanted]:
            self._close(key)

    def saved(self) -> tuple[SavedSocket, ...]:
        """What the next daemon needs to take the sockets over."""
        return tuple(
            SavedSocket(program, bound.settings, listening.inode(bound.socket), bound.socket.fileno())
            for (program, _), bound in self._bound.items()
        )

    def inherit(self, saved: Iterable[SavedSocket], holders: Mapping[str, Iterable[int]], *, by_reexec: bool) -> None:
        """Take over the sockets of a former daemon: by descriptor after a re-exec, else from the living ``holders`` (PIDs by program)."""
        for each in saved:
            found = listening.adopt(each.fd, each.inode) if by_reexec else None
            for pid in holders.get(each.program, ()) if found is None else ():
                found = listening.take_back(pid, each.inode)
                if found is not None:
                    break
            if found is not None:
                self._bound[each.program, each.settings.name] = _Bound(each.settings, found, _file(each.settings))

    async def find(self, programs: Iterable[Program], holders: Mapping[str, Iterable[int]]) -> None:
        """Take over sockets that are not in the saved state from the living ``holders``: their addresses cannot be bound again."""
        for program in programs:
            for settings in program.sockets:
                for pid in holders.get(program.name, ()):
                    if (program.name, settings.name) in self._bound:
                        break
                    found = listening.given(pid, settings.name)
                    if found is not None and await _is_at(found, settings):
                        self._bound[program.name, settings.name] = _Bound(settings, found, _file(settings))
                    elif found is not None:
                        found.close()

    def close(self) -> None:
        """All sockets are closed, and the files of unix sockets removed."""
        for key in list(self._bound):
            self._close(key)

    def _close(self, key: tuple[str, str]) -> None:
        bound = self._bound.pop(key)
        if (poll := self._watched.get(key[0])) is not None:
            anyio.notify_closing(poll)  # ends wait_connection, so that its caller watches the new sockets
        bound.socket.close()
        if bound.file is not None and _file(bound.settings) == bound.file:
            try:
                os.unlink(bound.settings.path)
            except OSError as error:
                _log.warning("cannot remove the socket %s: %s", bound.settings.path, error.strerror)


def url(settings: Socket) -> str:
    """The address, as the configuration file writes it."""
    if settings.kind == "unix":
        return f"unix:{settings.path}"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{settings.kind}://{host}:{settings.port}"


async def _bind(settings: Socket, host: Host) -> _Bound:
    words = f"cannot bind {url(settings)}"
    try:
        if settings.kind == "unix":
            owner = await host.credentials(settings.user, None) if settings.user is not None else None
            uid = owner.uid if owner is not None else -1
            bound = listening.bind_unix(settings.path, mode=settings.mode, backlog=settings.backlog, uid=uid)
            return _Bound(settings, bound, _file(settings))
        family, address = await _address(settings)
        return _Bound(settings, listening.bind_inet(settings.kind, family, address[0], address[1], backlog=settings.backlog), None)
    except DaemonError as error:
        raise SpawnError("socket", None, str(error)) from error
    except socket.gaierror as error:
        raise SpawnError("socket", None, f"{words}: {error.strerror}") from error
    except UnicodeError as error:  # not a valid host name
        raise SpawnError("socket", None, f"{words}: {error}") from error
    except OSError as error:
        raise SpawnError("socket", error.errno, words) from error


async def _address(settings: Socket) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """The family and the numeric address of an inet socket. Raises socket.gaierror, and UnicodeError for an invalid host name."""
    kind = socket.SOCK_DGRAM if settings.kind == "udp" else socket.SOCK_STREAM
    try:
        with anyio.fail_after(NAME_SECONDS):
            found = await anyio.getaddrinfo(settings.host, settings.port, type=kind, flags=socket.AI_PASSIVE)
    except TimeoutError:
        raise socket.gaierror(socket.EAI_AGAIN, f"no name server has answered for {NAME_SECONDS:g} s") from None
    family, _, _, _, address = found[0]
    return family, (address[0], address[1])


async def _is_at(listener: socket.socket, settings: Socket) -> bool:
    """Whether ``listener`` has the address of ``settings``. A unix socket was renamed to its path and does not know it: any will do."""
    if settings.kind == "unix":
        return listener.family == socket.AF_UNIX and _file(settings) is not None
    kind = socket.SOCK_DGRAM if settings.kind == "udp" else socket.SOCK_STREAM
    try:
        wanted = await _address(settings)
    except (OSError, UnicodeError):
        return False
    return listener.type == kind and (listener.family, listener.getsockname()[:2]) == wanted


def _file(settings: Socket) -> tuple[int, int] | None:
    """Device and inode of the socket now at a unix socket's path; None if there is none."""
    if settings.kind != "unix":
        return None
    try:
        found = os.lstat(settings.path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None
