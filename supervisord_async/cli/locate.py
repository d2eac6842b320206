"""Finds the socket of the daemon that is meant by ``-s SOCKET``, ``-c FILE``, ``$ASUP_SOCKET`` or ``programs.yaml`` here.

A file is read leniently: only ``daemon.run_dir`` and ``daemon.socket`` count, whatever else is wrong with it. The YAML parser is
imported only for a file that mentions either. If no daemon listens where the file says, the record of its last daemon is tried
(see :mod:`supervisord_async.daemon_registry`), then the default place. A daemon found at a place that the file does not name has to confirm
that it serves this file, since all files in one folder share the default place.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from supervisord_async.config.files import MAX_FILE_BYTES, absolute, read_regular_file
from supervisord_async.daemon_registry import DEFAULT_RUN_DIR, SOCKET_NAME, DaemonPlace, default_place, recall
from supervisord_async.errors import NoDaemonError, OtherDaemonError, SupervisordError, UsageError
from supervisord_async.system.sockets import is_answered
from supervisord_async.wire import ENV_SOCKET
from supervisord_async.words import shell_word

DEFAULT_FILE = "programs.yaml"
#: How long a daemon has to say which file it serves: it usually answers at once, but may hang.
PROBE_SECONDS = 2.0


class Target(NamedTuple):
    """The socket to connect to, and the advice if no daemon answers there."""

    socket: str
    advice: str  #: how to start a daemon there


def locate(file: str | None, socket_path: str | None) -> Target:
    """The daemon that is meant, by the options, the environment or the current directory.

    Raises UsageError if both options are given, NoDaemonError if nothing says which daemon is meant, OtherDaemonError if the
    daemon found serves another file.
    """
    if file is not None and socket_path is not None:
        raise UsageError("cannot use both -c FILE and -s SOCKET: either names the daemon")
    if socket_path is None and file is None:
        socket_path = os.environ.get(ENV_SOCKET) or None
    if socket_path is not None:
        other = os.path.exists(socket_path) and not is_socket(socket_path)
        return Target(socket_path, "that is no socket (-c FILE names a configuration)" if other else "start one with `asupd -c FILE`")
    if file is None:
        file = DEFAULT_FILE
        if not os.path.exists(file) and recall(file) is None and not os.path.exists(default_place(file).socket):
            raise NoDaemonError(f"cannot tell which daemon is meant: there is no {DEFAULT_FILE} here (use -c FILE or -s SOCKET)")
    return _by_file(file)


def is_socket(path: str) -> bool:
    """Whether there is a socket at ``path``, listened at or left behind."""
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _by_file(file: str) -> Target:
    named, default = named_in(file), default_place(file).socket
    advice = (
        f"start one with `asupd -c {shell_word(file)}`" if os.path.exists(file) else f"there is no {file} either (use -c FILE or -s SOCKET)"
    )
    if os.path.isdir(file):
        advice = f"{file} is a folder (-c FILE names a file in it)"
    tried: dict[str, str | None] = {}  # each candidate, with the other file that its daemon serves, if any
    for _, candidate in candidates(file, named):
        if candidate in tried:
            continue
        tried[candidate] = None
        if _listens(candidate):
            sure = named is not None and candidate == named.socket != default
            tried[candidate] = None if sure else other_file(candidate, file)
            if tried[candidate] is None:
                return Target(candidate, advice)
    first = next(iter(tried))
    if other := tried[first]:
        raise OtherDaemonError(f"no daemon of {file}: the one at {first} runs {other} (for that one: asupctl -c {other})")
    last = recall(file)
    # If the last daemon was started with --run-dir, one without it would start all programs a second time.
    if last is not None and first == default and os.path.exists(file):
        advice = f"start it as its last daemon, by `asupd -c {shell_word(file)} --run-dir {shell_word(last.run_dir)}` or its service"
    return Target(first, advice)


def candidates(file: str, named: DaemonPlace | None) -> Iterator[DaemonPlace]:
    """Where the daemon of ``file`` may be, likeliest first; ``named`` is what the file says."""
    if named is not None:
        yield named
    remembered = recall(file)
    if remembered is not None:
        yield remembered
    yield default_place(file)
    yield default_place(os.path.realpath(file))  # the daemon may have been started without the symbolic link


def _listens(path: str) -> bool:
    """Whether a connection is accepted, or fails although somebody listens, for a reason that the caller has to report."""
    try:
        return is_answered(path)
    except PermissionError:
        return True
    except OSError:
        return False


def other_file(path: str, file: str) -> str | None:
    """The file that the daemon at ``path`` serves, if that is not ``file``; None if it is, or if the daemon does not answer.

    At the default place beside ``file`` the same base name is enough: a container may see the folder under another path.
    """
    from supervisord_async.client.json_client import JsonClient

    with suppress(SupervisordError), JsonClient(path, timeout_seconds=PROBE_SECONDS) as client:
        served = client.health_document().get("file")
        if isinstance(served, str) and not is_same(served, file, beside=path == default_place(file).socket):
            return served
    return None  # if there was an error, the caller's own request will report it


def is_same(served: str, file: str, *, beside: bool) -> bool:
    """Whether a daemon that says that it serves ``served`` serves ``file``; the same base name is enough where it is ``beside`` it."""
    return os.path.realpath(served) == os.path.realpath(file) or (beside and os.path.basename(served) == os.path.basename(file))


def named_in(file: str) -> DaemonPlace | None:
    """Where the file says that its daemon is, by default beside it; None if it cannot be read or parsed that far.

    Included files are not read: they may be on a disk that hangs.
    """
    try:
        text = read_regular_file(file, MAX_FILE_BYTES)
    except OSError:
        return None
    settings = _daemon_settings(text) if b"run_dir" in text or b"socket" in text else {}
    if settings is None:
        return None
    folder = os.path.dirname(os.path.abspath(file))
    run_dir = absolute(settings.get("run_dir", DEFAULT_RUN_DIR), folder, os.environ)
    return DaemonPlace(run_dir, absolute(settings.get("socket", os.path.join(run_dir, SOCKET_NAME)), folder, os.environ))


def _daemon_settings(text: bytes) -> dict[str, str] | None:
    """``run_dir`` and ``socket`` of ``daemon``, as far as given; None if the YAML is broken before them, or an expansion fails.

    Parsing stops after ``daemon``, so it does not matter what is broken further down, or how long the file is.
    """
    from yaml import YAMLError

    from supervisord_async.config.expand import ExpansionError, expand
    from supervisord_async.config.nodes import MappingNode, ScalarNode, TooDeepError, members

    try:
        daemon = next((value for key, value in members(text) if key.value == "daemon" and isinstance(value, MappingNode)), None)
        given = {key.value: value for key, value in daemon.value if isinstance(value, ScalarNode)} if daemon is not None else {}
        settings = [(key, given[key]) for key in ("run_dir", "socket") if key in given]
        nothing = ("", "~", "null")
        return {key: expand(node.value, os.environ) for key, node in settings if node.tag != "plain" or node.value not in nothing}
    except (YAMLError, TooDeepError, ExpansionError):
        return None
