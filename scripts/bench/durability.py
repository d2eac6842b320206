"""What death and replacement of the daemon cost: re-exec, adoption, saving the state; the simulation's speed.

Prints figures, asserts nothing.

python scripts/bench/durability.py [PROGRAMS] [ROUNDS]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from supervisord_async.client import Client  # noqa: E402  it and the tests' daemon are found by the line above
from supervisord_async.errors import SupervisordError  # noqa: E402
from supervisord_async.supervise.recovery import persist  # noqa: E402
from tests.daemons import LiveDaemon  # noqa: E402
from tests.simulation.world import play  # noqa: E402

START_SECONDS = 300.0
#: A program that ends at once and is started at once: the longest time between two starts is time without supervision.
RESTLESS = (
    "{command: 'date +%s%N >> starts', shell: true, restart: {policy: always, backoff: {initial: 1ms, max: 1ms}}, "
    "start_seconds: 0, logs: {stdout: none}}"
)
CRASHING, CRASH_SECONDS = 50, 15.0
STORIES = 100
#: Put before the daemon's imports: nothing is saved.
UNSAVED = """
import sys
if "supervisord_async.cli.asupd" in sys.orig_argv:
    from supervisord_async.supervise.recovery import persist
    async def nothing(self): pass
    persist.Saver.save = nothing
"""


def describe(seconds: list[float]) -> str:
    """Median and worst."""
    return f"median {1000 * statistics.median(seconds):.0f} ms, worst {1000 * max(seconds):.0f} ms, of {len(seconds)}"


class Asker:
    """Asks for /v1/health on a new connection each, all the time, and keeps when it was answered."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.answered: list[float] = []
        self.refused = 0

    def _ask(self) -> None:
        while not self._over.wait(0.001):
            try:
                with Client(self._socket) as client:
                    client.health()
                self.answered.append(time.monotonic())
            except SupervisordError:
                self.refused += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def longest_gap(moments: list[float]) -> float:
    """The longest time between two that follow each other."""
    return max(after - before for before, after in pairwise(moments))


def running(live: LiveDaemon) -> dict[str, int | None]:
    """The PIDs of those RUNNING; empty where nobody answers."""
    try:
        with Client(live.folder / ".asupd" / "asupd.sock") as client:
            return {one.name: one.pid for one in client.processes("many", figures=False) if one.state == "RUNNING"}
    except SupervisordError:
        return {}


def until_running(live: LiveDaemon, count: int) -> dict[str, int | None]:
    """Their PIDs once so many run."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if len(found := running(live)) == count:
            return found
        time.sleep(0.01)
    raise SystemExit(f"{count} programs are not up after {START_SECONDS:g} s:\n{live.text()[-3000:]}")


def starts(folder: Path) -> list[float]:
    """When the restless one was started."""
    return [int(line) / 1e9 for line in (folder / "starts").read_text().splitlines()]


@contextmanager
def a_daemon(programs: str, **settings: dict[str, str]) -> Iterator[LiveDaemon]:
    """A daemon in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="asup-bench-") as folder:
        live = LiveDaemon(Path(folder), programs, options=("--log-level", "warning"), **settings)  # type: ignore[arg-type]  # only environment
        with live:
            live.wait_until(live.answers, "the daemon answers")
            yield live


def replacing(live: LiveDaemon, pids: dict[str, int | None], rounds: int) -> None:
    """Print how long a re-exec leaves clients and programs alone."""
    control, supervision, usual, refused, whole = [], [], [], 0, []
    for _ in range(rounds):
        (live.folder / "starts").write_text("")
        time.sleep(2.0)
        usual.append(longest_gap(starts(live.folder)))
        (live.folder / "starts").write_text("")
        with Asker(live.folder / ".asupd" / "asupd.sock") as asker:
            time.sleep(0.3)
            began = time.monotonic()
            live.do("reexec")
            until_running(live, len(pids))
            whole.append(time.monotonic() - began)
            time.sleep(3.0)
        control.append(longest_gap(asker.answered))
        refused += asker.refused
        supervision.append(longest_gap(starts(live.folder)))
    assert running(live) == pids, "the processes are others"
    print(f"re-exec of {len(pids)}: without control: {describe(control)}; {refused} connections were refused or cut", flush=True)
    print(f"  no start of a restless program (usual: {describe(usual)}): {describe(supervision)}")
    print(f"  asupctl reexec, its trial of the new code included: {describe(whole)}", flush=True)


def adopting(live: LiveDaemon, pids: dict[str, int | None], rounds: int) -> None:
    """Print how soon after a kill -9 and a start all run again, as they were."""
    answering, everything = [], []
    for _ in range(rounds):
        live.kill()
        began = time.monotonic()
        live.start(wait=False)
        found: dict[str, int | None] = {}
        answered = 0.0
        while len(found) != len(pids):
            if (found := running(live)) and not answered:
                answered = time.monotonic() - began
            time.sleep(0.005)
        everything.append(time.monotonic() - began)
        answering.append(answered)
        assert found == pids, "the processes are others"
        time.sleep(2.0)
    print(f"adoption of {len(pids)} after kill -9, from the start of the command: first answer with RUNNING ones: {describe(answering)}")
    print(f"  all RUNNING with their PIDs: {describe(everything)}", flush=True)


def one_save(live: LiveDaemon, rounds: int = 50) -> None:
    """Print what writing the state of this daemon takes."""
    state, complaints = persist.load(str(live.folder / ".asupd"))
    assert state is not None, complaints
    content, encoding, writing = b"", [], []
    with tempfile.TemporaryDirectory(prefix="asup-bench-") as folder:
        for _ in range(rounds):
            began = time.perf_counter()
            content = persist.encode(state)
            encoding.append(time.perf_counter() - began)
            persist.save(folder, state)
            writing.append(time.perf_counter() - began - encoding[-1])
    print(
        f"one save of {len(state.processes)} processes: {len(content) / 1024:.0f} KiB, "
        f"encoding {1000 * statistics.median(encoding):.1f} ms, "
        f"all with two fsyncs {1000 * statistics.median(writing):.1f} ms, in a thread, at most a tenth of the time"
    )


def crashing(*, saved: bool) -> tuple[float, float, float]:
    """Restarts, CPU seconds of the daemon, and saves, each per second, with programs that crash as often as can be."""
    programs = f"""
programs:
  many:
    {{command: ["true"], replicas: {CRASHING}, start_seconds: 0, logs: {{stdout: none}},
     restart: {{policy: always, backoff: {{initial: 1ms, max: 1ms}}}}}}
"""
    with tempfile.TemporaryDirectory(prefix="asup-bench-") as site:
        if not saved:
            Path(site, "sitecustomize.py").write_text(UNSAVED)
        with a_daemon(programs, environment={"PYTHONPATH": f"{site}:{ROOT}"}) as live:
            time.sleep(3.0)
            runs, cpu, began, saves, last = _runs(live), _cpu(live.pid), time.monotonic(), 0, 0
            while time.monotonic() < began + CRASH_SECONDS:
                time.sleep(0.005)
                now = _written(live.folder / ".asupd" / persist.FILE_NAME)
                saves, last = saves + (now != last), now
            took = time.monotonic() - began
            return (_runs(live) - runs) / took, (_cpu(live.pid) - cpu) / took, saves / took


def _runs(live: LiveDaemon) -> int:
    with Client(live.folder / ".asupd" / "asupd.sock") as client:
        return sum(one.run for one in client.processes(figures=False))


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def saving() -> None:
    """Print what saving costs where everything changes all the time."""
    for saved in (True, False):
        restarts, cpu, saves = crashing(saved=saved)
        words = f"{saves:.1f} saves/s" if saved else "nothing is saved, for comparison"
        print(f"{CRASHING} crashing programs, {words}: {restarts:.0f} restarts/s, {1000 * cpu / restarts:.2f} ms of CPU each", flush=True)


def simulating() -> None:
    """Print how fast stories are told."""
    began, virtual = time.monotonic(), 0.0
    for seed in range(STORIES):
        virtual += play(seed).virtual_seconds
    took = time.monotonic() - began
    hours = virtual / 3600
    print(f"simulation: {STORIES} stories, {hours:.0f} virtual hours in {took:.1f} s: {hours / took:.0f} virtual hours a second")


def main() -> None:
    """All of it."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    programs = f"programs:\n  restless: {RESTLESS}\n  many: {{command: [sleep, '100000'], replicas: {count}, start_seconds: 0}}\n"
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, Linux {os.uname().release}, Python {sys.version.split()[0]}")
    with a_daemon(programs) as live:
        pids = until_running(live, count)
        live.do("stop", "restless")
        one_save(live)
        adopting(live, pids, rounds)
        live.do("start", "restless", "--no-wait")
        replacing(live, pids, rounds)
    saving()
    simulating()


if __name__ == "__main__":
    main()
