"""Subprocesses of the loop by ``subprocess.Popen`` and a pidfd: no thread, no child watcher, no SIGCHLD.

asyncio's own transport does the pipes and the protocol. What differs is how a child is spawned (every argument of
Popen works, also on uvloop), how its end is noticed (:mod:`.child`), and that closing a transport never kills:
whether a child outlives the daemon is for its supervisor to decide.

Popen returns when the child has executed its program or failed to, so a program on a file system that hangs
blocks the loop that long.
"""

from __future__ import annotations

import os
import signal
import subprocess
from asyncio import base_subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from supervisord_async.system import procfs
from supervisord_async.system.child import Child, Ended, watched
from supervisord_async.system.identity import of

#: After this many turns of the loop a new child has most likely executed its program. A transport takes as many to connect.
TURNS_TO_EXECUTE = 2


def start_child(loop: Any, args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
    """Start a child, which only a later :func:`watch` will reap; ``kwargs`` are Popen's.

    ``loop`` is a :class:`PopenSubprocesses`. Raises what Popen raises.
    """
    with loop.around_fork():
        process = subprocess.Popen(args, **kwargs)
    watched.add(process.pid)
    return process


def watch(loop: Any, process: subprocess.Popen[bytes], room: int = 0) -> Child:
    """Watch for the end of a child of :func:`start_child`.

    Raises OSError if no descriptor is free besides ``room`` that are reserved; then the child was killed.

    To be called :data:`TURNS_TO_EXECUTE` turns of the loop after the start: while a child is still executing its program (some
    0.3 ms), the kernel blocks readers of its /proc/PID/stat. By then it has done so, and other children were started meanwhile.
    """
    try:
        born = procfs.stat(process.pid)  # our unreaped child: it is there even if it has ended
        if born is None:
            raise ProcessLookupError(f"/proc does not show our own child {process.pid}: is /proc mounted?")
        return Child(loop, of(born), ours=True, room=room)
    except BaseException:
        kill_unowned(process.pid)
        process.wait()
        watched.discard(process.pid)
        raise


def kill_unowned(pid: int) -> None:
    """Kill a child of ours that nobody will ever own, with what it has forked by now, as far as that stayed in its group.

    It must not be reaped yet: until then neither its PID nor its group can be a stranger's.
    """
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # it leads no group
        os.kill(pid, signal.SIGKILL)


class PidfdTransport(base_subprocess.BaseSubprocessTransport):
    """The transport of one child of ours."""

    child: Child
    _proc: subprocess.Popen[bytes] | None
    _protocol: Any
    _loop: Any  #: a loop that is a :class:`PopenSubprocesses`
    _returncode: int | None

    def _start(
        self,
        args: Any,
        shell: bool,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        bufsize: int,
        **kwargs: Any,
    ) -> None:
        self._proc = start_child(self._loop, args, shell=shell, stdin=stdin, stdout=stdout, stderr=stderr, bufsize=bufsize, **kwargs)

    def watch_exit(self) -> None:
        """Watch for the child's end. Raises OSError; then the child was killed: see :func:`watch`."""
        process = self._proc
        assert process is not None  # noqa: S101  not closed yet
        try:
            self.child = watch(self._loop, process)
        except BaseException:
            self._returncode = process.returncode
            super().close()
            raise
        self.child.on_end(self._ended)

    def disown(self) -> None:
        """Kill the child, which nobody will ever own; it is reaped when it is dead. Instead of :meth:`watch_exit`."""
        assert self._proc is not None  # noqa: S101  not closed yet
        kill_unowned(self._proc.pid)
        self.watch_exit()
        self.close()

    def close(self) -> None:
        """Close the pipes, if any; the child is left alone, and still reaped when it ends."""
        if self._proc is not None and self._returncode is None:
            # The base class kills, and polls, a child that has no return code yet.
            process, self._proc = self._proc, None
            super().close()
            self._proc = process
        else:
            super().close()

    def _ended(self, ended: Ended) -> None:
        code, number = ended.status.code, ended.status.signal
        returncode = code if code is not None else -number if number is not None else 255
        if self._proc is not None:
            self._proc.returncode = returncode  # else Popen's finalizer would wait for the PID, whoever has it by then
        self._process_exited(returncode)


class PopenSubprocesses:
    """Makes ``asyncio.create_subprocess_exec`` and ``…_shell`` take every argument of Popen. A mixin for a loop."""

    #: The context in which children are forked, and whose effects they inherit (a signal mask).
    around_fork: Callable[[], AbstractContextManager[None]] = staticmethod(nullcontext)

    async def subprocess_exec(
        self,
        protocol_factory: Callable[[], Any],
        program: Any,
        *args: Any,
        stdin: Any = subprocess.PIPE,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
        **kwargs: Any,
    ) -> Any:
        """A transport and its protocol. Raises what Popen raises, and OSError without a free descriptor."""
        return await _connect(self, protocol_factory, [program, *args], False, stdin, stdout, stderr, kwargs)

    async def subprocess_shell(
        self,
        protocol_factory: Callable[[], Any],
        cmd: Any,
        *,
        stdin: Any = subprocess.PIPE,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
        **kwargs: Any,
    ) -> Any:
        """Like :meth:`subprocess_exec`, for a command line that /bin/sh reads."""
        return await _connect(self, protocol_factory, cmd, True, stdin, stdout, stderr, kwargs)


async def _connect(
    loop: Any, protocol_factory: Callable[[], Any], args: Any, shell: bool, stdin: Any, stdout: Any, stderr: Any, kwargs: dict[str, Any]
) -> Any:
    if kwargs.pop("shell", shell) is not shell or kwargs.pop("bufsize", 0) != 0:
        raise ValueError("shell and bufsize are fixed by the call")
    for name in ("universal_newlines", "text", "encoding", "errors"):
        if kwargs.pop(name, None):
            raise ValueError(f"{name}: streams of a loop carry bytes")
    protocol = protocol_factory()
    connected = loop.create_future()
    transport = PidfdTransport(loop, protocol, args, shell, stdin, stdout, stderr, 0, waiter=connected, **kwargs)
    try:
        await connected
    except BaseException:  # cancelled just after the fork
        transport.disown()
        raise
    transport.watch_exit()
    return transport, protocol
