"""What a run was begun with is told from other settings, whoever looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from supervisord_async.config.load import load
from supervisord_async.config.model import Daemon, Program
from supervisord_async.supervise.runs import run_spec
from supervisord_async.system.disks import Executable

SETTINGS = "command: x, environment: {LANG: C, TZ: UTC}"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What a daemon with an environment makes of a program's settings."""

    def make(environment: Mapping[str, str], settings: str = SETTINGS) -> Program:
        monkeypatch.setattr(run_spec, "_own_environment", lambda: environment)
        file = tmp_path / "programs.yaml"
        file.write_text(f"programs: {{a: {{{settings}}}}}")
        return load(file, environ=environment).configuration.programs["a"]

    return make


@pytest.mark.parametrize("first", [{}, {"LANG": "C"}, {"LANG": "de_DE", "PATH": "/bin"}])
@pytest.mark.parametrize("second", [{}, {"LANG": "C"}, {"LANG": "de_DE", "HOME": "/root", "TZ": "UTC"}])
def test_settings_are_the_same_in_whatever_environment_a_daemon_was_started(program, first, second) -> None:
    digest = run_spec.settings_digest(program(first))
    assert run_spec.has_digest(program(second), digest)


def test_another_value_of_a_variable_is_another_setting(program) -> None:
    digest = run_spec.settings_digest(program({"LANG": "C"}))
    for settings in ("command: x, environment: {LANG: de_DE, TZ: UTC}", "command: x, environment: {TZ: UTC, MORE: y}", "command: x"):
        assert not run_spec.has_digest(program({}, settings), digest)
    assert run_spec.has_digest(program({}), "")


def test_a_digest_of_earlier_versions_is_known(program) -> None:
    """They left out what was the daemon's own environment anyway."""
    earlier = program({}, "command: x, environment: {TZ: UTC}")
    without = run_spec._digest(earlier, run_spec._own_variables(earlier))
    assert run_spec.has_digest(program({"LANG": "C"}), without)
    assert not run_spec.has_digest(program({"LANG": "de_DE"}), without)


def test_what_a_spawn_reads_is_the_program_in_its_directory_by_its_own_path(program: Callable[..., Program]) -> None:
    made = program({"PATH": "/usr/bin"}, "command: [serve, now], directory: /usr, environment: {PATH: /opt/bin}")
    assert run_spec.executable_of(made) == Executable("serve", "/usr", "/opt/bin")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [("directory: /srv/current", "/srv/current"), ("directory: /srv, environment: {PWD: /x}", "/x"), ("inherit_environment: false", None)],
)
def test_a_run_is_told_its_own_directory_and_not_where_the_daemon_was_started(program, tmp_path, settings, expected) -> None:
    made = program({"PWD": "/root", "OLDPWD": "/home"}, f"command: x, {settings}")
    variables = run_spec.RunEnvironment(made, "a", 0, 1, Daemon(name="d", run_dir="/run", socket="/run/s"), "i", None).variables()
    assert variables["PWD"] == (expected or str(tmp_path))
    assert "OLDPWD" not in variables
