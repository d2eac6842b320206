"""``/metrics``: the daemon and its programs as Prometheus text, made at each scrape and at no other time.

What only records tell (restarts by cause, durations of runs, reloads) is counted as they are published; everything else is read
from snapshots at the scrape. The names are documented in docs/metrics.md and do not change.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import anyio
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from supervisord_async import __version__
from supervisord_async.control.counters import BUCKETS, Counters
from supervisord_async.core.state import Health, State
from supervisord_async.supervise.fleet.exit_when import has_failed
from supervisord_async.system.threads import in_thread

if TYPE_CHECKING:
    from supervisord_async.control.commands import Commands
    from supervisord_async.control.stream import Streams
    from supervisord_async.supervise.process import Process
    from supervisord_async.supervise.records.figures import Figures

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: The loop's lag is the longest delay of this many short sleeps.
LAG_SAMPLES, LAG_SLEEP_SECONDS = 5, 0.002

_LABELS = ("name", "program", "group")


class Row:
    """One process as it was at the scrape: read on the loop, rendered in a thread."""

    __slots__ = ("exit", "failed", "figures", "health", "labels", "log_bytes", "lost_bytes", "restarts", "run", "state", "uptime")

    def __init__(self, process: Process, now: float, figures: Figures | None) -> None:
        snapshot, program = process.snapshot, process.program
        self.labels = [process.name, program.name, program.group]
        self.state, self.health = snapshot.state, snapshot.health
        self.restarts, self.run, self.exit = snapshot.restarts, snapshot.run, snapshot.exit
        self.failed = has_failed(process)
        self.uptime = now - snapshot.run_since if snapshot.pid is not None else 0.0
        self.figures = figures if snapshot.pid is not None else None
        captures = process.output.captures
        self.log_bytes = sum(capture.bytes_written for capture in captures)
        self.lost_bytes = sum(capture.bytes_lost for capture in captures)


class Metrics:
    """The metrics of one daemon."""

    def __init__(self, commands: Commands, streams: Streams, counters: Counters) -> None:
        self._commands, self._streams, self.counters = commands, streams, counters

    async def exposition(self) -> tuple[bytes, str]:
        """The text as of now, and its media type."""
        lag = await loop_lag()
        supervisor, sampler = self._commands.supervisor, self._commands.figures
        figures = await sampler.sample(supervisor.processes.values(), detailed=True) if sampler is not None else {}
        now = anyio.current_time()
        supervisor.bus.catch_up()  # so that counts made from records are as recent as the snapshots
        rows = [Row(process, now, figures.get(process.name)) for process in supervisor.processes.values()]
        store = self._commands.history_store
        daemon = {
            "asup_loop_lag_seconds": lag,
            "asup_uptime_seconds": supervisor.uptime_seconds,
            "asup_config_refused": float(any(not problem.warning for problem in supervisor.refused)),
            "asup_streams": float(self._streams.open),
            "asup_history_healthy": float(store is not None and store.trouble is None),
        }
        dropped = store.dropped if store is not None else 0
        return await in_thread(render, rows, daemon, self.counters, dropped), MEDIA_TYPE


async def loop_lag() -> float:
    """How late the loop wakes a sleeping task, in seconds: the longest of a few tries."""
    worst = 0.0
    for _ in range(LAG_SAMPLES):
        begun = time.monotonic()
        await anyio.sleep(LAG_SLEEP_SECONDS)
        worst = max(worst, time.monotonic() - begun - LAG_SLEEP_SECONDS)
    return worst


def render(rows: list[Row], daemon: dict[str, float], counters: Counters, history_dropped: int) -> bytes:
    """The exposition as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected([*_of_daemon(daemon, counters, history_dropped), *_of_processes(rows, counters)]))
    return generate_latest(registry)


class _Collected(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return iter(self._metrics)


_DAEMON_HELP = {
    "asup_loop_lag_seconds": "How late the daemon's event loop wakes a sleeping task, the longest of five tries at the scrape.",
    "asup_uptime_seconds": "How long the daemon has been up.",
    "asup_config_refused": "1 while the configuration file on disk is one that the last reload refused.",
    "asup_streams": "Open streams of events and logs.",
    "asup_history_healthy": "1 while records reach the history's database.",
}


def _of_daemon(values: dict[str, float], counters: Counters, history_dropped: int) -> Iterator[Metric]:
    info = GaugeMetricFamily("asup_info", "The daemon's version; always 1.", labels=("version",))
    info.add_metric([__version__], 1)
    yield info
    for name, value in values.items():
        yield GaugeMetricFamily(name, _DAEMON_HELP[name], value=value)
    yield CounterMetricFamily("asup_reloads", "Reloads that were applied.", value=counters.reloads)
    yield CounterMetricFamily("asup_reloads_refused", "Reloads that were refused: the file was unsound.", value=counters.refused_reloads)
    yield CounterMetricFamily("asup_history_dropped", "Records that the history's queue could not hold.", value=history_dropped)
    events = CounterMetricFamily("asup_events", "Records by type.", labels=("type",))
    for type_, count in sorted(counters.events.copy().items()):
        events.add_metric([type_], count)
    yield events


def _of_processes(rows: list[Row], counters: Counters) -> Iterator[Metric]:
    yield from _states(rows)
    yield from _gauges(rows)
    yield _last_exits(rows)
    yield from _figures(rows)
    yield from _counters(rows, counters)


def _states(rows: list[Row]) -> Iterator[Metric]:
    states = GaugeMetricFamily("asup_process_state", "1 for the state that the process is in.", labels=(*_LABELS, "state"))
    healths = GaugeMetricFamily("asup_process_health", "1 for the health that the process has.", labels=(*_LABELS, "health"))
    for row in rows:
        for state in State:
            states.add_metric([*row.labels, state.value], float(row.state is state))
        for health in Health:
            healths.add_metric([*row.labels, health.value], float(row.health is health))
    yield states
    yield healths


def _gauges(rows: list[Row]) -> Iterator[Metric]:
    for name, says, value in (
        ("asup_process_up", "1 while the process is RUNNING.", lambda row: float(row.state is State.RUNNING)),
        ("asup_process_failed", "1 where the process is FATAL, or EXITED after a failure.", lambda row: float(row.failed)),
        ("asup_process_uptime_seconds", "How long the present run has been up; 0 without one.", lambda row: row.uptime),
        ("asup_process_run", "The number of the present or last run.", lambda row: row.run),
        ("asup_process_consecutive_restarts", "Automatic restarts without a calm time between.", lambda row: row.restarts),
    ):
        family = GaugeMetricFamily(name, says, labels=_LABELS)
        for row in rows:
            family.add_metric(row.labels, value(row))
        yield family


def _last_exits(rows: list[Row]) -> Metric:
    says = "How the last run ended: its exit code, 128 + the signal, or -1 where it is unknown."
    family = GaugeMetricFamily("asup_process_last_exit", says, labels=_LABELS)
    for row in rows:
        if row.exit is not None:
            code, signum = row.exit.code, row.exit.signal
            family.add_metric(row.labels, code if code is not None else 128 + signum if signum is not None else -1)
    return family


def _figures(rows: list[Row]) -> Iterator[Metric]:
    cpu = CounterMetricFamily("asup_process_cpu_seconds", "CPU time of the tree's living processes.", labels=_LABELS)
    gauges = {
        "memory_bytes": GaugeMetricFamily(
            "asup_process_memory_bytes", "Resident memory of the process's tree, shared memory counted once.", labels=_LABELS
        ),
        "cpu_percent": GaugeMetricFamily("asup_process_cpu_percent", "CPU use of the tree since the last sample.", labels=_LABELS),
        "processes": GaugeMetricFamily("asup_process_tree_processes", "Processes of the tree.", labels=_LABELS),
        "threads": GaugeMetricFamily("asup_process_threads", "Threads of the tree.", labels=_LABELS),
        "open_files": GaugeMetricFamily("asup_process_open_files", "Descriptors of the tree.", labels=_LABELS),
        "read_bytes": GaugeMetricFamily("asup_process_storage_read_bytes", "Storage reads of the tree's living processes.", labels=_LABELS),
        "written_bytes": GaugeMetricFamily(
            "asup_process_storage_written_bytes", "Storage writes of the tree's living processes.", labels=_LABELS
        ),
    }
    for row in rows:
        if row.figures is None:
            continue
        cpu.add_metric(row.labels, row.figures.cpu_seconds)
        for name, family in gauges.items():
            value = getattr(row.figures, name)
            if value is not None:
                family.add_metric(row.labels, value)
    yield cpu
    yield from gauges.values()


def _counters(rows: list[Row], counters: Counters) -> Iterator[Metric]:
    logged = CounterMetricFamily("asup_process_log_bytes", "Bytes of output that were written to logs.", labels=_LABELS)
    lost = CounterMetricFamily("asup_process_log_lost_bytes", "Bytes of output that could not be written to a log.", labels=_LABELS)
    restarts = CounterMetricFamily("asup_process_restarts", "Runs after the first, by what caused them.", labels=(*_LABELS, "cause"))
    durations = HistogramMetricFamily("asup_process_run_duration_seconds", "How long ended runs were up.", labels=_LABELS)
    by_name: dict[str, list[tuple[str, int]]] = {}
    for (name, cause), count in sorted(counters.restarts.copy().items()):
        by_name.setdefault(name, []).append((cause, count))
    for row in rows:
        name = row.labels[0]
        logged.add_metric(row.labels, row.log_bytes)
        lost.add_metric(row.labels, row.lost_bytes)
        for cause, count in by_name.get(name, ()):
            restarts.add_metric([*row.labels, cause], count)
        counts = counters.runs.get(name)
        if counts is not None:
            cumulated = [sum(counts[: index + 1]) for index in range(len(BUCKETS))]
            buckets = [(("+Inf" if bound == math.inf else str(bound)), count) for bound, count in zip(BUCKETS, cumulated, strict=True)]
            durations.add_metric(row.labels, buckets, counters.run_seconds[name])
    yield from (logged, lost, restarts, durations)
