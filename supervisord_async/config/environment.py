"""A program's environment: inherited variables, environment files, its own keys."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

import msgspec

from supervisord_async import wire
from supervisord_async.config.files import read_trusted_file
from supervisord_async.config.place import Report
from supervisord_async.errors import Problem

#: What the daemon was told by its own supervisor (a socket, a watchdog) does not concern its programs.
NEVER_INHERITED = frozenset(value for name, value in vars(wire).items() if name.startswith("ENV_"))
#: What systemd says about the daemon's own service (``man 5 systemd.exec``): its folders, its log, its identity. A program
#: would take them for its own, so it gets only those that its ``inherit_environment`` names.
OF_THE_SERVICE = frozenset(
    {
        *(f"{kind}_DIRECTORY" for kind in ("RUNTIME", "STATE", "CACHE", "LOGS", "CONFIGURATION")),
        *("JOURNAL_STREAM", "INVOCATION_ID", "SYSTEMD_EXEC_PID", "MANAGERPID"),
        *("MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "FDSTORE"),
    }
)
#: With ``user`` these come from the user's passwd entry, unless the file gives them.
OF_THE_USER = frozenset({"HOME", "USER", "LOGNAME"})
#: Where the daemon was started: a program runs in its own ``directory``, and gets that as PWD.
OF_THE_PLACE = frozenset({"PWD", "OLDPWD"})
MAX_FILE_BYTES = 1024 * 1024


def inherited(inherit: bool | Sequence[str], variables: Mapping[str, str], *, with_user: bool) -> dict[str, str]:
    """The variables of the daemon's environment that a program inherits."""
    if inherit is False:
        return {}
    left_out = NEVER_INHERITED
    if inherit is True:
        left_out |= OF_THE_SERVICE | OF_THE_PLACE
        if with_user:
            left_out |= OF_THE_USER
    names = variables if inherit is True else inherit
    return {name: variables[name] for name in names if name in variables and name not in left_out}


def is_name(name: str) -> bool:
    """Whether an environment variable can have this name."""
    return bool(name) and "=" not in name and "\0" not in name


def names_itself(name: str, value: str) -> bool:
    """Whether the value holds its own variable as a shell would replace it (``PATH: $PATH:/opt/bin``); as it stands nobody wants that."""
    return f"${name}" in value and re.search(rf"\${re.escape(name)}\b", value) is not None


class EnvironmentFiles(msgspec.Struct):
    """Reads environment files, each once. Values are taken as written: ``$`` is not expanded.

    Such a file is often in a folder of the program's user, who is given what is in it: it is opened by ``system.safe_open``.
    """

    report: Report
    _read: dict[str, dict[str, str] | OSError] = msgspec.field(default_factory=dict)

    def read(self, path: str) -> dict[str, str]:
        """The file's variables; bad lines are reported under the file's own name. Raises OSError if it cannot be read."""
        if path not in self._read:
            try:
                self._read[path] = self._parse(path, read_trusted_file(path, MAX_FILE_BYTES))
            except OSError as error:
                self._read[path] = error
        result = self._read[path]
        if isinstance(result, OSError):
            raise result
        return result

    def _parse(self, path: str, content: bytes) -> dict[str, str]:
        from dotenv.parser import parse_stream

        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            self.report.add(Problem(path, content[: error.start].count(b"\n") + 1, 1, "this is not UTF-8"))
            return {}
        values: dict[str, str] = {}
        for binding in parse_stream(io.StringIO(text)):
            lines = binding.original.string
            line = binding.original.line + len(lines) - len(lines.lstrip("\n"))
            if binding.error or (binding.key is not None and (binding.value is None or "\0" in binding.value)):
                self.report.add(Problem(path, line, 1, "expected NAME=value, a comment or an empty line"))
            elif binding.key is not None and binding.value is not None:
                quoted = lines.partition("=")[2].lstrip().startswith('"')
                values[binding.key] = binding.value.replace("\\\n", "") if quoted else binding.value  # joined, as sh and systemd do
                if names_itself(binding.key, binding.value):
                    words = (
                        f"'${binding.key}' is passed on as it stands: nothing expands in this file, but ${{{binding.key}}} in 'environment'"
                    )
                    self.report.add(Problem(path, line, 1, words, warning=True))
        return values
