"""What the tests of file watching share: a watcher at quick pace, and what its monitors post and publish."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio

from supervisord_async.config.model import Watch
from supervisord_async.core.inputs import Input, RestartRequested
from supervisord_async.core.record import Record
from supervisord_async.supervise.monitors.files import monitor_files
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.sources.filewatch.watcher import Pace
from supervisord_async.supervise.sources.filewatch.watching import FileWatching
from tests.waiting import wait_until

QUICK = Pace(idle=0.02, warm=0.01, warm_for=0.3, gather=0.0, fallback_poll=0.03, retry=0.2, retry_max=0.2)


def inotify_instances() -> int:
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            count += "inotify" in os.readlink(link)
    return count


def watch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "asup-files"]


class Bench:
    """A watcher, what its monitors posted, what it published."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self.bus = Bus()
        self.records: list[Record] = []
        self.posts: list[Input] = []
        self.bus.listen(self.records.append)
        self.watching = FileWatching(self.bus, pace=QUICK)
        self.tasks = tasks

    def said(self, what: str) -> list[Record]:
        return [record for record in self.records if record.type == "watch" and record.data["what"] == what]

    def details(self) -> list[str]:
        return [post.detail for post in self.posts if isinstance(post, RestartRequested)]

    async def monitor(
        self,
        *paths: Path,
        ignored: tuple[Path, ...] = (),
        post: Callable[[Input], None] | None = None,
        name: str = "web",
        **settings: object,
    ) -> None:
        watch = Watch(paths=tuple(map(str, paths)), **{"debounce_seconds": 0.05, **settings})  # type: ignore[arg-type]
        own = tuple(map(str, ignored))

        async def run() -> None:
            await monitor_files(self.watching, name=name, watch=watch, ignored_paths=own, post=post or self.posts.append, bus=self.bus)

        self.tasks.start_soon(run)
        with self.watching.subscribe(watch, ignored_paths=own) as later:
            await anyio.lowlevel.checkpoint()  # the monitor has subscribed, and is armed no later than what comes after it
            await later.wait_armed()

    async def next_detail(self) -> str:
        """Waits for one more restart than there were."""
        before = len(self.posts)
        await wait_until(lambda: len(self.posts) > before)
        return self.details()[-1]


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    async with anyio.create_task_group() as tasks:
        it = Bench(tasks)
        tasks.start_soon(it.watching.run)
        yield it
        tasks.cancel_scope.cancel()


async def only(b: Bench, act: Callable[[], object], sentinel: Path) -> str:
    """What is posted for ``act`` and a change of ``sentinel`` right after it: that of the sentinel alone, or not."""
    before = len(b.posts)
    act()
    sentinel.write_text(sentinel.read_text() + "x")
    await wait_until(lambda: len(b.posts) > before)
    return b.details()[-1]
