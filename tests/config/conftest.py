"""A folder to write configurations into, and to load them from."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from supervisord_async.config.load import Loaded, load
from supervisord_async.config.model import Configuration, Program
from supervisord_async.errors import ConfigError


class Project:
    """Files below one folder; problems name the main one ``programs.yaml``, as if it was given so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ: dict[str, str] = {"HOME": "/home/me", "PATH": "/usr/bin:/bin"}

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def load(self, text: str, environ: Mapping[str, str] | None = None) -> Loaded:
        path = self.write("programs.yaml", text)
        return load(path, environ={**self.environ, **(environ or {})}, name="programs.yaml")

    def configuration(self, text: str, **environ: str) -> Configuration:
        return self.load(text, environ).configuration

    def program(self, text: str, name: str = "web", **environ: str) -> Program:
        """The program of ``text``, which are the lines below its name."""
        body = textwrap.indent(textwrap.dedent(text).strip(), "    ")
        return self.configuration(f"programs:\n  {name}:\n{body}\n", **environ).programs[name]

    def problems(self, text: str, **environ: str) -> list[str]:
        """What the load of ``text`` complains of, warnings too where it is sound."""
        try:
            return [str(problem) for problem in self.load(text, environ).warnings]
        except ConfigError as error:
            return [str(problem) for problem in error.problems]

    def program_problems(self, text: str) -> list[str]:
        """What is wrong with a program ``web`` of these lines, without its place and name."""
        body = textwrap.indent(textwrap.dedent(text).strip(), "    ")
        found = self.problems(f"programs:\n  web:\n{body}\n")
        return [problem.split(": ", 1)[1].replace("programs.web.", "") for problem in found]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)
