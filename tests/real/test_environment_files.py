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
  begins: {{restart: {{backoff: {{initial: 100ms}}}}, command: {python("import os, time; print(os.environ['A']); time.sleep(1000)")}, environment_files: [.env]}}
  other: {{command: {python("import time; time.sleep(1000)")}}}
"""


@pytest.mark.parametrize("again", ["by itself", "by a reload"])
def test_a_missing_environment_file_keeps_only_its_program_from_starting(daemon: Make, again: str) -> None:
    seconds = 0.2 if again == "by itself" else 1000.0
    live = daemon("", start=False, constants={"supervisord_async.supervise.supervisor.READ_AGAIN_SECONDS": seconds})
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
    why = f"cannot read the environment file {environment_file}: no such file or directory (it is tried again every few seconds; asupctl reload tries at once)"
    assert why in row["description"]
    assert "environment_files" in live.ctl("why", "begins").stdout
    refused = live.ctl("reload")
    assert refused.returncode == 2 and "cannot read the environment file" in refused.stderr
    checked = subprocess.run([sys.executable, "-m", "supervisord_async.cli.asupd", "--check", "-c", str(live.file)], check=False)
    assert checked.returncode == 2

    environment_file.write_text("A=by the file\n")
    if again == "by itself":
        live.wait_until(lambda: "environment files can be read now: lives, begins" in live.text(), "they were read")
    else:
        live.do("reload")
    live.wait_for("begins", "RUNNING")
    assert live.do("logs", "begins").splitlines() == ["by the file"] * 2
    assert live.process_of("lives")["pid"] == pids["lives"], "it has had them all the time"
    environment_file.write_text("A=another\n")
    live.do("reload")
    assert live.wait_for("lives", "RUNNING")["pid"] != pids["lives"]
