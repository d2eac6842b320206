"""A load that remembers the one before says what one without memory would."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisord_async.config.load import Loaded, load
from supervisord_async.config.load_cache import LoadCache
from supervisord_async.errors import ConfigError

FIRST = """\
version: 1
include: [more/*.yaml]
defaults: {stop: {grace_period: 3s}}
programs:
  web: {command: [serve, "${PORT:-80}"], environment: {A: "1"}}
  job: {command: run it, autostart: true, umask: 022}
  filed: {command: x, environment_files: [v.env]}
  doubtful: {command: x, restart: {backoff: {initial: 9s, max: 1s}}}
"""

EDITS = {
    "nothing": (FIRST, {}),
    "one program": (FIRST.replace("[serve,", "[serve, -v,"), {}),
    "defaults": (FIRST.replace("3s}", "4s}"), {}),
    "a type only": (FIRST.replace("umask: 022", 'umask: "022"').replace("autostart: true", 'autostart: "true"'), {}),
    "one gone": (FIRST.replace("  web: {", "  wob: {"), {}),
    "a variable": (FIRST, {"PORT": "81"}),
    "a variable that is no UTF-8": (FIRST, {"PORT": "\udcff"}),
    "run_dir": (FIRST + "daemon: {run_dir: elsewhere}\n", {}),
    "as a list": (FIRST.replace("  web: {", "  - {name: web, ").replace("  job: {", "  - {name: job, ").split("  filed")[0], {}),
    "unsound": (FIRST.replace("umask: 022", "umusk: 022"), {}),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.yaml").write_text("programs:\n  a: {command: a}\n")
    (tmp_path / "v.env").write_text("V=1\n")
    return tmp_path / "programs.yaml"


def outcome(file: Path, variables: dict[str, str], load_cache: LoadCache | None) -> object:
    try:
        loaded: Loaded = load(file, environ={"HOME": "/root", **variables}, load_cache=load_cache)
    except ConfigError as error:
        return error.problems
    return loaded.configuration, loaded.warnings


@pytest.mark.parametrize("edit", EDITS)
def test_a_reload_says_what_a_first_load_says(file: Path, edit: str) -> None:
    load_cache = LoadCache()
    file.write_text(FIRST)
    before = outcome(file, {}, load_cache)
    assert before == outcome(file, {}, None)
    text, variables = EDITS[edit]
    file.write_text(text)
    for _ in range(2):
        assert outcome(file, variables, load_cache) == outcome(file, variables, None)
    file.write_text(FIRST)
    assert outcome(file, {}, load_cache) == before


def test_files_that_are_read_are_read_again(file: Path, tmp_path: Path) -> None:
    load_cache = LoadCache()
    file.write_text(FIRST)
    outcome(file, {}, load_cache)
    (tmp_path / "v.env").write_text("V=2\n")
    (tmp_path / "more" / "a.yaml").write_text("programs:\n  a: {command: b}\n")
    assert outcome(file, {}, load_cache) == outcome(file, {}, None)


def test_what_reads_the_same_is_the_same_program(file: Path) -> None:
    load_cache = LoadCache()
    file.write_text(FIRST)
    before = load(file, load_cache=load_cache).configuration.programs
    file.write_text(FIRST.replace("run it", "run that"))
    after = load(file, load_cache=load_cache).configuration.programs
    same = {name for name in before if before[name] is after[name]}
    assert same == {"web", "a"}  # the job has changed, the others are never taken from memory
