"""What being asked costs: status of many programs, slow and stalled event subscribers, the history. Prints figures, asserts nothing.

python scripts/bench/control.py [PROGRAMS] [SECONDS]
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio

from supervisord_async.client import Client
from supervisord_async.config.model import Daemon
from supervisord_async.control.commands import Commands
from supervisord_async.control.counters import Counters
from supervisord_async.control.listener import listening
from supervisord_async.control.operation import Api
from supervisord_async.errors import NoDaemonError
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.records.history import History

EVENTS_PER_SECOND = 1000
SUBSCRIBERS, STALLED = 50, 10
POLL_SECONDS = 0.005
START_SECONDS = 300.0


def timed(work: Callable[[], object], rounds: int, *, pause_seconds: float = 0.0) -> str:
    """Median and best of the milliseconds that ``work`` takes, with a pause before each."""
    times = []
    for _ in range(rounds):
        time.sleep(pause_seconds)
        begun = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - begun))
    return f"median {statistics.median(times):.1f} ms, best {min(times):.1f} ms"


# A daemon with many programs


def status_of_many(count: int) -> None:
    """Print what asking a daemon with ``count`` running programs takes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "programs.yaml")
        programs = "".join(f"  p{number}: {{command: [sleep, '100000'], logs: {{stdout: none}}}}\n" for number in range(count))
        file.write_text(f"version: 1\ndefaults: {{start_seconds: 0}}\nprograms:\n{programs}")
        environment = {**os.environ, "XDG_STATE_HOME": folder}
        command = [sys.executable, "-m", "supervisord_async.cli.asupd", "-c", str(file), "--log-level", "error"]
        daemon = subprocess.Popen(command, env=environment)
        try:
            _wait_until_running(Path(folder, ".asupd", "asupd.sock"), count)
            _ask(file, Path(folder, ".asupd", "asupd.sock"), environment)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()


def _wait_until_running(path: Path, count: int) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        try:
            with Client(path) as client:
                if sum(one.state == "RUNNING" for one in client.processes(figures=False)) == count:
                    return
        except NoDaemonError:
            pass  # not yet
        time.sleep(0.2)
    raise SystemExit(f"the programs are not up after {START_SECONDS:g} s")


def _ask(file: Path, path: Path, environment: dict[str, str]) -> None:
    def ctl(*words: str) -> Callable[[], object]:
        command = [sys.executable, "-m", "supervisord_async.cli.asupctl", "-c", str(file), *words]
        return lambda: subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)

    print(f"asupctl status, whole process: {timed(ctl('status'), 15)}")
    print(f"asupctl status of one, whole process: {timed(ctl('status', 'p1'), 15)}")
    print(f"python -c pass, for comparison: {timed(lambda: subprocess.run([sys.executable, '-c', 'pass'], check=True), 15)}")
    with Client(path) as client:
        print(f"GET /v1/processes?figures=false, asked and decoded: {timed(lambda: client.process_documents(figures=False), 50)}")
        print(f"GET /v1/processes with CPU and memory of the last second: {timed(client.process_documents, 50)}")
        print(f"the same with a new look at /proc each: {timed(client.process_documents, 10, pause_seconds=1.1)}")
    _reloads(file, path)
    cpu = _server_cpu(path, 200)
    print(f"CPU of the daemon per GET /v1/processes?figures=false: {1000 * cpu:.2f} ms")


def _reloads(file: Path, path: Path) -> None:
    """Print the time until a reload is answered, when all that it touched has settled."""
    text = file.read_text()
    program = "{{command: [sleep, '100000'], logs: {{stdout: none}}, restart: {{max_restarts: {number}}}}}"

    def reload(added: str) -> float:
        file.write_text(text + added)
        with Client(path) as client:
            begun = time.perf_counter()
            client.reload()
            return 1000 * (time.perf_counter() - begun)

    more, changed = [], []
    for number in range(9):
        more.append(reload(f"  more: {program.format(number=0)}\n"))
        changed.append(reload(f"  more: {program.format(number=number + 1)}\n"))
        reload("")
    for what, times in (("one more", more), ("one change", changed)):
        print(f"reload of all with {what}: median {statistics.median(times):.1f} ms, best {min(times):.1f} ms")


def _server_cpu(path: Path, rounds: int) -> float:
    with Client(path) as client:
        pid, ticks = client.health().pid, os.sysconf("SC_CLK_TCK")

        def spent() -> float:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / ticks

        before = spent()
        for _ in range(rounds):
            client.process_documents(figures=False)
        return (spent() - before) / rounds


# Events and history, in a loop whose lag is watched


async def _lag(lags: list[float]) -> None:
    while True:
        begun = time.perf_counter()
        await anyio.sleep(POLL_SECONDS)
        lags.append(1000 * (time.perf_counter() - begun - POLL_SECONDS))


async def _publish(bus: Bus, seconds: float) -> int:
    """So many records a second, in small lots; returns how many."""
    begun, count = time.monotonic(), 0
    while (passed := time.monotonic() - begun) < seconds:
        while count < passed * EVENTS_PER_SECOND:
            count += 1
            state: dict[str, Any] = {"from_": "STARTING", "to": "RUNNING", "cause": "autostart", "run": count}
            bus.publish("state", name=f"p{count % 1000}", message="running, pid 4711, run 7", data={"pid": 4711, "restarts": 0}, **state)
        await anyio.sleep(0.002)
    return count


def _told(lags: list[float]) -> str:
    ordered = sorted(lags)
    return f"loop lag median {statistics.median(ordered):.2f}, 99 % {ordered[int(0.99 * len(ordered))]:.2f}, worst {ordered[-1]:.1f} ms"


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


async def streams(seconds: float) -> None:
    """Print what many subscribers, some of them stalled, do to the loop that serves them."""
    with tempfile.TemporaryDirectory() as folder:
        bus = Bus()
        daemon = Daemon(name="bench", run_dir=folder, socket=f"{folder}/asupd.sock")
        supervisor: Any = SimpleNamespace(bus=bus, processes={}, configuration=SimpleNamespace(daemon=daemon))
        lags: list[float] = []
        async with listening(daemon, Api(Commands(supervisor), Counters())):
            readers = subprocess.Popen(  # noqa: ASYNC220  a millisecond before anything is measured
                [sys.executable, __file__, "--subscribe", daemon.socket], stdout=subprocess.PIPE, text=True
            )
            assert readers.stdout is not None
            await anyio.to_thread.run_sync(readers.stdout.readline)  # all are connected
            before, cpu = _resident_mib(), time.process_time()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_lag, lags)
                count = await _publish(bus, seconds)
                tasks.cancel_scope.cancel()
            spent = time.process_time() - cpu
            grown = _resident_mib() - before
            bus.close()
            told = json.loads(await anyio.to_thread.run_sync(readers.stdout.read))
            await anyio.to_thread.run_sync(readers.wait)
        title = f"{SUBSCRIBERS} event subscribers, {STALLED} of them stalled, {count / seconds:.0f} events/s for {seconds:g} s"
        print(f"{title}: {_told(lags)}; CPU {100 * spent / seconds:.0f} %, memory grew by {grown:.1f} MiB")
        print(f"    of {count} events each of the others got {told['least']} to {told['most']}")


def subscribe(path: str) -> None:
    """Be the subscribers: some never read, the others count."""
    import selectors

    connections = []
    for _ in range(SUBSCRIBERS):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        sock.sendall(b"GET /v1/events HTTP/1.1\r\nhost: a\r\n\r\n")
        sock.recv(1024)
        connections.append(sock)
    print("connected", flush=True)
    counts = dict.fromkeys(connections[STALLED:], 0)
    chosen = selectors.DefaultSelector()
    for sock in counts:
        chosen.register(sock, selectors.EVENT_READ)
    while chosen.get_map():
        for key, _ in chosen.select():
            data = key.fileobj.recv(1 << 20)  # type: ignore[union-attr]
            counts[key.fileobj] += data.count(b"\nevent: state\n")  # type: ignore[index]
            if not data or data.endswith(b"0\r\n\r\n"):
                chosen.unregister(key.fileobj)
    print(json.dumps({"least": min(counts.values()), "most": max(counts.values())}))


async def history(seconds: float) -> None:
    """Print what keeping many records a second does to the loop."""
    with tempfile.TemporaryDirectory() as folder:
        bus, lags = Bus(), list[float]()
        store = History(os.path.join(folder, "history.db"), max_age_seconds=1e6, max_size_bytes=2**30)
        await store.open()
        bus.listen(store.take)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.run)
            tasks.start_soon(_lag, lags)
            cpu = time.process_time()
            count = await _publish(bus, seconds)
            await store.flush()
            spent = time.process_time() - cpu
            tasks.cancel_scope.cancel()
        kept = len(await store.records(0, 10 * count))
        await store.aclose()
        print(f"history, {count / seconds:.0f} records/s for {seconds:g} s: {_told(lags)}; CPU {100 * spent / seconds:.0f} %")
        print(f"    {kept} of {count} kept, {store.dropped} dropped")


async def quiet(seconds: float) -> None:
    """Print the lag of a loop that does nothing, for comparison."""
    lags: list[float] = []
    with anyio.move_on_after(seconds):
        await _lag(lags)
    print(f"a loop that does nothing: {_told(lags)}")


async def loops(seconds: float) -> None:
    """All that happens in a loop of our own."""
    await quiet(seconds / 2)
    await streams(seconds)
    await history(seconds)


def main() -> None:
    """Print the figures."""
    if sys.argv[1:2] == ["--subscribe"]:
        subscribe(sys.argv[2])
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 10.0
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {count} programs")
    anyio.run(loops, seconds, backend_options={"use_uvloop": True})
    status_of_many(count)


if __name__ == "__main__":
    main()
