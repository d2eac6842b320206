"""What health checks cost the daemon: CPU and wakeups with many probes, or heartbeat files, against the same without. Asserts nothing.

python scripts/bench/probes.py [PROGRAMS] [SECONDS] [INTERVAL_SECONDS]
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from supervisord_async.client import Client
from supervisord_async.errors import NoDaemonError

START_SECONDS = 300.0
BACKLOG = 4096
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
#: What each program's file says, by the name of what is measured; the first is what the others are compared with.
CHECKS = {
    "no checks": "",
    "tcp": "liveness: {{tcp: '127.0.0.1:{port}', interval: {interval:g}s, timeout: 5s}}",
    "http": "liveness: {{http: 'http://127.0.0.1:{port}/healthz', interval: {interval:g}s, timeout: 5s}}",
    "heartbeat": "heartbeat: {{file: '{folder}/beat{number}', timeout: {interval:g}s}}",
}


def serve(port: Connection, connections: Synchronized[int]) -> None:
    """Answer every request with 200, and count connections, for ever; the port is sent through ``port``."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.value += 1
        if await reader.readline():
            writer.write(ANSWER)
            await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=BACKLOG)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def measure(name: str, count: int, seconds: float, interval: float, port: int, connections: Synchronized[int]) -> None:
    """Print what ``count`` programs with the checks ``name`` cost the daemon in ``seconds``, once all of them run and are healthy."""
    with tempfile.TemporaryDirectory() as folder:
        file, beats = Path(folder, "programs.yaml"), [Path(folder, f"beat{number}") for number in range(count)]
        lines = [
            f"  p{number}: {{command: [sleep, '100000'], logs: {{stdout: none}}, "
            f"{CHECKS[name].format(port=port, interval=interval, folder=folder, number=number)}}}\n"
            for number in range(count)
        ]
        file.write_text(f"version: 1\ndefaults: {{start_seconds: 0}}\nprograms:\n{''.join(lines)}")
        command = [sys.executable, "-m", "supervisord_async.cli.asupd", "-c", str(file), "--log-level", "error"]
        daemon = subprocess.Popen(command, env={**os.environ, "XDG_STATE_HOME": folder})
        try:
            restarts = wait_until_well(Path(folder, ".asupd", "asupd.sock"), count, beats if name == "heartbeat" else [])
            asked, before, begun = connections.value, threads_of(daemon.pid), time.monotonic()
            while (left := begun + seconds - time.monotonic()) > 0:
                beat(beats if name == "heartbeat" else [])
                time.sleep(min(left, interval / 4))
            after, took = threads_of(daemon.pid), time.monotonic() - begun
            cpu, wakeups = (sum(figures[i] - before.get(thread, (0, 0))[i] for thread, figures in after.items()) for i in (0, 1))
            print(
                f"{name}: CPU {100 * cpu / 1e9 / took:.2f} % of a core, {wakeups / took:.0f} wakeups/s, "
                f"{(connections.value - asked) / took:.0f} connections/s, threads {len(after)}, "
                f"restarts before {restarts}, after {restarts_of(Path(folder, '.asupd', 'asupd.sock'))}",
                flush=True,
            )
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()


def threads_of(pid: int) -> dict[str, tuple[int, int]]:
    """The nanoseconds of CPU and the wakeups of each thread so far; threads of a pool come and go."""
    found = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        nanoseconds = int(Path(thread, "schedstat").read_text().split()[0])
        status = dict(line.split(":", 1) for line in Path(thread, "status").read_text().splitlines())
        found[thread.name] = (nanoseconds, int(status["voluntary_ctxt_switches"]))
    return found


def beat(files: list[Path]) -> None:
    """Every file has changed."""
    for file in files:
        file.write_bytes(b"%d" % time.monotonic_ns())


def wait_until_well(path: Path, count: int, beats: list[Path]) -> int:
    """All are RUNNING, and healthy where they are asked; returns the restarts until then."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        beat(beats)
        try:
            with Client(path) as client:
                if sum(one.state == "RUNNING" and one.health in ("none", "healthy") for one in client.processes(figures=False)) == count:
                    return restarts_of(path)
        except NoDaemonError:
            pass  # not yet
        time.sleep(1.0)
    raise SystemExit(f"the programs are not up after {START_SECONDS:g} s")


def restarts_of(path: Path) -> int:
    """All runs but the first ones."""
    with Client(path) as client:
        return sum(one.run - 1 for one in client.processes(figures=False))


def main() -> None:
    """One kind of check after the other."""
    given = sys.argv[1:]
    count, seconds, interval = (float(text) for text in given + ["1000", "30", "10"][len(given) :])
    connections: Synchronized[int] = multiprocessing.Value("q", 0)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.Process(target=serve, args=(sender, connections), daemon=True)
    server.start()
    port = receiver.recv()
    print(f"{count:g} programs, each checked every {interval:g} s, for {seconds:g} s; load average {os.getloadavg()[0]:.1f}", flush=True)
    try:
        for name in CHECKS:
            measure(name, int(count), seconds, interval, port, connections)
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
