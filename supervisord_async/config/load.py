"""Turns a file into a Configuration, or into the list of every reason why it cannot.

The only way to make one; it depends on files and environment alone. It blocks while it reads, so the daemon calls it in a
worker thread. Order: read the file and what it includes; check shapes; spell shorthands out; merge ``defaults``;
resolve; check keys against each other. Each step goes on with what the previous one found sound, so that all problems
are reported at once.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from supervisord_async.config import shape
from supervisord_async.config.document import Document, Path, found
from supervisord_async.config.environment import EnvironmentFiles
from supervisord_async.config.explain import TOO_LITTLE, fitting, means_command, means_programs
from supervisord_async.config.files import MAX_FILE_BYTES, absolute, matching, read_regular_file
from supervisord_async.config.load_cache import Digests, LoadCache, digest_of
from supervisord_async.config.model import Configuration, Program
from supervisord_async.config.place import Origin, Place, Report
from supervisord_async.config.resolve import ResolveContext, resolve_program
from supervisord_async.config.resolve_daemon import resolve_daemon
from supervisord_async.config.rules import check_rules
from supervisord_async.config.secrets import secrets_among
from supervisord_async.config.shorthand import merged, spelt_out
from supervisord_async.config.values import NAME_EXPECTED, NAME_PATTERN
from supervisord_async.errors import ConfigError, Problem

MAX_FILES = 1000
#: A file with any of these top-level keys is meant for us, and not for another supervisor.
_OURS = frozenset({"programs", "include", "daemon", "defaults"})


class Loaded(msgspec.Struct, frozen=True):
    """A sound file. ``origins``, by program, say where settings were written, for further warnings; drop them afterwards."""

    configuration: Configuration
    warnings: tuple[Problem, ...]
    origins: Mapping[str, Origin] = msgspec.field(default_factory=lambda: MappingProxyType({}))


class _Entry(msgspec.Struct, frozen=True):
    """A program before it is resolved: ``directory`` is its file's, ``defaults`` are those that apply, spelt out and merged."""

    name: str
    data: shape.Data
    directory: str
    defaults: shape.Data
    origin: Origin
    digests: Digests | None  #: None if the program cannot be remembered for the next load
    known: Program | None = None  #: the result of an earlier load of the same text; ``data`` is then not used


def load(
    path: str | os.PathLike[str],
    *,
    environ: Mapping[str, str] | None = None,
    name: str | None = None,
    run_dir: str | None = None,
    load_cache: LoadCache | None = None,
    living_in: str | None = None,
    starting: bool = False,
) -> Loaded:
    """The configuration in ``path`` with everything that it includes.

    Args:
        path: the main file.
        environ: what ``${VAR}`` and ``inherit_environment`` refer to; default: the process's own environment.
        name: how problems name the file; default: ``path`` as given.
        run_dir: overrides the file's.
        load_cache: programs with the same digests as in it are taken from it; afterwards it holds those of this load.
        living_in: the run_dir of the running daemon that asks, which cannot change.
        starting: for a daemon that starts: an environment file that cannot be read is a warning, and keeps only its programs down.

    Raises ConfigError with every problem.
    """
    given = os.fspath(path)
    loading = _Loading(dict(os.environ if environ is None else environ), load_cache or LoadCache(), starting)
    try:
        return loading.load(os.path.abspath(given), name or given, os.path.abspath(run_dir) if run_dir else None, living_in)
    except RecursionError:  # no input is known that leads here, but it would be the file's fault
        raise ConfigError([Problem(name or given, 1, 1, "the file is too deeply nested")]) from None
    except OSError as error:  # the machine is short of descriptors, say, to look at what is mounted
        raise ConfigError([Problem(name or given, 0, 1, f"cannot be loaded now: {(error.strerror or str(error)).lower()}")]) from error


class _Loading:
    """One load: the files read so far and what was found in them."""

    def __init__(self, variables: Mapping[str, str], load_cache: LoadCache, starting: bool) -> None:
        self._variables = variables
        self._load_cache = load_cache
        self._starting = starting
        self._known: Mapping[str, tuple[Digests, Program]] = {}
        self._remembered: dict[str, tuple[Digests, Program]] = {}
        self._report = Report(secrets_among(variables))
        self._files = EnvironmentFiles(self._report)
        self._read: set[str] = set()  # real paths
        self._entries: dict[str, _Entry] = {}
        self._names: set[str] = set()

    def load(self, path: str, name: str, run_dir: str | None, living_in: str | None) -> Loaded:
        """As :func:`load`, for absolute paths."""
        document = self._document(path, name)
        data = self._mapping(document)
        if document is None or data is None:
            raise ConfigError(self._report.sorted())
        place = Place(document, ("daemon",), ("daemon",))
        section = self._section(place, data.get("daemon"), shape.Daemon)
        origin = Origin((place,), self._report)
        daemon = resolve_daemon(section, origin, path, self._variables, run_dir=run_dir)
        if living_in is not None and daemon.run_dir != living_in:
            origin.error(
                ("run_dir",), f"the running daemon cannot move from {living_in}: stop it with `asupctl shutdown`, then start it again"
            )
        self._known = self._load_cache.programs(daemon.run_dir, self._variables)
        self._collect(document, data, {}, (), main=True)
        context = ResolveContext(daemon.run_dir, self._variables, self._files, self._starting)
        programs = {entry.name: program for entry in self._entries.values() if (program := self._program(entry, context))}
        configuration = Configuration(file=path, daemon=daemon, programs=programs)
        origins = {program: self._entries[program].origin for program in programs}
        check_rules(configuration, origins, origin, known=frozenset(self._names))
        if self._report.errors:
            raise ConfigError(self._report.sorted())
        self._load_cache.replace(daemon.run_dir, self._variables, self._remembered)
        return Loaded(configuration, self._report.sorted(), MappingProxyType(origins))

    def _document(self, path: str, name: str) -> Document | None:
        """The file's document; None if it cannot be read. Its problems are added to the report."""
        self._read.add(os.path.realpath(path))
        try:
            text = read_regular_file(path, MAX_FILE_BYTES).decode("utf-8-sig")
        except OSError as error:
            self._report.add(Problem(name, 1, 1, f"cannot read this file: {(error.strerror or str(error)).lower()}"))
            return None
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            self._report.add(Problem(name, line, 1, "this is not UTF-8"))
            return None
        document = Document(text, name=name, path=path, variables=self._variables)
        if not (isinstance(document.data, dict) and _OURS & document.data.keys()):
            from supervisord_async.config.other_files import other_file

            if (other := other_file(text)) is not None:
                self._report.add(Problem(name, *other))  # instead of everything that is wrong with it as one of our files
                return None
        for problem in document.problems:
            self._report.add(problem)
        return document

    def _mapping(self, document: Document | None) -> shape.Data | None:
        """The document's top level, with only those of its own keys that fit; None if it is not a mapping."""
        if document is None:
            return None
        data = document.data
        if isinstance(data, dict):
            sections = {key: data[key] for key in ("daemon", "defaults", "programs") if key in data}
            rest = {key: value for key, value in data.items() if key not in sections}
            return {**fitting(Place(document, (), ()), rest, shape.File, self._report), **sections}
        if not document.problems:
            what = "the file is empty" if data is None else f"found {found(data)}"
            self._report.add(Problem(document.name, 1, 1, f"expected a mapping with 'programs'; {what}"))
        return None

    def _section(self, place: Place, data: Any, kind: type[shape.Shape]) -> shape.Data:
        """A copy of a section's data, with only the parts that fit; {} if it is absent."""
        if data is None:
            return {}
        if not isinstance(data, dict):
            meant = f"; did you mean {{command: {found(data)}}}?" if kind is shape.Program and isinstance(data, str) else ""
            self._report.add(place.problem((), f"expected a mapping, found {found(data)}{meant}"))
            return {}
        return dict(fitting(place, data, kind, self._report))

    def _collect(self, document: Document, data: shape.Data, defaults: shape.Data, under: tuple[Place, ...], *, main: bool) -> None:
        """The programs of a file, and of the files that it includes, are among the entries."""
        place = Place(document, ("defaults",), ("defaults",))
        own = self._section(place, data.get("defaults"), shape.Program)
        if own.pop("name", None) is not None:
            self._report.add(place.problem(("name",), "'defaults' cannot have a name", at_key=True))
        if data.get("defaults") is not None:
            defaults, under = merged(defaults, spelt_out(own, document.directory, self._variables)), (place, *under)
        if not main and data.get("daemon") is not None:
            self._report.add(Place(document, (), ()).problem(("daemon",), "only the main file has a daemon section", at_key=True))
        base = digest_of((document.directory, defaults))
        for name, item, program_place in self._items(document, data, defaults):
            self._take(name, item, program_place, defaults, under, base)
        for index, pattern in self._patterns(data):
            self._include(document, index, pattern, defaults, under)
        if main and "programs" not in data and "include" not in data and not any(means_programs(str(key)) for key in document.data):
            self._report.add(Problem(document.name, 1, 1, "programs: missing; expected a mapping of names to programs"))
        elif main and not self._names and not self._report.errors:
            self._report.add(Place(document, (), ()).problem(("programs",), "there are no programs", warning=True))

    @staticmethod
    def _patterns(data: shape.Data) -> Iterator[tuple[Path, str]]:
        include = data.get("include") or []
        if isinstance(include, str):
            yield ("include",), include
        else:
            yield from ((("include", index), pattern) for index, pattern in enumerate(include))

    def _items(self, document: Document, data: shape.Data, defaults: shape.Data) -> Iterator[tuple[str, Any, Place]]:
        """Name, data and place of each program."""
        programs = data.get("programs")
        top = Place(document, (), ())
        if isinstance(programs, dict):
            for name, item in programs.items():
                place = Place(document, ("programs", name), ("programs", name))
                if name in shape.Program.__struct_fields__ and "command" not in defaults and not _may_be_program(item):
                    self._report.add(place.problem((), TOO_LITTLE.format(name), at_key=True))
                    continue
                if isinstance(item, dict) and str(item.get("name", name)) != name:
                    self._report.add(place.problem(("name",), f"the program's name is its key, '{name}'; leave this out", at_key=True))
                yield name, item, place
        elif isinstance(programs, list):
            for index, item in enumerate(programs):
                name = item.get("name") if isinstance(item, dict) else None
                if isinstance(name, str | int) and not isinstance(name, bool):
                    yield str(name), item, Place(document, ("programs", index), ("programs", str(name)))
                else:
                    self._report.add(top.problem(("programs", index), "expected a mapping with 'name'" + self._found_instead(item)))
        elif programs is not None:
            expected = "a mapping of names to programs, or a list of items with 'name'"
            self._report.add(top.problem(("programs",), f"expected {expected}, found {found(programs)}"))

    @staticmethod
    def _found_instead(item: Any) -> str:
        if not isinstance(item, dict):
            return f", found {found(item)}"
        if "name" in item:
            return f", found {found(item['name'])} as name"
        meant = next((key for key, value in item.items() if not (isinstance(value, str) or key in shape.Program.__struct_fields__)), None)
        return ", found one without" + (f"; did you mean 'name: {meant}'?" if meant else "")

    def _take(self, name: str, item: Any, place: Place, defaults: shape.Data, under: tuple[Place, ...], base: bytes | None) -> None:
        """One program is among the entries, unless its name is taken. A name that is not allowed is reported."""
        origin = Origin((place, *under), self._report)
        if name in self._entries:
            self._report.add(
                place.problem((), f"this program is defined twice; first at {self._entries[name].origin.where(())}", at_key=True)
            )
            return
        if not NAME_PATTERN.fullmatch(name):
            self._report.add(place.problem((), f"{NAME_EXPECTED}, found {found(name)}", at_key=True))
        elif name == "all":
            self._report.add(place.problem((), "'all' cannot be a program's name: in commands it means every program", at_key=True))
        self._names.add(name)
        directory = place.document.directory
        own, known = digest_of(item), self._known.get(name)
        digests = None if base is None or own is None else (base, own)
        if known is not None and known[0] == digests:
            self._entries[name] = _Entry(name, {}, directory, defaults, origin, digests, known[1])
            return
        problems = len(self._report.problems)
        data = self._section(place, item, shape.Program)
        data.pop("name", None)
        if item is not None and "command" not in data and _mentions_command(item):
            data["command"] = "?"  # its problem is reported already: do not report a missing command as well
        spelt = spelt_out(data, directory, self._variables)
        sound = len(self._report.problems) == problems
        self._entries[name] = _Entry(name, spelt, directory, defaults, origin, digests if sound else None)

    def _include(self, document: Document, sub: Path, pattern: str, defaults: shape.Data, under: tuple[Place, ...]) -> None:
        """The programs of the files that match ``pattern`` are among the entries; no file is read twice."""
        place = Place(document, (), ())
        full = absolute(pattern, document.directory, self._variables)
        try:
            matches = matching(full) if glob.has_magic(full) else [full]
        except OSError as error:
            self._report.add(place.problem(sub, f"cannot list {error.filename}: {(error.strerror or str(error)).lower()}"))
            return
        if not matches and not os.path.isdir(os.path.dirname(full)) and not glob.has_magic(os.path.dirname(full)):
            self._report.add(place.problem(sub, f"there is no folder {os.path.dirname(full)}", warning=True))
        for match in matches:
            if os.path.realpath(match) in self._read:
                continue
            if len(self._read) >= MAX_FILES:
                self._report.add(place.problem(sub, f"more than {MAX_FILES} files"))
                return
            if not os.path.isfile(match):
                self._report.add(place.problem(sub, f"cannot read {match}: {_what_is_there(match)}"))
                continue
            relative = match if os.path.isabs(pattern) else os.path.relpath(match, document.directory)
            included = self._document(match, os.path.join(os.path.dirname(document.name), relative))
            data = self._mapping(included)
            if included is not None and data is not None:
                self._collect(included, data, defaults, under, main=False)

    def _program(self, entry: _Entry, context: ResolveContext) -> Program | None:
        problems, program = len(self._report.problems), entry.known
        if program is None:
            data = merged(entry.defaults, entry.data)
            program = resolve_program(entry.name, data, entry.origin, entry.directory, context)
            if data.get("environment_files") or len(self._report.problems) != problems:
                return program
        if program is not None and entry.digests is not None:
            self._remembered[entry.name] = (entry.digests, program)
        return program


def _what_is_there(path: str) -> str:
    """What is in the place of a file that is to be included."""
    if os.path.isdir(path):
        return "it is a folder; its files are meant by FOLDER/*.yaml"
    return "not a file" if os.path.exists(path) else "no such file"


def _may_be_program(item: Any) -> bool:
    """Whether what stands below the name of a program's key may be a program that is called so."""
    return item is None or (isinstance(item, dict) and _mentions_command(item))


def _mentions_command(item: Any) -> bool:
    """Whether a program has something meant as its command, however wrong the value or the key is."""
    return not isinstance(item, dict) or "command" in item or any(map(means_command, item))
