"""docs/operations.md, docs/asup-run.md and the files to copy are true."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from supervisord_async.cli.asup_run import cli as asup_run
from supervisord_async.cli.plain import plain_daemon
from supervisord_async.config.load import load
from supervisord_async.config.model import Daemon

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "config" / "asupd.service"
USER_UNIT = ROOT / "config" / "asupd.user.service"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "supervisord_async").rglob("*.py")))


def unit(path: Path) -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path)
    return parser


@pytest.mark.parametrize("path", [UNIT, USER_UNIT])
def test_unit_leaves_programs_to_be_taken_back_and_gives_up_some_day(path: Path) -> None:
    service, section = unit(path)["Service"], unit(path)["Unit"]
    assert service["Type"] == "notify"
    assert service["KillMode"] == "process"
    assert service["Restart"] == "on-failure"
    assert int(section["StartLimitBurst"]) > 0
    interval, pause = (int(each.removesuffix("s")) for each in (section["StartLimitIntervalSec"], service["RestartSec"]))
    assert int(section["StartLimitBurst"]) * (pause + 3) < interval <= 60  # by hand, nobody restarts it so often in a minute
    assert service["WatchdogSec"]
    assert service["RestartPreventExitStatus"] == "2 4"
    assert service["Delegate"] == "yes"
    bound = Daemon(name="x", run_dir="x", socket="x").stop_timeout_seconds
    assert int(service["TimeoutStopSec"].removesuffix("s")) > bound


@pytest.mark.parametrize("path", [UNIT, USER_UNIT])
def test_unit_starts_and_reloads_one_and_the_same_daemon(path: Path) -> None:
    service = unit(path)["Service"]
    start = plain_daemon(service["ExecStart"].split()[1:])
    assert start is not None
    assert service["ExecReload"].split()[1:] == ["-s", f"{start.run_dir}/asupd.sock", "reload", "--no-wait"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("path", [UNIT, USER_UNIT])
def test_unit_is_sound_for_systemd(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "asupd.service"
    copy.write_text(re.sub(r"(?m)^(Exec\w+)=\S+", rf"\1={sys.executable}", path.read_text()))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, timeout=60, check=False)
    assert "asupd.service" not in done.stderr, done.stderr


def test_container_example_is_sound(tmp_path: Path) -> None:
    loaded = load(ROOT / "config" / "container" / "programs.yaml")
    assert loaded.warnings == ()
    assert loaded.configuration.daemon.stop_timeout_seconds < 10
    dockerfile = (ROOT / "config" / "container" / "Dockerfile").read_text()
    for source in re.findall(r"config/\S+\.(?:py|yaml)", dockerfile):
        assert (ROOT / source).is_file(), source


def test_every_degraded_line_of_the_log_is_in_the_table() -> None:
    said = re.findall(r'(?:_log\.\w+|_say)\(\s*f?"degraded: ([^"]*)', SOURCE)
    assert said
    told = re.findall(r"`degraded: ([^`]*)`", OPERATIONS)
    patterns = [".*".join(re.escape(part) for part in each.split("…")) for each in told]
    for line in said:
        plain = re.sub(r"%s|\{[^}]*\}", "x", line)
        assert any(re.match(pattern, plain) for pattern in patterns), f"docs/operations.md does not tell of {line!r}"


def test_every_quoted_word_of_the_table_is_said() -> None:
    for quoted in re.findall(r"`(?:degraded|critical|transient): ([^`]*)`", OPERATIONS):
        words = max(re.split(r"…|N errors|\(PID", quoted), key=len).strip(" ()")
        assert words in SOURCE, f"nothing says {words!r}"


def test_every_option_of_asup_run_is_explained_with_its_default() -> None:
    page = (ROOT / "docs" / "asup-run.md").read_text(encoding="utf-8")
    for option in asup_run.params:
        for name in option.opts:
            if name.startswith("--") and name != "--version":
                assert f"`{name}" in page, name
    defaults = {option.opts[0]: option.default for option in asup_run.params}
    rows = dict(re.findall(r"(?m)^\| `(--[a-z-]+)` \| `?([^`|]*?)`? \|", page))
    for name in ("--timeout", "--initial-check-delay", "--heartbeat-file", "--grace-period", "--max-restarts", "--backoff-factor"):
        assert rows[name] == str(defaults[name])
