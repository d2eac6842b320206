"""A configuration in the words of a file that leaves nothing to defaults. Pure.

Loading the result of :func:`as_data` as YAML gives the same configuration again.
"""

from __future__ import annotations

from typing import Any

import msgspec

from supervisord_async.config import model
from supervisord_async.config.units import format_address, format_duration, format_signal, format_size
from supervisord_async.core.policy import OnLimit


def as_data(configuration: model.Configuration) -> dict[str, Any]:
    """The whole configuration as plain data, secrets included: mask it with ``secrets`` before showing it to anybody."""
    return {
        "version": 1,
        "daemon": _daemon(configuration.daemon),
        "programs": {name: program_as_data(program) for name, program in configuration.programs.items()},
    }


def program_as_data(program: model.Program) -> dict[str, Any]:
    """One program as plain data."""
    data = _plain(program)
    del data["name"], data["own_variables"], data["unread"]
    data["command"] = program.command[2] if program.shell else list(program.command)
    data["start_seconds"] = data.pop("start")
    data["inherit_environment"] = False
    data["environment"] = dict(program.environment)
    data["depends_on"] = dict(program.depends_on)
    data["umask"] = None if program.umask is None else f"{program.umask:03o}"
    data["reload_signal"] = None if program.reload_signal is None else format_signal(program.reload_signal)
    data["restart"] = _restart(program.restart)
    data["stop"] |= {"signal": format_signal(program.stop.signal), "grace_period": data["stop"].pop("grace")}
    data["watch"] = [_watch(watch) for watch in program.watch] or None
    data["notify"] = data["notify"] or False
    data["readiness"] = _probe(program.readiness, is_readiness=True)
    data["liveness"] = _probe(program.liveness, is_readiness=False)
    data["sockets"] = {socket.name: _socket(socket) for socket in program.sockets}
    if data["schedule"]:
        del data["schedule"]["every"]
    return data


def _plain(struct: msgspec.Struct) -> dict[str, Any]:
    """The fields by the file's keys; durations and sizes are written as people write them."""
    data: dict[str, Any] = {}
    for field in struct.__struct_fields__:
        value = getattr(struct, field)
        key = field.removesuffix("_seconds").removesuffix("_bytes")
        if isinstance(value, msgspec.Struct):
            value = _plain(value)
        elif field.endswith("_seconds") and value is not None:
            value = format_duration(value)
        elif field.endswith("_bytes") and value is not None:
            value = format_size(value)
        elif isinstance(value, tuple):
            value = list(value)
        data[key] = value
    return data


def _restart(restart: model.Restart) -> dict[str, Any]:
    data = _plain(restart)
    retry_after = data.pop("retry_after")
    data["policy"] = restart.policy.value
    data["on_limit"] = {"retry_after": retry_after} if restart.on_limit is OnLimit.RETRY else restart.on_limit.value
    return data


def _watch(watch: model.Watch) -> dict[str, Any]:
    data = _plain(watch)
    del data["signal"]
    return {**data, "action": "restart" if watch.signal is None else format_signal(watch.signal)}


def _probe(probe: model.Probe | None, *, is_readiness: bool) -> dict[str, Any] | None:
    if probe is None:
        return None
    data = _plain(probe)
    del data["kind"]
    data["tcp"] = None if probe.tcp is None else format_address(*probe.tcp)
    if not probe.expect_status:
        del data["expect_status"]  # means something with http only
    if not is_readiness:
        del data["start_timeout"]
    return data


def _socket(socket: model.Socket) -> dict[str, Any]:
    url = f"unix:{socket.path}" if socket.kind == "unix" else f"{socket.kind}://{format_address(socket.host, socket.port)}"
    return {"url": url, "mode": f"{socket.mode:04o}", "user": socket.user, "backlog": socket.backlog}


def _daemon(daemon: model.Daemon) -> dict[str, Any]:
    data = _plain(daemon)
    data["socket_mode"] = f"{daemon.socket_mode:04o}"
    data["http"] = None if daemon.http is None else format_address(*daemon.http)
    data["on_event"] = [_plain(hook) for hook in daemon.on_event]
    return data
