"""Starting a run's main process, in a clean environment, and only as the user that it is to run as.

The child has a session of its own, /dev/null as stdin, no descriptor of ours but stdio and ``pass_fds``, no blocked and
no ignored signal (see :func:`.signals.reset_inherited`). Its program is looked up in its own PATH, relative paths from its
own directory. If any of that fails nothing runs, and the error says at which stage.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import PurePath
from typing import Any

import msgspec
from msgspec.structs import replace

from supervisord_async.errors import SpawnError
from supervisord_async.system import descriptors, oom, own_python, procfs
from supervisord_async.system.child import Child, watched
from supervisord_async.system.credentials import Credentials, may_switch
from supervisord_async.system.disks import Executable
from supervisord_async.system.identity import of
from supervisord_async.system.limits import Refusal, through_launcher, wait_executed

#: After this many turns of the loop a new child has most likely executed its program.
_TURNS_TO_EXECUTE = 2
#: The context in which every child is forked, and whose effects it inherits, such as a signal mask; :mod:`.terminal` sets another.
fork_context: Callable[[], AbstractContextManager[None]] = nullcontext


class SpawnSpec(msgspec.Struct, frozen=True):
    """Everything that a spawn needs; nothing is taken from our own environment."""

    argv: tuple[str, ...]
    directory: str
    environment: Mapping[str, str]  #: all of the child's environment
    stdout: int  #: a descriptor that we own
    stderr: int  #: a descriptor that we own
    credentials: Credentials | None = None  #: None: ours
    umask: int | None = None  #: None: ours
    pass_fds: tuple[int, ...] = ()  #: have the same numbers in the child
    limits: Mapping[str, str] = {}  #: by the keys of :data:`.launcher.STEPS`; what is not in it is as ours
    listen_fds: tuple[int, ...] = ()  #: have the numbers 3, 4, … in the child
    pid_variables: tuple[str, ...] = ()  #: variables to set to the child's own PID
    stdin: int = subprocess.DEVNULL  #: a descriptor that we own; default: /dev/null
    session: bool = True  #: True: the child leads a session of its own; False: it stays in our session and process group
    room: int = 0  #: how many descriptors must stay free besides the one by which its end is noticed
    confined: bool = False  #: it is to have a cgroup of its own, if possible; that is left to the caller of :func:`spawn`
    around_fork: AbstractContextManager[None] | None = None  #: the context in which to fork; the loop does not turn in it


async def spawn(spec: SpawnSpec) -> Child:
    """Start a process; return when its program has been executed.

    Raises SpawnError, with one of these stages: ``user``, we may not become that user; ``directory``, it cannot be entered;
    ``exec``, the program does not exist, is not executable, or needs an interpreter that is missing; ``limits``, the
    kernel refuses one; ``fork``, the system has no process, memory or descriptor left.
    """
    if not spec.argv:
        raise SpawnError("exec", errno.EINVAL, "an empty command")
    if spec.limits or spec.listen_fds or spec.pid_variables:
        return await _spawn_launched(spec)
    return await _spawn(spec, spec.argv, _identity_arguments(spec.credentials))


async def _spawn_launched(spec: SpawnSpec) -> Child:
    """As :func:`spawn`, by way of the launcher, which becomes the user only after it has set limits that perhaps only we may set."""
    identity = spec.credentials if _identity_arguments(spec.credentials) else None
    try:
        reading, writing = os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        raise SpawnError("fork", error.errno, spec.argv[0]) from error
    try:
        try:
            argv = through_launcher(spec.argv, spec.limits, identity, writing, spec.listen_fds, spec.pid_variables)
            launched = replace(spec, pass_fds=(*spec.pass_fds, *spec.listen_fds, writing))
            child = await _spawn(launched, argv, {}, own_files="open_files" in spec.limits)
        finally:
            os.close(writing)
        try:
            refusal = await wait_executed(reading)
        except BaseException:  # cancelled, most likely: the caller will never know this child
            child.send_signal(signal.SIGKILL)
            child.close()
            raise
    finally:
        os.close(reading)
    if refusal is None:
        return child
    await child.wait()
    child.close()
    raise _explain_refusal(spec, refusal)


def _explain_refusal(spec: SpawnSpec, refusal: Refusal) -> SpawnError:
    if refusal.stage == "launcher":
        return SpawnError("exec", None, f"{spec.argv[0]}: {refusal.words}")
    if refusal.stage == "exec":
        return _explain(spec, OSError(refusal.errno, os.strerror(refusal.errno), spec.argv[0]))
    if refusal.stage == "user" and spec.credentials is not None:
        return SpawnError("user", refusal.errno, f"cannot become {spec.credentials.name}")
    return SpawnError(refusal.stage, refusal.errno, f"the kernel refuses {refusal.words}")


async def _spawn(spec: SpawnSpec, argv: Sequence[str], identity: dict[str, Any], *, own_files: bool = False) -> Child:
    """Execute ``argv``; ``own_files``: it sets its limit of open files itself."""
    try:
        with spec.around_fork or nullcontext(), descriptors.original_limit() as inherits_limit:
            process = start_child(
                argv,
                stdin=spec.stdin,
                stdout=spec.stdout,
                stderr=spec.stderr,
                cwd=spec.directory,
                env=spec.environment,
                start_new_session=spec.session,
                close_fds=True,
                restore_signals=True,
                pass_fds=spec.pass_fds,
                umask=-1 if spec.umask is None else spec.umask,
                **identity,
            )
        if not (inherits_limit or own_files):
            descriptors.give_back_limit(process.pid)
        child = await watch_child(process, spec.room)
    except OSError as error:
        if error.filename == argv[0] != spec.argv[0]:  # the launcher could not be executed
            raise SpawnError("exec", None, f"its limits or sockets cannot be set: {own_python.refusal(error)}") from error
        raise _explain(spec, error) from error
    except (ValueError, subprocess.SubprocessError) as error:  # for example a NUL in an argument, an "=" in a variable's name
        raise SpawnError("exec", errno.EINVAL, f"{spec.argv[0]}: {error}") from error
    if "oom_score_adj" not in spec.limits:
        oom.take_protection(child.pid)
    return child


def start_child(argv: Sequence[str], **how: Any) -> subprocess.Popen[bytes]:
    """Start a child, which only :func:`watch_child` will reap; ``how`` are arguments of Popen. Raises what Popen raises.

    Without ``asyncio.create_subprocess_exec``, whose transport, protocol and streams would cost more than all the rest. Popen returns
    when the child has executed its program or failed to, so a program on a file system that hangs blocks the loop that long.
    """
    with fork_context():
        process = subprocess.Popen(argv, **how)
    watched.add(process.pid)
    return process


async def watch_child(process: subprocess.Popen[bytes], room: int = 0) -> Child:
    """The new child, watched from when /proc can be read without blocking.

    While a child is still executing its program (some 0.3 ms), the kernel blocks readers of its /proc/PID/stat. After some turns of
    the loop it has done so, and other children were started meanwhile.

    Raises OSError if no descriptor is free besides ``room`` that are reserved; then the child was killed.
    """
    try:
        for _ in range(_TURNS_TO_EXECUTE):
            await asyncio.sleep(0)
    except BaseException:  # cancelled: the caller will never know this child; it is still reaped
        _kill_unowned(process.pid)
        raise
    finally:
        child = _watch(process, room)
        process.returncode = 0  # else Popen's finalizer would wait for the PID
    return child


def _watch(process: subprocess.Popen[bytes], room: int) -> Child:
    try:
        born = procfs.stat(process.pid)  # our unreaped child: it is there even if it has ended
        if born is None:
            raise ProcessLookupError(f"/proc does not show our own child {process.pid}: is /proc mounted?")
        return Child(asyncio.get_running_loop(), of(born), ours=True, room=room)
    except BaseException:
        _kill_unowned(process.pid)
        process.wait()
        watched.discard(process.pid)
        raise


def _kill_unowned(pid: int) -> None:
    """Kill a child of ours that nobody will ever own, with what it has forked by now, as far as that stayed in its group.

    It must not be reaped yet: until then neither its PID nor its group can be a stranger's.
    """
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # it leads no group
        os.kill(pid, signal.SIGKILL)


def _identity_arguments(credentials: Credentials | None) -> dict[str, Any]:
    """Popen's arguments for these credentials; none if we may not set any and these are ours already."""
    if credentials is None:
        return {}
    if not may_switch() and (credentials.uid, credentials.gid) == (os.geteuid(), os.getegid()):
        return {}
    return {"user": credentials.uid, "group": credentials.gid, "extra_groups": list(credentials.groups)}


def _explain(spec: SpawnSpec, error: OSError) -> SpawnError:
    """The error, with the stage at which Popen failed.

    For an error in the child Popen gives the directory or the program as its file; for one in the parent, no file. A failure
    to become another user looks like one of the directory in Python 3.11, and like one of the parent in later versions.
    """
    program, number = spec.argv[0], error.errno
    if number in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        return SpawnError("fork", number, program)
    in_exec = error.filename == program and error.filename != spec.directory
    if not in_exec and spec.credentials is not None and number in (errno.EPERM, errno.EINVAL):
        return SpawnError("user", number, f"cannot become {spec.credentials.name}")
    if error.filename == spec.directory:
        return SpawnError("directory", number, spec.directory)
    if error.filename is None:
        return SpawnError("fork", number, program)
    return SpawnError("exec", number, f"{program}{_hint(spec, number)}")


def _hint(spec: SpawnSpec, number: int | None) -> str:
    """An explanation where the errno alone would mislead."""
    program = spec.argv[0]
    path = os.path.join(spec.directory, program)
    if number == errno.ENOENT and " " in program and not os.path.exists(path):
        return " (a single word with spaces in it: is the whole command in quotes?)"
    if "/" not in program and number == errno.ENOENT:
        return " (not in its PATH)"
    if number == errno.EACCES:
        found = path if "/" in program else _in_path(spec)
        words = forbidding(found, spec.credentials)
        return f" ({words})" if words else ""
    if number == errno.E2BIG:
        return f" ({_largest(spec)})"
    if "/" not in program:
        return ""
    if number == errno.ENOENT and os.path.exists(path):
        return f" ({_lacking(path)})"
    if number == errno.ENOEXEC:
        return " (neither a binary for this machine nor a script with a #! line)"
    return ""


def _largest(spec: SpawnSpec) -> str:
    """What is too long for the kernel, which takes 32 pages for each word and variable, and a quarter of the stack's limit for all
    (``man 2 execve``).
    """
    sizes = {f"word {index} of the command": len(os.fsencode(word)) for index, word in enumerate(spec.argv, 1)}
    sizes |= {f"the variable {name}": len(os.fsencode(f"{name}={value}")) for name, value in spec.environment.items()}
    largest, one = max(sizes, key=lambda what: sizes[what]), 32 * os.sysconf("SC_PAGESIZE")
    if sizes[largest] >= one:
        return f"{largest} has {sizes[largest]} bytes; the kernel takes less than {one} for each word and variable: put it into a file"
    return f"command and environment have {sum(sizes.values())} bytes, more than the kernel takes; the largest part is {largest}"


def _in_path(spec: SpawnSpec) -> str:
    """The file of that name that the kernel found first and did not execute; empty if we do not see it."""
    files = Executable(spec.argv[0], spec.directory, spec.environment.get("PATH")).files()
    return next((file for file in files if os.path.exists(file)), "")


def forbidding(path: str, who: Credentials | None) -> str:
    """What keeps ``who`` (None: us) from executing ``path``, or the interpreter that its first line names; empty if no permission does."""
    interpreter = ""
    words = _forbidding(path, who) or _forbidding(interpreter := _interpreter(path), who)
    return f"its interpreter {interpreter}: {words}" if words and interpreter else words


def _forbidding(path: str, who: Credentials | None) -> str:
    """What keeps ``who`` (None: us) from executing ``path``; empty if permissions do not show it, as with a mount without execution.

    The kernel has just been on the same way: nothing here blocks that did not block then.
    """
    path = os.path.realpath(path) if path else ""
    name = who.name if who is not None else "the daemon's user"
    try:
        for folder in map(str, reversed(PurePath(path).parents)):
            if not (who.may_execute(folder) if who is not None else os.access(folder, os.X_OK)):
                return f"{name} may not enter {folder}"
        if os.path.isdir(path):
            return "a directory"
        if not os.stat(path).st_mode & 0o111:
            return "not executable: chmod +x, or name its interpreter"
        allowed = who.may_execute(path) if who is not None else os.access(path, os.X_OK)
    except OSError:
        return ""
    return "" if allowed else f"{name} may not execute {path}"


def _lacking(path: str) -> str:
    """What an existing program lacks for which the kernel says ENOENT. This reads only what the kernel has just read."""
    line = _beginning(path).partition(b"\n")[0]
    if line.startswith(b"#!") and line.endswith(b"\r"):
        return "its first line ends with a carriage return, as in text files of Windows: sed -i 's/\\r$//' removes them"
    interpreter = _interpreter(path)
    return f"it is there: {interpreter or 'the interpreter that its ELF header names'} is not" + (
        ", which its first line names" if interpreter else ""
    )


def _interpreter(path: str) -> str:
    """What the first line of a script names; empty for other files."""
    line = _beginning(path).partition(b"\n")[0]
    return os.fsdecode(line[2:].strip().partition(b" ")[0]) if line.startswith(b"#!") else ""


def _beginning(path: str) -> bytes:
    """The first bytes of a file; empty if it cannot be read. Does not block, even if a FIFO has taken its place."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 256)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
