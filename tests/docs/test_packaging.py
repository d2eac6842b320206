"""``pip install .`` gives what it promises: metadata, the three commands, type information."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest

import supervisord_async

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("command", ["asupd", "asupctl", "asup-run"])
def test_command_leads_to_a_function(command: str) -> None:
    module_name, _, function = PROJECT["scripts"][command].partition(":")
    assert callable(getattr(importlib.import_module(module_name), function))


def test_package_version_is_that_of_the_project() -> None:
    assert supervisord_async.__version__ == PROJECT["version"]


def test_package_carries_its_types() -> None:
    assert (ROOT / "supervisord_async" / "py.typed").is_file()


def test_every_dependency_is_explained() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8").lower()
    requirements = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"], *PROJECT["optional-dependencies"]["tui"]]
    for requirement in requirements:
        match = re.match(r"[A-Za-z0-9_-]+", requirement)
        assert match is not None
        name = match[0].lower()
        assert name in page or name.startswith("types-"), f"docs/dependencies.md does not say why {name} is there"


def test_every_dependency_is_imported() -> None:
    modules = {"pyyaml": "yaml", "python-dotenv": "dotenv", "google-re2": "re2"}
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "supervisord_async").rglob("*.py"))
    for requirement in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["tui"]]:
        name = re.split(r"[^A-Za-z0-9_-]", requirement)[0]
        module = modules.get(name, name)
        assert re.search(rf"^\s*(import|from) {module}\b", source, re.MULTILINE), f"nothing imports {module}: {requirement}"


def test_pins_name_no_place() -> None:
    for line in (ROOT / "scripts" / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!]+", line), f"{line!r} is more than a pin"
