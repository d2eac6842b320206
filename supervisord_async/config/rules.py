"""Checks across keys: settings that are valid one by one but wrong together."""

from __future__ import annotations

import grp
import os
from collections.abc import Iterator, Mapping

from supervisord_async.config.document import Path
from supervisord_async.config.model import Configuration, Daemon, Program, Restart
from supervisord_async.config.other_words import foreign_expansion
from supervisord_async.config.path_kinds import PathKind, kinds_of
from supervisord_async.config.place import Origin
from supervisord_async.config.units import format_duration, suggestion
from supervisord_async.core.policy import OnLimit

#: A memory limit below this must be a mistake in the unit.
MIN_MEMORY_BYTES = 1 << 16
#: More than any machine runs; keeps a typo from exhausting the memory.
MAX_PROCESSES = 50_000


def check_rules(configuration: Configuration, origins: Mapping[str, Origin], daemon: Origin, *, known: frozenset[str]) -> None:
    """Reports every contradiction. ``known`` are the names of all programs, including those that are unsound on their own."""
    programs = configuration.programs
    if sum(program.replicas for program in programs.values()) > MAX_PROCESSES:
        biggest = max(programs.values(), key=lambda program: program.replicas)
        origins[biggest.name].error(("replicas",), f"all programs together have more than {MAX_PROCESSES} processes")
        return
    _check_files(configuration, origins, daemon)
    _check_control_socket(configuration.daemon, daemon)
    _check_dependencies(programs, origins, known)
    _check_sockets(configuration, origins)
    logs = {name: _logs(program, configuration) for name, program in programs.items()}
    kinds = kinds_of(_looked_at(configuration, logs))
    for program in programs.values():
        origin = origins[program.name]
        _check_limit(program.restart, origin)
        _check_pairs(program, configuration, origin)
        _check_expansions(program, origin)
        _check_folders(program, configuration, origin, logs[program.name], kinds)
        for sub, path in _watched(program, origin):
            if kinds[path] is PathKind.MISSING:
                origin.warning(sub, f"{path} is not there (yet)")
            elif kinds[path] is PathKind.SILENT:
                origin.warning(sub, _silent(path))


def _check_control_socket(daemon: Daemon, origin: Origin) -> None:
    """Warns if the control socket's folder or group does not exist: there would be no control socket."""
    folder = os.path.dirname(daemon.socket)
    if folder != daemon.run_dir and not kinds_of([folder])[folder].may_be_folder:
        origin.warning(("socket",), f"there is no folder {folder} (yet)")
    group = daemon.socket_group
    if group is not None and not group.isdigit():
        try:
            grp.getgrnam(group)
        except KeyError:
            origin.warning(("socket_group",), f"there is no group '{group}' here")


def _looked_at(configuration: Configuration, logs: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """The paths that the checks below look at."""
    for program in configuration.programs.values():
        yield program.directory
        yield from logs[program.name].values()
        if program.heartbeat and (beats := program.heartbeat.file):
            yield from (beats, os.path.dirname(beats))
        for watch in program.watch:
            yield from watch.paths


def _logs(program: Program, configuration: Configuration) -> dict[str, str]:
    """The program's log files outside the run_dir, by key."""
    ours = configuration.daemon.run_dir + "/"
    logs = {"stdout": program.logs.stdout, "stderr": program.logs.stderr}
    return {key: path for key, path in logs.items() if path.startswith("/") and not path.startswith(ours)}


def _silent(path: str) -> str:
    return f"cannot look at {path}: its disk does not answer"


def _watched(program: Program, origin: Origin) -> Iterator[tuple[Path, str]]:
    """Each watched path, with its key in the file: under a mapping's ``paths``, or in a list."""
    for number, watch in enumerate(program.watch):
        for index, path in enumerate(watch.paths):
            ways: tuple[Path, ...] = (("watch", "paths", index), ("watch", number, "paths", index), ("watch", index))
            yield next((way for way in ways if origin.has(way)), ("watch",)), path


def _check_pairs(program: Program, configuration: Configuration, origin: Origin) -> None:
    """Reports keys of one program that together have no effect, or an unexpected one."""
    if program.rolling and program.replicas == 1:
        origin.warning(("rolling",), "this means nothing without replicas")
    if program.start_on_connect and not program.sockets:
        origin.error(("start_on_connect",), "this needs sockets")
    if program.restart_with_dependency and not program.depends_on:
        origin.warning(("restart_with_dependency",), "this means nothing without depends_on")
    unheard = program.logs.stdout == "inherit" and program.logs.stderr in ("stdout", "inherit")
    for key, probe in (("readiness", program.readiness), ("liveness", program.liveness)):
        if unheard and probe is not None and probe.log is not None:
            origin.error((key, "log"), "there is no output to search: with 'inherit' it goes where the daemon's goes")
    if program.schedule is not None and program.restart.policy == "always":
        words = "a run of this program is always followed by another one, so there is nothing for the schedule to start"
        origin.warning(("schedule",), words)
    grace, bound = program.stop.grace_seconds, configuration.daemon.stop_timeout_seconds
    if grace > bound:
        words = f"at shutdown daemon.stop_timeout ({format_duration(bound)}) cuts the {format_duration(grace)} short"
        origin.warning(("stop", "grace_period"), words)
    if 0 < (program.limits.memory_bytes or 0) < MIN_MEMORY_BYTES:
        origin.warning(("limits", "memory"), "no program needs so little: a number alone is bytes; write 300MiB")
    both = sorted(set(program.restart.success_exit_codes) & set(program.restart.prevent_exit_codes))
    if both:
        origin.warning(("restart", "prevent_exit_codes"), f"{', '.join(map(str, both))} is in success_exit_codes too")


def _check_expansions(program: Program, origin: Origin) -> None:
    """Warns about what supervisord would expand (``%(…)s``): here it stays as it is."""
    logs = program.logs
    texts: list[tuple[Path, str]] = [(("command",), word) for word in program.command if "%(" in word]
    texts += [(("logs", key), path) for key, path in (("stdout", logs.stdout), ("stderr", logs.stderr)) if "%(" in path]
    for sub, value in (*texts, (("directory",), program.directory)):
        if words := foreign_expansion(value):
            origin.warning(sub, words)


def _check_folders(
    program: Program, configuration: Configuration, origin: Origin, logs: Mapping[str, str], kinds: Mapping[str, PathKind]
) -> None:
    """Warns about folders where files are expected, missing folders and silent disks.

    Only warnings: what is there may have changed since the programs began, and a daemon that comes after a death takes them back.
    """
    for key, path in logs.items():
        if kinds[path] is PathKind.FOLDER:
            origin.warning(("logs", key), f"expected the path of a file, found a folder: {path}; the output is lost while it is there")
        elif kinds[path] is PathKind.SILENT:
            origin.warning(("logs", key), _silent(path))
    beats = program.heartbeat.file if program.heartbeat else None
    if beats and kinds[beats] is PathKind.FOLDER:
        origin.warning(("heartbeat", "file"), f"expected the path of a file, found a folder: {beats}")
    elif beats and kinds[beats] is PathKind.SILENT:
        origin.warning(("heartbeat", "file"), _silent(beats))
    elif beats and not beats.startswith(configuration.daemon.run_dir + "/") and not kinds[os.path.dirname(beats)].may_be_folder:
        origin.warning(("heartbeat", "file"), f"there is no folder {os.path.dirname(beats)} (yet)")
    if kinds[program.directory] is PathKind.SILENT:
        origin.warning(("directory",), _silent(program.directory))
    elif kinds[program.directory] is not PathKind.FOLDER:
        origin.warning(("directory",), f"there is no folder {program.directory} (yet)")


def _check_sockets(configuration: Configuration, origins: Mapping[str, Origin]) -> None:
    """Warns if two sockets have the same address; no error, since their programs may be meant never to run together."""
    taken: dict[tuple[str, str, int, str], str] = {}
    if configuration.daemon.http is not None:
        taken["tcp", *configuration.daemon.http, ""] = "daemon.http"
    for program in configuration.programs.values():
        for settings in program.sockets:
            address = (settings.kind, settings.host, settings.port, settings.path)
            owner = f"socket '{settings.name}' of {program.name}"
            other = taken.setdefault(address, owner)
            if other is not owner and (settings.port or settings.path):
                origins[program.name].warning(("sockets", settings.name), f"{other} has this address; the second one cannot be bound")


def _check_limit(restart: Restart, origin: Origin) -> None:
    """Warns if the restart limit can never trip: its delays add up to more than the window, or its keys are given without a limit."""
    of_a_limit = {"within": restart.within_seconds is not None, "on_limit": restart.on_limit is not OnLimit.FATAL}
    given = [key for key, is_given in of_a_limit.items() if is_given]
    if given and restart.max_restarts < 0 and not origin.has(("restart", "max_restarts")):
        for key in given:
            origin.warning(("restart", key), "this means nothing without max_restarts")
    if restart.within_seconds is None or restart.max_restarts <= 0:
        return
    total, shown = 0.0, []
    delay = restart.backoff.initial_seconds
    for number in range(restart.max_restarts):
        bounded = min(delay, restart.backoff.max_seconds)
        if number < 4:
            shown.append(format_duration(round(bounded, 3)))
        if number >= 4 and (bounded == restart.backoff.max_seconds or restart.backoff.factor == 1):
            total += bounded * (restart.max_restarts - number)
            break
        total += bounded
        delay = min(delay * restart.backoff.factor, 1e12)
        if not delay:
            break
    if total > restart.within_seconds:
        terms = " + ".join(shown) + (" + …" if restart.max_restarts > len(shown) else "")
        origin.warning(
            ("restart", "within"),
            f"the limit can never trip: the delays of {restart.max_restarts} restarts are {terms} = {format_duration(round(total, 3))}, "
            f"longer than within ({format_duration(restart.within_seconds)}); lengthen within, or lower max_restarts or backoff",
        )


def _check_files(configuration: Configuration, origins: Mapping[str, Origin], daemon: Origin) -> None:
    """Reports processes that would write the same log or share a heartbeat file."""
    logs: dict[str, tuple[str, Origin, Path]] = {}
    if configuration.daemon.log.file:
        logs[configuration.daemon.log.file] = ("the daemon's own log", daemon, ("log", "file"))
    hearts: dict[str, tuple[str, Origin, Path]] = {}
    for program in configuration.programs.values():
        origin = origins[program.name]
        reported: set[Path] = set()
        for sub, path, owner in _log_files(program):
            if sub not in reported and not _claim(logs, path, owner, origin, sub, "log"):
                reported.add(sub)
        if program.heartbeat and program.heartbeat.file:
            for path in dict.fromkeys(program.heartbeat.file.replace("{replica}", str(number)) for number in range(program.replicas)):
                _claim(hearts, path, f"program {program.name}", origin, ("heartbeat", "file"), "heartbeat file")


def _log_files(program: Program) -> Iterator[tuple[Path, str, str]]:
    for key, template in (("stdout", program.logs.stdout), ("stderr", program.logs.stderr)):
        if template.startswith("/") and not template.startswith("/dev/"):
            for number, process in enumerate(program.process_names()):
                yield ("logs", key), template.replace("{replica}", str(number)), f"{key} of {process}"


def _claim(taken: dict[str, tuple[str, Origin, Path]], path: str, owner: str, origin: Origin, sub: Path, what: str) -> bool:
    if path not in taken:
        taken[path] = (owner, origin, sub)
        return True
    other, other_origin, other_sub = taken[path]
    origin.error(sub, f"the {what} {path} is taken by {other} ({other_origin.where(other_sub)}); each needs its own")
    return False


def _check_dependencies(programs: Mapping[str, Program], origins: Mapping[str, Origin], known: frozenset[str]) -> None:
    """Reports dependencies on unknown programs, and programs that depend on themselves, directly or through others."""
    for program in programs.values():
        for name in program.depends_on:
            if name not in known:
                origins[program.name].error(("depends_on", name), f"there is no program '{name}'{suggestion(name, known)}", at_key=True)
    inner = {name: program for name, program in programs.items() if program.depends_on}  # a cycle has no others
    for cycle in _cycles({name: tuple(d for d in program.depends_on if d in inner) for name, program in inner.items()}):
        path = " → ".join((*cycle, cycle[0]))
        origins[cycle[0]].error(("depends_on",), f"dependency cycle, a program cannot wait for itself: {path}", at_key=True)


def _cycles(graph: Mapping[str, tuple[str, ...]]) -> list[tuple[str, ...]]:
    """A cycle for each group of programs that depend on each other; each begins with the program that is first in the file."""
    done: set[str] = set()
    cycles = []
    for start in graph:
        trail = [start] if start not in done else []
        unfollowed = {name: iter(graph[name]) for name in trail}
        while trail:
            following = next(unfollowed[trail[-1]], None)
            if following is None:
                done.add(trail[-1])
                del unfollowed[trail.pop()]
            elif following in unfollowed:  # it is on the trail
                cycles.append(trail[trail.index(following) :])
            elif following not in done:
                trail.append(following)
                unfollowed[following] = iter(graph[following])
    order = list(graph)
    return [tuple(cycle[first:] + cycle[:first]) for cycle in cycles for first in [cycle.index(min(cycle, key=order.index))]]
