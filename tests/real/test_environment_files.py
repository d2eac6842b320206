"""An environment file is missing just when the daemon starts: that concerns its program alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.daemons import LiveDaemon, python

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real

PROGRAMS = f"""
programs:
  lives: {{command: {python("import time; time.sleep(1000)")}, environment_files: [.env]}}
  begins: {{restart: {{backoff: {{initial: 30s}}}}, command: {python("import os, time; print(os.environ['A']); time.sleep(1000)")}, environment_files: [.env]}}
  other: {{command: {python("import time; time.sleep(1000)")}}}
"""


def test_a_missing_environment_file_keeps_only_its_program_from_starting(daemon: Make) -> None:
    live = daemon("programs: {}")
    live.end()
    environment_file = live.folder / ".env"
    environment_file.write_text("A=by the file\n")
    live.write(PROGRAMS)
    live.start()
    pids = {name: live.wait_for(name, "RUNNING")["pid"] for name in ("lives", "begins", "other")}
    live.kill()
    environment_file.unlink()
    subprocess.run(["kill", str(pids["begins"]), str(pids["other"])], check=True)

    live.start()
    assert live.wait_for("lives", "RUNNING")["pid"] == pids["lives"]
    assert live.wait_for("other", "RUNNING")["pid"] != pids["other"]
    row = live.wait_for("begins", "BACKOFF", cause="spawn_failed")
    why = f"cannot read the environment file {environment_file}: no such file or directory (once it can be read: asupctl reload)"
    assert why in row["description"]
    assert "environment_files" in live.ctl("why", "begins").stdout
    refused = live.ctl("reload")
    assert refused.returncode == 2 and "cannot read the environment file" in refused.stderr
    checked = subprocess.run([sys.executable, "-m", "supervisord_async.cli.asupd", "--check", "-c", str(live.file)], check=False)
    assert checked.returncode == 2

    environment_file.write_text("A=by the file again\n")
    live.do("reload")
    live.wait_for("begins", "RUNNING")
    assert "by the file again" in live.do("logs", "begins")
