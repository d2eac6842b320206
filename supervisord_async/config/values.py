"""Parses values (durations, sizes, addresses, commands …) and reports problems at the place where they are written."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec

from supervisord_async.config import model, units
from supervisord_async.config.document import Path, found
from supervisord_async.config.patterns import compile_ignored, compile_pattern
from supervisord_async.config.place import Origin
from supervisord_async.system.sockets import PATH_LIMIT_BYTES
from supervisord_async.wire import PROGRAM_NAME

T = TypeVar("T")
K = TypeVar("K", bound=str)

NAME_PATTERN = re.compile(PROGRAM_NAME)
NAME_EXPECTED = (
    "expected a name of letters A-Z and a-z, digits, '_', '-', '.', '+' and '@', the first a letter, digit or '_', at most 100 long"
)
#: What only a shell interprets, where nothing quotes it: at the beginning of a word, or at its end.
SHELL_SYNTAX = re.compile(r"(?<!\S)(?:\|\|?|&&|\d?>&\d|&?>>?|\d>>?|<<?)|[;&](?!\S)")
#: Commands that only a shell has, and what does the same here.
SHELL_COMMANDS = {
    "cd": "'directory' says where it runs",
    "source": "begin with the environment's own interpreter, such as venv/bin/python",
    ".": "begin with the environment's own interpreter, such as venv/bin/python",
    "export": "variables are in 'environment'",
    "exec": "leave it out",
    "ulimit": "'limits' has some",
}
#: A further line that begins a command rather than an indented argument or an option, as in a script.
SECOND_LINE = re.compile(r"\n(?=[^\s-])")
#: A quoted part of a command, or a character behind a backslash.
QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"|\\.", re.DOTALL)
#: A word in which a shell would expand a variable.
BARE_VARIABLE = re.compile(r"[^\s'\"$]*\$[A-Za-z_]\w*[^\s'\"$]*$")
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
#: Executables, or their first argument, that make a ``$`` in further words likely meant for the program itself.
OWN_DOLLARS = frozenset({"-c", "-e", "-lc", "-ec", "awk", "gawk", "mawk", "perl", "jq", "sed", "envsubst", "grep"})


class Values(msgspec.Struct, frozen=True):
    """Each method returns the resolved value; for an invalid one it reports a problem and returns a harmless stand-in."""

    origin: Origin

    def _parsed(self, parse: Callable[[Any], T], value: Any, sub: Path, stand_in: T) -> T:
        try:
            return parse(value)
        except ValueError as error:
            words, mark, near = str(error).partition("; did you mean")
            self.origin.error(sub, f"{words}, found {found(value)}{mark}{near}")
            return stand_in

    def duration(self, value: float | str, sub: Path, *, zero: bool = False) -> float:
        """Seconds; above 0 unless ``zero`` allows that too."""
        seconds = self._parsed(units.parse_duration, value, sub, 1.0)
        if seconds == 0 and not zero:
            self.origin.error(sub, f"expected a duration above 0, found {found(value)}")
            return 1.0
        return seconds

    def size(self, value: int | str, sub: Path, *, zero: bool = True) -> int:
        """Bytes; above 0 unless ``zero`` allows that too."""
        size = self._parsed(units.parse_size, value, sub, 1)
        if size == 0 and not zero:
            self.origin.error(sub, f"expected a size above 0, found {found(value)}")
        return size

    def optional_size(self, value: int | str | None, sub: Path) -> int | None:
        """Bytes, or None."""
        return None if value is None else self.size(value, sub)

    def signal(self, value: int | str, sub: Path) -> int:
        """A signal's number."""
        return self._parsed(units.parse_signal, value, sub, 15)

    def octal(self, value: int | str, sub: Path) -> int:
        """Permission bits."""
        return self._parsed(units.parse_octal, value, sub, 0)

    def umask(self, value: int | str | None, sub: Path) -> int | None:
        """The bits of a umask, or None."""
        bits = None if value is None else self.octal(value, sub)
        if bits is not None and bits > 0o777:
            self.origin.error(sub, f'expected octal digits from "000" to "777", found {found(value)}')
        return bits

    def address(self, value: int | str, sub: Path, *, any_port: bool = True) -> tuple[str, int]:
        """Host and port; port 0, any, only if ``any_port``."""
        host, port = self._parsed(units.parse_address, value, sub, ("127.0.0.1", 1))
        if port == 0 and not any_port:
            self.origin.error(sub, f"expected a port to connect to, found {found(value)}")
        return host, port

    def name(self, value: str | int, sub: Path) -> str:
        """A program's, group's or daemon's name."""
        if not NAME_PATTERN.fullmatch(str(value)):
            self.origin.error(sub, f"{NAME_EXPECTED}, found {found(str(value))}", at_key=True)
        return str(value)

    def command(self, value: Any, sub: Path, *, shell: bool = False) -> tuple[str, ...]:
        """An argument vector: a list as it is, a string split as a shell would; with ``shell`` that of ``/bin/sh -c``."""
        if isinstance(value, list):
            words = tuple(text(word) for word in value)
            if shell:
                self.origin.error(sub, "expected a string with shell: true, found a list")
        elif shell:
            words = ("/bin/sh", "-c", value)
            if str(value).lstrip().startswith("source "):
                self.origin.warning(sub, "'source' is bash's own word, which many a /bin/sh lacks: there it is '.'")
        else:
            words = self._split(value, sub)
        if not shell:
            self._warn_of_shell_syntax(words, sub)
        if not words or not words[0] or (shell and not str(value).strip()):
            self.origin.error(sub, "expected a command, found nothing to run")
        return words

    def _split(self, value: str, sub: Path) -> tuple[str, ...]:
        try:
            words = tuple(shlex.split(_unbroken(value)))
        except ValueError:
            self.origin.error(sub, "a quote is opened and never closed, or a backslash ends it")  # the value may hold a secret
            return ("?",)
        bare = QUOTED.sub("_", value).strip()
        if SECOND_LINE.search(bare):
            self.origin.warning(sub, f"its line breaks are taken for spaces; for a script of several lines {_by_shell(sub)}")
        meant_for_shell = SHELL_SYNTAX.search(bare)
        if meant_for_shell:
            self.origin.warning(sub, f"'{meant_for_shell[0]}' is passed on as it stands; only a shell understands it: {_by_shell(sub)}")
        return words

    def _warn_of_shell_syntax(self, words: Sequence[str], sub: Path) -> None:
        """Warns about words that a shell would interpret, but nothing here does."""
        if words and ASSIGNMENT.match(words[0]):
            name = words[0].partition("=")[0]  # the value may be a secret
            self.origin.warning(sub, f"'{name}=…' is taken for the program: set variables in 'environment', or {_by_shell(sub)}")
        if words and words[0] in SHELL_COMMANDS:
            self.origin.warning(sub, f"'{words[0]}' is a shell's own command: {SHELL_COMMANDS[words[0]]}, or {_by_shell(sub)}")
        if words and words[0] in ("CMD", "CMD-SHELL"):
            ours = "begin with the program" if words[0] == "CMD" else "make it [sh, -c, '…']"
            self.origin.warning(sub, f"'{words[0]}' is taken for the program: it is docker's; {ours}")
        home = next((word for word in words if word.startswith("~/")), None)
        if home:
            self.origin.warning(sub, f"'{home}' is passed on as it stands: write ${{HOME}}{home[1:]}, or {_by_shell(sub)}")
        if not OWN_DOLLARS.isdisjoint((*words[1:2], *(os.path.basename(word) for word in words[:1]))):
            return
        bare = next((word for word in words if BARE_VARIABLE.match(word)), None)
        if bare:
            self.origin.warning(sub, f"'{bare}' is passed on as it stands: write ${{NAME}} for the daemon's variable, or {_by_shell(sub)}")

    def optional_command(self, value: Any, sub: Path) -> tuple[str, ...] | None:
        """An argument vector, or None."""
        return None if value is None else self.command(value, sub)

    def url(self, value: str, sub: Path) -> str:
        """An http or https URL with a host."""
        try:
            parts = urlsplit(value)
            sound = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        except ValueError:
            sound = False
        if not sound or not value.isprintable() or " " in value:
            self.origin.error(sub, f"expected a URL such as http://127.0.0.1:8080/healthz, found {found(value)}")
        return value

    def pattern(self, value: str, sub: Path) -> str:
        """A regular expression for a log probe."""
        try:
            compile_pattern(value)
        except ValueError as error:
            self.origin.error(sub, f"expected a regular expression, found {found(value)} ({error})")
        except ImportError as error:
            self.origin.error(sub, f"output cannot be searched here: {error}")
        return value

    def ignore_patterns(self, values: Sequence[str], sub: Path) -> tuple[str, ...]:
        """Patterns as in .gitignore."""
        for index, value in enumerate(values):
            try:
                compile_ignored((value,))
            except ValueError:
                self.origin.error((*sub, index), f"expected a pattern as in .gitignore, found {found(value)}")
            except ImportError as error:
                self.origin.error(sub, f"patterns cannot be used here: {error}")
        return tuple(values)

    def socket_path(self, value: str, sub: Path, advice: str) -> str:
        """The path of a unix socket, whose length the system limits."""
        size = len(value.encode("utf-8", "replace"))
        if size > PATH_LIMIT_BYTES:
            self.origin.error(sub, f"a unix socket's path holds {PATH_LIMIT_BYTES} bytes, {value} has {size}; {advice}")
        return value

    def only_one(self, values: Mapping[K, Any], sub: Path) -> K | None:
        """The one key of ``values`` that is given; reports a problem and returns None unless it is exactly one."""
        given = [name for name, value in values.items() if value is not None]
        if len(given) == 1:
            return given[0]
        names: list[str] = list(values)
        choice = f"{', '.join(names[:-1])} and {names[-1]}"
        self.origin.error(sub, f"expected exactly one of {choice}, found {' and '.join(given) or 'none of them'}")
        return None

    def socket(self, name: str, url: str, sub: Path, resolve_path: Callable[[str], str]) -> model.Socket:
        """Kind and address of a listening socket."""
        kind: Literal["tcp", "udp", "unix"]
        scheme, colon, rest = url.partition(":")
        if colon and scheme == "unix" and rest.removeprefix("//"):
            path = resolve_path(rest.removeprefix("//"))
            return model.Socket(name=name, kind="unix", path=self.socket_path(path, sub, "choose a shorter one"))
        if scheme in ("tcp", "udp") and rest.startswith("//"):
            kind = "tcp" if scheme == "tcp" else "udp"
            host, port = self.address(rest.removeprefix("//").rstrip("/"), sub)
            return model.Socket(name=name, kind=kind, host=host, port=port)
        self.origin.error(sub, f"expected tcp://HOST:PORT, udp://HOST:PORT or unix:PATH, found {found(url)}")
        return model.Socket(name=name, kind="tcp")


def _unbroken(command: str) -> str:
    """``command`` without the line breaks that a backslash takes away: shlex makes each of them a word."""
    return QUOTED.sub(lambda part: part[0] if part[0][0] == "'" else re.sub(r"(\\\\)|\\\n", r"\1", part[0]), command)


def _by_shell(sub: Path) -> str:
    """The advice how to have the command at ``sub`` run by a shell."""
    return "set shell: true" if sub == ("command",) else "make it [sh, -c, '…']"


def text(value: Any) -> str:
    """A scalar as the text that a program receives."""
    return str(value).lower() if isinstance(value, bool) else str(value)
