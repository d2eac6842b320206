"""Finds the socket of the daemon that is meant by ``-s SOCKET``, ``-c FILE``, ``$ASUP_SOCKET`` or ``programs.yaml`` here.

A file is read leniently: only ``daemon.run_dir`` and ``daemon.socket`` count, whatever else is wrong with it. The YAML parser is
imported only for a file that mentions either. If no daemon listens where the file says, the record of its last daemon is tried
(see :mod:`supervisord_async.daemon_registry`), then the default place. A daemon found at a place that the file does not name has to confirm
that it serves this file, since all files in one folder share the default place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from supervisord_async.config.files import MAX_FILE_BYTES, absolute, read_regular_file
from supervisord_async.daemon_registry import DEFAULT_RUN_DIR, SOCKET_NAME, default_socket, recall
from supervisord_async.errors import NoDaemonError, OtherDaemonError, SupervisordError, UsageError
from supervisord_async.system.sockets import is_answered
from supervisord_async.wire import ENV_SOCKET

DEFAULT_FILE = "programs.yaml"
#: How long a daemon has to say which file it serves: it usually answers at once, but may hang.
PROBE_SECONDS = 2.0


class Target(NamedTuple):
    """The socket to connect to, and the advice if no daemon answers there."""

    socket: str
    advice: str  #: how to start a daemon there


def locate(file: str | None, socket_path: str | None, environ: Mapping[str, str] | None = None) -> Target:
    """The daemon that is meant, by the options, the environment or the current directory.

    Raises UsageError if both options are given, NoDaemonError if nothing says which daemon is meant, OtherDaemonError if the
    daemon found serves another file.
    """
    environ = os.environ if environ is None else environ
    if file is not None and socket_path is not None:
        raise UsageError("cannot use both -c FILE and -s SOCKET: either names the daemon")
    if socket_path is None and file is None:
        socket_path = environ.get(ENV_SOCKET) or None
    if socket_path is not None:
        return Target(socket_path, "start one with `asupd -c FILE`")
    if file is None:
        file = DEFAULT_FILE
        if not os.path.exists(file) and recall(file) is None and not os.path.exists(default_socket(file)):
            raise NoDaemonError(f"cannot tell which daemon is meant: there is no {DEFAULT_FILE} here (use -c FILE or -s SOCKET)")
    return _by_file(file, environ)


def _by_file(file: str, environ: Mapping[str, str]) -> Target:
    named = socket_named_in(file, environ)
    advice = f"start one with `asupd -c {file}`" if os.path.exists(file) else f"there is no {file} either (use -c FILE or -s SOCKET)"
    first, tried = None, dict[str, str | None]()  # each candidate, with the other file that its daemon serves, if any
    for candidate in _candidates(file, named):
        first = first or candidate
        if candidate in tried:
            continue
        tried[candidate] = None
        if _listens(candidate):
            tried[candidate] = None if candidate == named != default_socket(file) else other_file(candidate, file)
            if tried[candidate] is None:
                return Target(candidate, advice)
    first = first or default_socket(file)
    if other := tried.get(first):
        raise OtherDaemonError(f"no daemon of {file}: the one at {first} runs {other}")
    last = recall(file)
    # If the last daemon was started with --run-dir, one without it would start all programs a second time.
    if last is not None and first == default_socket(file) and os.path.exists(file):
        advice = f"start it as its last daemon, by `asupd -c {file} --run-dir {last.run_dir}` or its service"
    return Target(first, advice)


def _candidates(file: str, named: str | None) -> Iterator[str]:
    if named is not None:
        yield named
    remembered = recall(file)
    if remembered is not None:
        yield remembered.socket
    yield default_socket(file)
    yield default_socket(os.path.realpath(file))  # the daemon may have been started without the symbolic link


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
        if isinstance(served, str) and not is_same(served, file, beside=path == default_socket(file)):
            return served
    return None  # if there was an error, the caller's own request will report it


def is_same(served: str, file: str, *, beside: bool) -> bool:
    """Whether a daemon that says that it serves ``served`` serves ``file``; the same base name is enough where it is ``beside`` it."""
    return os.path.realpath(served) == os.path.realpath(file) or (beside and os.path.basename(served) == os.path.basename(file))


def socket_named_in(file: str, environ: Mapping[str, str]) -> str | None:
    """The socket that the file names, or the default; None if the file cannot be read or parsed that far."""
    settings = _settings_in(file, environ)
    if settings is None:
        return None
    if "socket" in settings:
        return _beside(file, settings["socket"], environ)
    return os.path.join(_run_dir(file, settings, environ), SOCKET_NAME)


def run_dir_named_in(file: str, environ: Mapping[str, str]) -> str | None:
    """The run_dir that the file names, or the default; None if the file cannot be read or parsed that far.

    Included files are not read: they may be on a disk that hangs.
    """
    settings = _settings_in(file, environ)
    return _run_dir(file, settings, environ) if settings is not None else None


def _run_dir(file: str, settings: Mapping[str, str], environ: Mapping[str, str]) -> str:
    return _beside(file, settings.get("run_dir", DEFAULT_RUN_DIR), environ)


def _beside(file: str, path: str, environ: Mapping[str, str]) -> str:
    return absolute(path, os.path.dirname(os.path.abspath(file)), environ)


def _settings_in(file: str, environ: Mapping[str, str]) -> dict[str, str] | None:
    """``daemon.run_dir`` and ``daemon.socket``, as far as the file names them; None if it cannot be read or parsed that far."""
    try:
        text = read_regular_file(file, MAX_FILE_BYTES)
    except OSError:
        return None
    return _daemon_settings(text, environ) if b"run_dir" in text or b"socket" in text else {}


def _daemon_settings(text: bytes, environ: Mapping[str, str]) -> dict[str, str] | None:
    """``run_dir`` and ``socket`` of ``daemon``, as far as given; None if the YAML is broken before them, or an expansion fails.

    Parsing stops after ``daemon``, so it does not matter what is broken further down, or how long the file is.
    """
    import yaml

    from supervisord_async.config.expand import ExpansionError, expand

    events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    try:
        found = _find_daemon(_spelt_out(events))
        return {key: expand(value, environ) for key, value in found.items() if key in ("run_dir", "socket")}
    except (yaml.YAMLError, ExpansionError, StopIteration):
        return None


def _spelt_out(events: Iterator[Any]) -> Iterator[Any]:
    """``events``, with the scalars that aliases mean in their place."""
    import yaml

    anchored: dict[str | None, Any] = {}
    for event in events:
        if isinstance(event, yaml.ScalarEvent) and event.anchor is not None:
            anchored[event.anchor] = event
        yield anchored.get(event.anchor, event) if isinstance(event, yaml.AliasEvent) else event


def _find_daemon(events: Iterator[Any]) -> dict[str, str]:
    import yaml

    while not isinstance(next(events), yaml.MappingStartEvent):
        pass
    while not isinstance(key := next(events), yaml.MappingEndEvent):
        value = next(events)
        if getattr(key, "value", None) == "daemon" and isinstance(value, yaml.MappingStartEvent):
            return dict(_scalars(events))
        _skip(value, events)
    return {}


def _scalars(events: Iterator[Any]) -> Iterator[tuple[str, str]]:
    import yaml

    while not isinstance(key := next(events), yaml.MappingEndEvent):
        value = next(events)
        if isinstance(key, yaml.ScalarEvent) and isinstance(value, yaml.ScalarEvent):
            if not (value.value in ("", "~", "null") and value.implicit[0]):
                yield key.value, value.value
        else:
            _skip(value, events)


def _skip(event: Any, events: Iterator[Any]) -> None:
    """``events`` continue after the node that ``event`` begins."""
    import yaml

    depth = 0
    while True:
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth == 0:
            return
        event = next(events)
