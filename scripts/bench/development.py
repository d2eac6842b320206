"""What development costs: from a save to running again, state saved and loaded, an idle heartbeat, the overhead of asup-run.

Prints tables, asserts nothing. Others that do the same take part where they can be had: uvicorn and watchfiles are dependencies of the
tests, nodemon comes by npm, tini, dumb-init and entr are unpacked from Debian's packages into $XDG_CACHE_HOME/asup-bench.

python scripts/bench/development.py [ROUNDS] [saves,state,heartbeat,wrappers]
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from supervisord_async.app import StateSerializer

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "config" / "examples" / "dev_application.py"
PATIENCE_SECONDS = 30.0
POLL_SECONDS = 0.002
HEARTBEAT_SECONDS = 10.0

#: The example as an ASGI application: a lifespan starts it and saves its state, uvicorn does the rest.
ASGI = """
import dev_application as module

async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    application = module.Application()
    await receive()
    state = module.serializer.load_restart_state()
    if state is not None:
        application.load(state)
        module.serializer.cleanup_restart_state()
    application.start()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    application.stopping.set()
    application.join()
    application.save()
    await send({"type": "lifespan.shutdown.complete"})
"""

#: The least that a restart can take: someone who knows of the save says TERM, waits, and starts again.
BARE = """
import os, signal, subprocess, sys, time
name = sys.argv[1]
last = os.stat(name).st_mtime_ns
child = subprocess.Popen([sys.executable, name])
signal.signal(signal.SIGTERM, lambda *_: (child.terminate(), child.wait(), sys.exit()))
while True:
    time.sleep(0.002)
    if (now := os.stat(name).st_mtime_ns) != last:
        last = now
        child.terminate(), child.wait()
        child = subprocess.Popen([sys.executable, name])
"""

HEARTBEAT = """
import resource, sys, time
from supervisord_async.app import Heartbeat
if sys.argv[1] != "none":
    Heartbeat("beat", interval=float(sys.argv[1])).start()
time.sleep(1)
before = resource.getrusage(resource.RUSAGE_SELF)
time.sleep(float(sys.argv[2]))
after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, after.ru_nvcsw - before.ru_nvcsw)
"""


@dataclass(frozen=True, slots=True)
class Tool:
    """One that notices a save: how it is started in a directory with dev_application.py, and what one should know."""

    name: str
    command: tuple[str, ...]
    settings: str
    stdin: str = ""


# The others


def cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asup-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def debian(package: str) -> str | None:
    """The package's program, unpacked outside the tree; None, said on stderr, where that cannot be."""
    program = cache() / "debian" / "usr" / "bin" / package
    if not program.exists():
        packages = cache() / "packages"
        packages.mkdir(exist_ok=True)
        try:
            subprocess.run(["apt-get", "download", package], cwd=packages, check=True, capture_output=True)
            subprocess.run(["dpkg", "-x", next(packages.glob(f"{package}_*.deb")), cache() / "debian"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError, StopIteration) as error:
            print(f"{package} is not here: {error!r}", file=sys.stderr)
            return shutil.which(package)
    return str(program)


def nodemon() -> str | None:
    """Nodemon's program, by npm; None, said on stderr, where that cannot be."""
    program = cache() / "npm" / "node_modules" / ".bin" / "nodemon"
    if not program.exists():
        command = ["npm", "--prefix", str(cache() / "npm"), "install", "--no-audit", "--no-fund", "nodemon"]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"nodemon is not here: {error!r}", file=sys.stderr)
            return None
    return str(program)


# From a save to running again


def _tools() -> Iterator[Tool]:
    python, file = sys.executable, "dev_application.py"
    yield Tool("bare", (python, "bare.py", file), "a loop that looks each 2 ms, TERM, wait, start: no debounce")
    yield Tool("ProcessRestarter", (python, file, "--dev"), "as in the example: restart_delay=0.1")
    daemon = (python, "-m", "supervisord_async.cli.asupd", "--log-level", "error", "-c")
    yield Tool("asupd watch", (*daemon, "default.yaml"), "default: debounce 300ms")
    yield Tool("asupd watch, debounce: 50ms", (*daemon, "quick.yaml"), "debounce: 50ms")
    alone = (python, "-m", "supervisord_async.cli.asup_run", "--no-heartbeat", "--watch", file)
    yield Tool("asup-run --watch", (*alone, python, file), "default")
    port = str(random.randint(20000, 40000))
    yield Tool("uvicorn --reload", (python, "-m", "uvicorn", "--reload", "--port", port, "asgi:app"), "default, by watchfiles")
    yield Tool("watchfiles", (python, "-m", "watchfiles", f"{python} {file}", file), "default: after 50 ms of quiet; INT")
    if program := nodemon():
        words = (program, "--quiet", "--signal", "SIGTERM", "--watch", file, "--exec", python, file)
        yield Tool("nodemon", words, "default; TERM, as its USR2 saves nothing")
        yield Tool("nodemon --delay 50ms", (*words[:2], "--delay", "50ms", *words[2:]), "delay 50 ms")
    if program := debian("entr"):
        yield Tool("entr -r", (program, "-n", "-r", python, file), "default; TERM", file + "\n")


@contextmanager
def _running(tool: Tool, folder: Path) -> Iterator[Path]:
    """The tool runs in ``folder``; what its application prints is in the file."""
    shutil.copy(EXAMPLE, folder)
    for name, text in {"asgi.py": ASGI, "bare.py": BARE, "files.txt": tool.stdin}.items():
        (folder / name).write_text(text)
    program = "command: [{}, dev_application.py], logs: {{stdout: inherit}}, watch: {{paths: [dev_application.py]{}}}"
    for name, more in {"default.yaml": "", "quick.yaml": ", debounce: 50ms"}.items():
        (folder / name).write_text(f"programs:\n  app: {{{program.format(sys.executable, more)}}}\n")
    output = folder / "output"
    environment = {**os.environ, "ASUP_EXAMPLE_INTERVAL": "0.05", "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(folder)}
    with output.open("wb") as out, (folder / "files.txt").open() as stdin:
        process = subprocess.Popen(tool.command, cwd=folder, env=environment, stdin=stdin, stdout=out, stderr=out, start_new_session=True)
    try:
        yield output
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _until_start(output: Path, number: int) -> float:
    """When the application's start ``number`` was seen; the number is part of the state, so that it tells of state carried over."""
    until = time.monotonic() + PATIENCE_SECONDS
    while (now := time.monotonic()) < until:
        if re.search(rb"^start %d," % number, output.read_bytes(), re.MULTILINE):
            return now
        time.sleep(POLL_SECONDS)
    raise SystemExit(f"no start {number} within {PATIENCE_SECONDS:g} s:\n{output.read_text()[-2000:]}")


def _saves(tool: Tool, rounds: int) -> list[float]:
    """The seconds from each save to the first line of the process that has taken up the state."""
    times = []
    with tempfile.TemporaryDirectory() as name, _running(tool, Path(name)) as output:
        source = Path(name, "dev_application.py")
        text = source.read_text()
        _until_start(output, 1)
        for number in range(2, rounds + 2):
            time.sleep(random.uniform(2.5, 3.5))  # a save is seldom at once after another; longer than each one's debounce
            source.write_text(text.replace("STEP = 1\n", f"STEP = {number}\n"))
            begun = time.monotonic()
            times.append(_until_start(output, number) - begun)
    return times


def saves(rounds: int) -> None:
    """Print the time from a save to running again."""
    found = {tool: _saves(tool, rounds) for tool in _tools()}
    reference = next(statistics.median(times) for tool, times in found.items() if tool.name == "asupd watch")
    print("\n| restarted by | median | best | worst | ratio | settings |\n| --- | --- | --- | --- | --- | --- |")
    for tool, times in sorted(found.items(), key=lambda each: statistics.median(each[1])):
        middle = statistics.median(times)
        row = f"{1000 * middle:,.0f} ms | {1000 * min(times):,.0f} ms | {1000 * max(times):,.0f} ms | ×{middle / reference:.2f}"
        print(f"| {tool.name} | {row} | {tool.settings} |", flush=True)


# State


def _timed(work: Callable[[], object], rounds: int) -> list[float]:
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - begun))
    return times


def _shown(times: Sequence[float]) -> str:
    return f"{statistics.median(times):,.1f} ms | {min(times):,.1f} ms"


def state(rounds: int) -> None:
    """Print what saving and loading state takes, beside plain JSON with one fsync and no checksum, lock or second copy."""
    print("\n| state | median | best |\n| --- | --- | --- |")
    for size in (1, 100):
        numbers = range(size * 11200)
        orders = [{"id": number, "name": f"order {number}", "prices": [1.5, 2.25, number / 3], "open": True} for number in numbers]
        told = {"orders": orders}
        mib = len(json.dumps(told, separators=(",", ":"))) / 1e6
        with tempfile.TemporaryDirectory() as name:
            serializer, plain = StateSerializer(Path(name, "state.json")), Path(name, "plain.json")

            def write(plain: Path = plain, told: object = told) -> None:
                with plain.open("w") as file:
                    json.dump(told, file)
                    file.flush()
                    os.fsync(file.fileno())

            works: dict[str, Callable[[], object]] = {
                "saved": lambda one=serializer, told=told: one.save_restart_state(told),  # type: ignore[misc]
                "loaded": serializer.load_restart_state,
                "json.dump and fsync": write,
                "json.loads": lambda plain=plain: json.loads(plain.read_text()),  # type: ignore[misc]
            }
            for what, work in works.items():
                print(f"| {mib:.1f} MB {what} | {_shown(_timed(work, rounds))} |", flush=True)


# A heartbeat's thread


def heartbeat(rounds: int) -> None:
    """Print what a process that does nothing but beat spends."""
    print("\n| idle process | CPU a second | wakeups a second |\n| --- | --- | --- |")
    for interval in ("none", "1", "0.1"):
        found = []
        for _ in range(min(rounds, 3)):
            with tempfile.TemporaryDirectory() as name:
                command = [sys.executable, "-c", HEARTBEAT, interval, str(HEARTBEAT_SECONDS)]
                out = subprocess.run(command, cwd=name, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, check=True)
            found.append([float(word) / HEARTBEAT_SECONDS for word in out.stdout.split()])
        cpu, wakeups = (statistics.median(column) for column in zip(*found, strict=True))
        title = "no heartbeat" if interval == "none" else f"Heartbeat thread, each {interval} s"
        print(f"| {title} | {1000 * cpu:.3f} ms | {wakeups:.1f} |", flush=True)


# Wrappers of one command


def _memory(pid: int) -> tuple[float, float]:
    """PSS and anonymous memory of one process in MiB."""
    figures = dict(re.findall(r"(?m)^(\w+): +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text()))
    return int(figures["Pss"]) / 1024, int(figures["Anonymous"]) / 1024


def _until_it_runs(words: Sequence[str]) -> float:
    """Milliseconds until the wrapped command itself runs, by the time that it prints."""
    begun = time.time_ns()
    out = subprocess.run([*words, "date", "+%s%N"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return (int(out.stdout) - begun) / 1e6


def _held(words: Sequence[str]) -> tuple[float, float]:
    """The wrapper's own memory while its command sleeps."""
    process = subprocess.Popen([*words, "sleep", "1000"], stderr=subprocess.DEVNULL)
    try:
        time.sleep(2)
        return _memory(process.pid)
    finally:
        process.terminate()
        process.wait()


def wrappers(rounds: int) -> None:
    """Print what a wrapper adds to one command."""
    run = (str(Path(sys.executable).with_name("asup-run")), "--no-heartbeat")
    every: dict[str, Sequence[str] | None] = {"nothing": (), "python3 -c pass": None, "asup-run": run}
    for name in ("tini", "dumb-init"):
        if program := debian(name):
            every[name] = (program, "-s", "--") if name == "tini" else (program,)
    print("\n| wrapper | until the command runs | whole run of `true` | PSS | of it its own |\n| --- | --- | --- | --- | --- |")
    times = max(15, rounds)
    for name, words in every.items():
        if words is None:
            command = [sys.executable, "-c", "pass"]
            print(f"| {name} | – | {statistics.median(_timed(lambda c=command: subprocess.run(c, check=True), times)):.1f} ms | – | – |")  # type: ignore[misc]
            continue
        runs = statistics.median(_until_it_runs(words) for _ in range(times))
        whole = _timed(lambda w=words: subprocess.run([*w, "true"], stderr=subprocess.DEVNULL, check=True), times)  # type: ignore[misc]
        held = "{:.2f} MiB | {:.2f} MiB".format(*_held(words)) if words else "– | –"
        print(f"| {name} | {runs:.1f} ms | {statistics.median(whole):.1f} ms | {held} |", flush=True)


def main() -> None:
    """Print the tables that are asked for."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    every = {"saves": saves, "state": state, "heartbeat": heartbeat, "wrappers": wrappers}
    chosen = sys.argv[2].split(",") if len(sys.argv) > 2 else list(every)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, Python {sys.version.split()[0]}, medians of {rounds}")
    for name in chosen:
        every[name](rounds)


if __name__ == "__main__":
    main()
