"""Reading the file again for a reload: in a thread, and within a bounded time."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio

from supervisord_async.errors import ConfigError, Problem
from supervisord_async.system.threads import DaemonThreads

if TYPE_CHECKING:
    from supervisord_async.config.load import Loaded
    from supervisord_async.supervise.options import Options

#: A reload whose files cannot be read in this time is refused.
LOAD_SECONDS = 20.0
#: So many that were given up may hang, and the next one, of a file that was mended meanwhile, still has a thread.
MOST_LOADS = 4


def loader(options: Options, run_dir: str | None = None) -> Callable[[], Awaitable[Loaded]]:
    """Loads the file each time it is called, for the daemon that runs in ``run_dir``.

    What it returns raises ConfigError: it is unsound, or its disk hangs.
    """

    def fresh() -> Loaded:
        from supervisord_async.config.load import Loaded, load  # after a re-exec it was not needed yet

        loaded = load(options.file, run_dir=options.run_dir, recollection=options.recollection, living_in=run_dir)
        return Loaded(options.adjust(loaded.configuration), loaded.warnings)

    def read() -> Loaded:
        gc.disable()  # a file makes much that is new and no garbage; looking for some takes as long as reading it
        try:
            return fresh()  # by now without the tree of its text
        finally:
            gc.enable()

    threads = DaemonThreads(MOST_LOADS, "load")

    async def run() -> Loaded:
        try:
            with anyio.fail_after(LOAD_SECONDS):
                return await threads.run(read)
        except TimeoutError:
            gc.enable()
            words = f"it, or what it includes, could not be read within {LOAD_SECONDS:g} s (does a disk hang?); nothing was changed"
            raise ConfigError([Problem(options.file, 0, 1, words)]) from None

    return run
