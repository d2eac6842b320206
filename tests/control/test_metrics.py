"""/metrics: sound text, the right numbers, and names that docs, alerts and dashboard agree on."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from supervisord_async.config.load import Loaded
from supervisord_async.config.model import Configuration, Daemon, Restart
from supervisord_async.control.counters import Counters
from supervisord_async.control.operation import Api
from supervisord_async.control.server import ControlServer
from supervisord_async.core.policy import RestartPolicy
from supervisord_async.core.record import Record
from supervisord_async.core.state import State
from supervisord_async.supervise.records.figures import Sampler
from tests.control.conftest import playing, swift

ROOT = Path(__file__).parents[2]


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = [one for family in text_string_to_metric_families(text) for one in family.samples]
    return {(one.name, frozenset(one.labels.items())): one.value for one in found}


def value(text: str, metric: str, /, **labels: str) -> float:
    """The one sample of that name that has these labels."""
    [found] = [value for (known, given), value in samples(text).items() if known == metric and given >= frozenset(labels.items())]
    return found


async def scrape(wire: Any) -> str:
    answer = await wire.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return str(answer.body.decode())


@pytest.mark.anyio
async def test_states_restarts_exits_and_durations_are_told(serving: Callable[..., Any]) -> None:
    async with serving(swift("web"), swift("down", autostart=False)) as wire:
        await wire.scene.commands.restart(["web"])
        wire.scene.child("web").end(code=3)
        await wire.scene.state("web", State.BACKOFF)
        await wire.scene.commands.wait(["web"], "ready", timeout=20)
        text = await scrape(wire)
        assert value(text, "asup_process_up", name="web", program="web", group="web") == 1
        assert value(text, "asup_process_up", name="down") == 0
        assert value(text, "asup_process_state", name="down", state="STOPPED") == 1
        assert value(text, "asup_process_state", name="web", state="RUNNING") == 1
        assert value(text, "asup_process_health", name="web", health="none") == 1
        assert value(text, "asup_process_restarts_total", name="web", cause="operator") == 1
        assert value(text, "asup_process_restarts_total", name="web", cause="exited") == 1
        assert value(text, "asup_process_last_exit", name="web") == 3
        assert value(text, "asup_process_run", name="web") == 3
        assert value(text, "asup_process_run_duration_seconds_count", name="web") == 2
        assert value(text, "asup_process_run_duration_seconds_bucket", name="web", le="+Inf") == 2
        assert value(text, "asup_config_refused") == 0
        assert value(text, "asup_loop_lag_seconds") >= 0
        assert ("asup_process_last_exit", "down") not in {(name, dict(labels).get("name")) for name, labels in samples(text)}


@pytest.mark.anyio
async def test_a_job_that_ended_with_a_successful_code_has_not_failed(serving: Callable[..., Any]) -> None:
    names = ("well", "badly", "lost", "told")
    jobs = [swift(name, restart=Restart(policy=RestartPolicy.NEVER, success_exit_codes=(0, 2))) for name in names]
    async with serving(*jobs, swift("web")) as wire:
        await wire.ask("POST", "/v1/processes/told/signal", b'{"signal": "TERM"}')
        await wire.scene.state("told", State.EXITED)
        for name, code in (("well", 2), ("badly", 1), ("lost", None)):
            wire.scene.child(name).end(code=code)
            await wire.scene.state(name, State.EXITED)
        text = await scrape(wire)
        assert [value(text, "asup_process_failed", name=name) for name in (*names, "web")] == [0, 1, 0, 0, 0]
        assert (await wire.ask("GET", "/v1/health")).json["failed"] == ["badly"]
        assert value(text, "asup_process_last_exit", name="well") == 2
        assert value(text, "asup_process_last_exit", name="lost") == -1


@pytest.mark.anyio
async def test_figures_are_those_of_the_living(serving: Callable[..., Any]) -> None:
    async with serving(swift("me"), figures=Sampler()) as wire:
        process = wire.scene.supervisor.processes["me"]
        process.snapshot = replace(process.snapshot, pid=os.getpid())
        text = await scrape(wire)
        assert value(text, "asup_process_memory_bytes", name="me") > 1_000_000
        assert value(text, "asup_process_open_files", name="me") > 3
        assert value(text, "asup_process_threads", name="me") >= 1
        assert value(text, "asup_process_cpu_seconds_total", name="me") > 0
        process.snapshot = replace(process.snapshot, pid=100)


@pytest.mark.anyio
async def test_the_daemons_uptime_does_not_follow_the_wall_clock(serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(swift("web")) as wire:
        told = time.time
        for step in (1.7e9, -1.7e9):  # from 1970 to the present, as on a board without a clock of its own, and back
            monkeypatch.setattr(time, "time", lambda step=step: told() + step)
            assert 0 < value(await scrape(wire), "asup_uptime_seconds") < 1e6
            assert 0 < (await wire.ask("GET", "/v1/health")).json["uptime_seconds"] < 1e6


def test_reloads_and_runs_are_counted_as_their_records_pass() -> None:
    counters = Counters()
    for number, (type_, fields) in enumerate(
        [
            ("reload", {}),
            ("config_refused", {}),
            ("config_refused", {}),
            ("state", {"name": "web", "to": "STARTING", "run": 1, "cause": "autostart"}),
            ("state", {"name": "web", "to": "BACKOFF", "run": 1, "data": {"uptime_seconds": 5.0}}),
            ("state", {"name": "web", "to": "STARTING", "run": 2, "cause": "exited"}),
            ("state", {"name": "web", "to": "STOPPED", "run": 2, "data": {"uptime_seconds": 100_000.0}}),
        ]
    ):
        counters.on_record(Record(id=number, at=0.0, type=type_, **fields))
    assert (counters.reloads, counters.refused_reloads) == (1, 2)
    assert dict(counters.restarts) == {("web", "exited"): 1}
    assert counters.runs["web"] == [0, 1, 0, 0, 0, 0, 1]
    assert counters.run_seconds["web"] == 100_005.0


@pytest.mark.anyio
async def test_the_first_scrape_imports_what_it_needs_in_a_thread(serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It held the loop for as long as that took."""
    name, threads = "supervisord_async.control.metrics", []

    class Finder:
        @staticmethod
        def find_spec(wanted: str, *_: Any) -> None:
            if wanted == name:
                threads.append(threading.current_thread())

    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    async with serving(swift("web"), figures=Sampler()) as wire:
        assert "asup_info" in await scrape(wire)
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


@pytest.mark.anyio
async def test_counts_of_processes_that_are_gone_are_forgotten() -> None:
    """A program whose name changes at each deployment left its counts behind each time, for as long as the daemon lived."""
    daemon = Daemon(name="shop", run_dir="/nowhere", socket="/nowhere/asupd.sock")

    async def load() -> Loaded:
        return Loaded(Configuration(file="/nowhere/programs.yaml", daemon=daemon, programs={now.name: now}), ())

    now = swift("v0")
    async with playing(now, load=load) as scene:
        server = ControlServer(scene.supervisor, None)
        for number in range(1, 5):
            await scene.commands.restart([now.name])
            now = swift(f"v{number}")
            await scene.commands.reload()
        counters = server._counters
        assert set(counters.runs) == set(counters.run_seconds) == {"v3"}  # it was up until the last reload
        assert set(counters.restarts) == {("v3", "operator")}


@pytest.mark.anyio
async def test_docs_alerts_and_dashboard_name_what_there_is(serving: Callable[..., Any]) -> None:
    async with serving(swift("web", restart=Restart(policy=RestartPolicy.ALWAYS)), figures=Sampler()) as wire:
        wire.scene.child("web").end(code=1)
        await wire.scene.state("web", State.BACKOFF)
        text = await scrape(wire)
    families = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert {line.split()[2] for line in text.splitlines() if line.startswith("# HELP")} == families
    docs = (ROOT / "docs" / "metrics.md").read_text()
    documented = set(re.findall(r"`(asup_[a-z_]+)(?:\{[a-z]+\})?`", docs)) - {"asup_process_"}
    assert families == documented
    alerts = yaml.safe_load((ROOT / "config" / "alerts.yaml").read_text())
    expressions = [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    dashboard = json.loads((ROOT / "config" / "grafana-dashboard.json").read_text())
    expressions += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 20
    for name in set(re.findall(r"asup_[a-z_]+", " ".join(expressions))):
        assert re.sub("_(bucket|count|sum)$", "", name) in families, name


@pytest.mark.anyio
async def test_metrics_are_made_by_a_scrape_and_by_nothing_else() -> None:
    async with playing(swift("web")) as scene:
        assert Api(scene.commands, Counters()).metrics is None
