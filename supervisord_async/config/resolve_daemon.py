"""From the ``daemon`` section to the model."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import msgspec

from supervisord_async.config import model, shape, units
from supervisord_async.config.document import found
from supervisord_async.config.files import absolute
from supervisord_async.config.place import Origin
from supervisord_async.config.shorthand import without_nulls
from supervisord_async.config.values import Values, text
from supervisord_async.daemon_registry import SOCKET_NAME


def resolve_daemon(data: shape.Data, origin: Origin, file: str, variables: Mapping[str, str], *, run_dir: str | None) -> model.Daemon:
    """The daemon's settings in ``data`` of the main file ``file``. ``run_dir`` overrides the file's, its socket included.

    Both paths are absolute.
    """
    values = Values(origin)
    given = msgspec.convert(without_nulls(data), shape.Daemon)
    directory = os.path.dirname(file)
    place = run_dir or absolute(given.run_dir, directory, variables)
    log, history = given.log or shape.DaemonLog(), given.history or shape.History()
    return model.Daemon(
        name=_stem(file) if given.name is None else values.name(given.name, ("name",)),
        run_dir=place,
        socket=_socket(None if run_dir else given.socket, place, directory, variables, values),
        socket_mode=values.octal(given.socket_mode, ("socket_mode",)),
        socket_group=None if given.socket_group is None else text(given.socket_group),
        log=model.DaemonLog(
            file=None if log.file is None else absolute(log.file, directory, variables), level=log.level, format=log.format
        ),
        exit_when=given.exit_when,
        stop_timeout_seconds=values.duration(given.stop_timeout, ("stop_timeout",)),
        on_death=given.on_death,
        http=_http(given, values),
        http_token_file=None if given.http_token_file is None else absolute(given.http_token_file, directory, variables),
        http_tls=_tls(given.http_tls, directory, variables, values),
        http_insecure=given.http_insecure,
        history=model.History(
            max_age_seconds=values.duration(history.max_age, ("history", "max_age")),
            max_size_bytes=values.size(history.max_size, ("history", "max_size")),
        ),
        on_event=tuple(_event_hook(hook, index, values) for index, hook in enumerate(given.on_event or ())),
    )


def _stem(file: str) -> str:
    """The file's name without its suffix, made a valid name."""
    stem = re.sub(r"[^A-Za-z0-9_.@+-]", "-", os.path.splitext(os.path.basename(file))[0])
    return stem.lstrip("-.@+")[:100] or "asupd"


def _socket(given: str | None, run_dir: str, directory: str, variables: Mapping[str, str], values: Values) -> str:
    path = os.path.join(run_dir, SOCKET_NAME) if given is None else absolute(given, directory, variables)
    key = "run_dir" if given is None else "socket"
    return values.socket_path(path, (key,), "set daemon.socket to a shorter path, such as /run/asupd.sock or /tmp/NAME.sock")


def _http(given: shape.Daemon, values: Values) -> tuple[str, int] | None:
    if given.http is None:
        if given.http_insecure or given.http_tls:
            values.origin.warning(
                ("http_tls" if given.http_tls else "http_insecure",),
                "this means nothing without daemon.http, an address such as 127.0.0.1:9001",
            )
        return None
    host, port = values.address(given.http, ("http",))
    if not units.is_loopback(host) and not given.http_tls and not given.http_insecure:
        values.origin.error(
            ("http",),
            f"others can reach {found(given.http)}, and without TLS they can read the token; set http_tls, choose a loopback "
            "address such as 127.0.0.1, or accept it by http_insecure: true",
        )
    return host, port


def _tls(given: shape.HttpTls | None, directory: str, variables: Mapping[str, str], values: Values) -> model.HttpTls | None:
    if given is None:
        return None
    tls = model.HttpTls(certificate=absolute(given.certificate, directory, variables), key=absolute(given.key, directory, variables))
    for key, path in (("certificate", tls.certificate), ("key", tls.key)):
        if not os.path.isfile(path):
            values.origin.warning(("http_tls", key), f"{path} is not there")
    return tls


def _event_hook(given: shape.EventHook, index: int, values: Values) -> model.EventHook:
    sub = ("on_event", index)
    values.only_one({"command": given.command, "url": given.url}, sub)
    return model.EventHook(
        events=tuple(given.events),
        command=values.optional_command(given.command, (*sub, "command")),
        url=None if given.url is None else values.url(given.url, (*sub, "url")),
    )
