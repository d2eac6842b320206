"""The benchmark works: its short form measures the daemon and the bare loop, whatever the figures are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench" / "side_by_side.py"


@pytest.mark.skipif(shutil.which("cc") is None, reason="its child is compiled")
def test_the_short_benchmark_measures_us_and_the_limits(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    command = [sys.executable, str(SCRIPT), "--short", "--peers", "", "--only", "fleet-20,respawn,log", "--json", str(figures)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(figures.read_text())
    assert document["failures"] == {}
    for figure in ("start 20 [s]", "memory 20 [MiB]", "status API 20 [ms]", "respawn, median [ms]", "log throughput [MB/s]"):
        assert document["medians"][figure]["asupd"] > 0
    assert document["medians"]["respawn, median [ms]"]["bare"] > 0
    assert set(document["versions"]) == {"bare"}, "no peer was asked for"
    assert list(tmp_path.glob("bench-*")) == []


def test_an_unknown_peer_or_workload_is_refused() -> None:
    for option in ("--peers", "--only"):
        done = subprocess.run(
            [sys.executable, str(SCRIPT), "--short", option, "nonsense", *(["--peers", ""] if option == "--only" else [])],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "nonsense" in done.stderr or "there are" in done.stderr
