"""Measure the logs layer: throughput against ``cat``, CPU of many loggers, cost of quiet streams. Prints; asserts nothing.

Run: ``.venv/bin/python scripts/bench/logs.py [folder]`` (default: a temporary one on /tmp's disk).
"""

from __future__ import annotations

import gc
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from supervisord_async.logs.capture import Capture
from supervisord_async.logs.journal import Journal
from supervisord_async.logs.target import Format, Target
from supervisord_async.logs.writer import Writer
from supervisord_async.system.loop import new_event_loop
from supervisord_async.system.pipes import Pipe

GIB = 1 << 30
LINE = b"2026-11-20 12:00:00 INFO some.module a line of a usual length, as programs log them all day\n"
LOGGER = """
import os, time
line = {line!r}
begin = time.monotonic()
for n in range(1, 10 * 1000 // 10 + 1):
    os.write(1, line * 10)
    time.sleep(max(0, begin + n * 0.01 - time.monotonic()))
"""


def cpu_seconds(who: int = resource.RUSAGE_SELF) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def by_cat(folder: str) -> float:
    """Seconds of ``child | cat > file`` for 1 GiB."""
    begin = time.perf_counter()
    subprocess.run(f"yes '{LINE.decode().strip()}' | head -c {GIB} | cat > {folder}/cat.log", shell=True, check=True)
    taken = time.perf_counter() - begin
    os.unlink(f"{folder}/cat.log")
    return taken


async def by_capture(folder: str, format_: Format) -> tuple[float, float]:
    """Seconds, and seconds of CPU, for the same through a capture."""
    async with anyio.create_task_group() as tasks:
        writer = Writer()
        tasks.start_soon(writer.run)
        pipe = Pipe.open()
        target = Target(f"{folder}/capture.log", max_size_bytes=0, format=format_)
        capture = Capture(
            pipe, target, process_name="x", stream="stdout", writer=writer, on_loss=print, journal=Journal.open(f"{folder}/journal")
        )
        capture.start()
        cpu, begin = cpu_seconds(), time.perf_counter()
        await anyio.run_process(f"yes '{LINE.decode().strip()}' | head -c {GIB}", stdout=pipe.child_fd, stderr=None)
        await capture.drain()
        taken, cpu = time.perf_counter() - begin, cpu_seconds() - cpu
        assert capture.bytes_written == GIB
        await capture.aclose()
        pipe.close()
        await writer.aclose()
    os.unlink(f"{folder}/capture.log")
    return taken, cpu


async def many(folder: str, count: int, *, talk: bool) -> tuple[float, float, float]:
    """CPU seconds of ours while ``count`` loggers say 1,000 lines a second for 10 s; KiB and wakeups each when quiet."""
    async with anyio.create_task_group() as tasks:
        writer, journal = Writer(), Journal(None)
        tasks.start_soon(writer.run)
        gc.collect()
        before = rss_kib()
        pipes, captures = [], []
        for number in range(count):
            pipe = Pipe.open()
            pipes.append(pipe)
            target = Target(f"{folder}/many-{number}.log")
            name = f"p{number}"
            captures.append(Capture(pipe, target, process_name=name, stream="stdout", writer=writer, journal=journal, on_loss=print))
            captures[-1].start()
        kib = (rss_kib() - before) / count
        await anyio.sleep(0.5)
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        cpu = cpu_seconds()
        if talk:
            code = LOGGER.format(line=LINE)
            command = [sys.executable, "-S", "-c", code]
            children = [subprocess.Popen(command, stdout=pipe.child_fd) for pipe in pipes]  # noqa: ASYNC220  before the clock starts
            cpu = cpu_seconds()
            while any(child.poll() is None for child in children):  # noqa: ASYNC110  nothing of the loop's watches them
                await anyio.sleep(0.5)
            cpu = cpu_seconds() - cpu
        else:
            await anyio.sleep(3)
            cpu = cpu_seconds() - cpu
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - switches
        for capture, pipe in zip(captures, pipes, strict=True):
            await capture.aclose()
            pipe.close()
        await writer.aclose()
    return cpu, kib, switches


def rss_kib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1024


def main() -> None:
    folder = tempfile.mkdtemp(dir=sys.argv[1] if len(sys.argv) > 1 else None)
    run: dict[str, Any] = {"backend": "asyncio", "backend_options": {"loop_factory": new_event_loop}}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        formats: tuple[Format, ...] = ("raw", "timestamp", "json")
        for format_ in formats:
            cat, (taken, cpu) = by_cat(folder), anyio.run(by_capture, folder, format_, **run)
            cat = min(cat, by_cat(folder))
            speed = GIB / taken / 1e6
            print(f"1 GiB {format_:<9} {speed:6.0f} MB/s, {cat / taken:4.2f} of cat ({GIB / cat / 1e6:.0f} MB/s), {cpu:.2f} s CPU")
        cpu, kib, switches = anyio.run(lambda: many(folder, 1000, talk=False), **run)
        print(f"1,000 quiet streams: {kib:.1f} KiB each; in 3 s {cpu * 1000:.1f} ms CPU, {switches:.0f} context switches")
        cpu, _, switches = anyio.run(lambda: many(folder, 100, talk=True), **run)
        print(f"100 loggers × 1,000 lines/s × 10 s: {cpu:.2f} s CPU, {switches:.0f} context switches")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
