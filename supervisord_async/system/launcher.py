"""The small program between Popen and a run's own program: it sets its own limits, becomes the user, and executes that.

Run as a script by ``python -I -S``, so it imports nothing but the standard library's smallest parts. Its arguments are
the number of a pipe for errors, then ``key=value`` settings, ``--``, and the program with its arguments. PID, start
time, stdio and environment remain those of the run, except for variables that are set to the PID, and descriptors that are
moved to 3, 4, … A failure is written to the pipe as ``stage NUL errno NUL words``, and nothing runs. On success a newline is
written, and the pipe closes when the program is executed.

Limits are set before the user, because root may raise what the user may not; the program is looked up as the user.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing would take as long as all the rest
    from collections.abc import Callable
    from typing import Any, NoReturn

#: ``ioprio_set`` has no wrapper in libc; its number by machine. The rest, arm64 and riscv64 among them, share one.
_IOPRIO_SET = {"x86_64": 251, "i386": 289, "i686": 289, "armv7l": 314, "ppc64le": 273, "s390x": 282}
_IOPRIO_SET_ELSEWHERE = 30
_IOPRIO_CLASSES = {"realtime": 1, "best-effort": 2, "idle": 3}
_PR_SET_NO_NEW_PRIVS = 38


def _rlimit(name: str) -> Callable[[str], None]:
    def apply(value: str) -> None:
        import resource

        number = getattr(resource, name)
        try:
            resource.setrlimit(number, (int(value), int(value)))
        except ValueError as error:  # Python raises it for EPERM and EINVAL; as soft and hard are equal, it was EPERM
            raise PermissionError(1, f"asupd's own hard limit is {resource.getrlimit(number)[1]}") from error

    return apply


def _nice(value: str) -> None:
    os.setpriority(os.PRIO_PROCESS, 0, int(value))


def _oom_score_adj(value: str) -> None:
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, value.encode())
    os.close(fd)


def _cpu_affinity(value: str) -> None:
    asked = {int(number) for number in value.split(",")}
    os.sched_setaffinity(0, asked)
    if missing := asked - os.sched_getaffinity(0):  # the kernel silently ignores CPUs that it does not have
        raise OSError(22, f"no CPU {', '.join(map(str, sorted(missing)))} for us")


def _ionice(value: str) -> None:
    name, _, level = value.partition(":")
    priority = _IOPRIO_CLASSES[name] << 13 | int(level or (0 if name == "idle" else 4))
    _system_call(lambda libc: libc.syscall(_IOPRIO_SET.get(os.uname().machine, _IOPRIO_SET_ELSEWHERE), 1, 0, priority))


def _no_new_privileges(_value: str) -> None:
    _system_call(lambda libc: libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _system_call(call: Callable[[Any], int]) -> None:
    import ctypes

    if call(ctypes.CDLL(None, use_errno=True)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _become(value: str) -> None:
    uid, gid, *groups = (int(number) for number in value.split(","))
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


#: In the order in which they are applied.
STEPS: dict[str, Callable[[str], None]] = {
    "open_files": _rlimit("RLIMIT_NOFILE"),
    "processes": _rlimit("RLIMIT_NPROC"),
    "core_size": _rlimit("RLIMIT_CORE"),
    "nice": _nice,
    "ionice": _ionice,
    "oom_score_adj": _oom_score_adj,
    "cpu_affinity": _cpu_affinity,
    "no_new_privileges": _no_new_privileges,
    "user": _become,
}


def _give_descriptors(value: str, pipe: int) -> int:
    """Move the listed descriptors to 3, 4, … in this order; returns the pipe's new number."""
    import fcntl

    given = [int(number) for number in value.split(",")]
    clear = 3 + len(given)
    pipe_now, *copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, clear) for fd in (pipe, *given)]
    for fd in (pipe, *given):
        os.set_inheritable(fd, False)
    for number, copy in enumerate(copies, 3):
        os.dup2(copy, number, inheritable=True)
    return pipe_now


def _fail(pipe: int, stage: str, error: OSError, words: str) -> NoReturn:
    os.write(pipe, f"{stage}\0{error.errno or 0}\0{words}".encode(errors="surrogateescape"))
    os._exit(127)


def main(arguments: list[str]) -> NoReturn:
    """Does not return: this process executes the program, or exits."""
    import _signal  # type: ignore[import-not-found]  # the module `signal` would import enum

    pipe = int(arguments[0])
    os.set_inheritable(pipe, False)
    end = arguments.index("--")
    settings = dict(argument.split("=", 1) for argument in arguments[1:end])
    program = arguments[end + 1 :]
    environment = dict(item.split(b"=", 1) for item in _environ() if b"=" in item)
    for variable in settings.get("pid_variables", "").split(",") if "pid_variables" in settings else ():
        environment[variable.encode()] = b"%d" % os.getpid()
    if "descriptors" in settings:
        try:
            pipe = _give_descriptors(settings["descriptors"], pipe)
        except OSError as error:
            _fail(pipe, "socket", error, "its descriptors")
    for key, apply in STEPS.items():
        if key in settings:
            try:
                apply(settings[key])
            except Exception as error:  # of any kind, also a failed import: nothing may run without this limit
                refused = error if isinstance(error, OSError) else OSError(22, str(error))
                own_words = "" if refused.errno is None or refused.strerror == os.strerror(refused.errno) else f" ({refused.strerror})"
                _fail(pipe, "user" if key == "user" else "limits", refused, f"{key} {settings[key]}{own_words}")
    for signum in (_signal.SIGPIPE, _signal.SIGXFSZ):  # Python ignores these; the program must not inherit that
        _signal.signal(signum, _signal.SIG_DFL)
    os.write(pipe, b"\n")  # so that success differs from a launcher that never began
    try:
        _execute(program, environment)
    except OSError as error:
        _fail(pipe, "exec", error, program[0])


def _execute(program: list[str], environment: dict[bytes, bytes]) -> NoReturn:
    """Execute ``program``, looked up in its own PATH; raises OSError.

    Not by ``os.execvpe``, which imports more: we have become the user, who perhaps may not read Python's library.
    """
    name = os.fsencode(program[0])
    folders = environment.get(b"PATH", os.fsencode(os.defpath)).split(b":") if b"/" not in name else [b""]
    found: OSError | None = None
    for folder in folders:
        try:
            os.execve(os.path.join(folder, name), program, environment)  # noqa: S606  the very point
        except (FileNotFoundError, NotADirectoryError) as error:
            found = found or error
        except OSError as error:  # the file exists: this error says more
            found = error if isinstance(found, (FileNotFoundError, NotADirectoryError, type(None))) else found
    raise found or FileNotFoundError(2, os.strerror(2))


def _environ() -> list[bytes]:
    """The environment as passed to us: ``os.environ`` may have an LC_CTYPE that Python added."""
    with open("/proc/self/environ", "rb") as file:
        return file.read().split(b"\0")


if __name__ == "__main__":
    main(sys.argv[1:])
