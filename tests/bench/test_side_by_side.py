"""The benchmark works: its short form measures the daemon and the bare loop, whatever the figures are."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench" / "side_by_side.py"


@pytest.mark.skipif(shutil.which("cc") is None, reason="its child is compiled")
def test_the_short_benchmark_measures_us_and_the_limits(open_path: Path) -> None:
    figures = open_path / "figures.json"  # there, as the path of a control socket is short
    environment = {**os.environ, "XDG_CACHE_HOME": str(open_path / "cache"), "TMPDIR": str(open_path)}
    command = [sys.executable, str(SCRIPT), "--short", "--peers", "", "--only", "fleet-20,respawn,log", "--json", str(figures)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(figures.read_text())
    assert document["failures"] == {}
    for figure in ("start 20 [s]", "memory 20 [MiB]", "status API 20 [ms]", "respawn, median [ms]", "log throughput [MB/s]"):
        assert document["medians"][figure]["asupd"] > 0
    assert document["medians"]["respawn, median [ms]"]["bare"] > 0
    assert set(document["versions"]) == {"bare"}, "no peer was asked for"
    assert list(open_path.glob("bench-*")) == []


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


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the benchmark, which is no package."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    names = {path.stem for path in SCRIPT.parent.glob("*.py")}
    yield importlib.import_module  # type: ignore[misc]
    for name in names & set(sys.modules):
        del sys.modules[name]


def test_growth_is_told_by_its_exponent(scripts: Any) -> None:
    report = scripts("report")
    assert report.exponent({10: 1.0, 100: 10.0, 1000: 100.0}) == pytest.approx(1)
    assert report.exponent({10: 3.0, 1000: 30_000.0}) == pytest.approx(2)
    medians = {f"start {count} [s]": {"asupd": count / 100, "bare": 0.0} for count in (1, 10, 100)} | {"stop of 5 [s]": {"asupd": 1.0}}
    assert [cell.strip() for cell in report.growth(medians, ["asupd", "bare"]).splitlines()[2].split("|")[1:-1]] == [
        *["start [s]", "asupd"],
        *["0.01", "0.1", "1"],
        "1.00",
    ]


def test_what_costs_most_has_fewer_rounds_where_time_is_short_and_ours_has_all(scripts: Any) -> None:
    share = scripts("side_by_side").share
    costs = {("crowd", "asupd"): 100.0, ("crowd", "circus"): 50.0, ("log", "circus"): 5.0}
    assert set(share(costs, 5, 4 * 155.0).values()) == {5}
    assert share(costs, 5, 500.0) == {("crowd", "asupd"): 5, ("crowd", "circus"): 2, ("log", "circus"): 5}
    assert share(costs, 5, 0.0) == {("crowd", "asupd"): 5, ("crowd", "circus"): 1, ("log", "circus"): 1}


def test_the_page_is_made_from_the_file_between_its_markers_alone(scripts: Any, tmp_path: Path) -> None:
    docs = SCRIPT.parents[2] / "docs"
    shutil.copy(docs / "benchmarks.md", tmp_path)
    machine = {"cores": 2, "cpu": "c", "memory": "m", "load": [0.5], "kernel": "k", "system": "s", "python": "3"}
    figures = {"medians": {"log throughput [MB/s]": {"asupd": 5.0, "s6": 10.0}}, "all": {"log throughput [MB/s]": {"asupd": [5.0, 5.0]}}}
    told = {"settings": {"asupd": "ours"}, "failures": {"s6, log": "too\nslow"}, "seconds": {"log asupd": [1.0, 1.0], "log s6": [1.0]}}
    origin = {"at": "now", "commit": "0123456789abcdef", "changed_since": False, "machine": machine, "versions": {"s6": "7"}}
    document = origin | told | figures
    for _ in range(2):  # doing it again changes nothing
        scripts("report").update_docs(document, tmp_path)
        page = (tmp_path / "benchmarks.md").read_text()
        assert "| log throughput [MB/s] | 5     | 10 (×2) |" in page
        assert "Fewer than 2 rounds, since they take long: log s6 1." in page and "- s6, log: too slow" in page
        assert page.count("<!-- ") == 6 and "- asupd: ours" in page and "## What profiling found" in page
    assert "log throughput" in (tmp_path / "benchmarks.svg").read_text()
