"""Loading the configuration file for a reload: in a thread, and within a bounded time."""

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
#: How many loads may run at a time: those that hang on a disk and were given up, and still one of the file as mended meanwhile.
MAX_LOADS = 4


def loader(options: Options, run_dir: str | None = None) -> Callable[..., Awaitable[Loaded]]:
    """A function that loads the file anew each time (``starting``: as :func:`.load.load`), for the daemon that runs in ``run_dir``.

    That function raises ConfigError where the file is unsound, or its disk hangs.
    """

    def fresh(starting: bool) -> Loaded:
        from supervisord_async.config.load import Loaded, load  # after a re-exec it was not needed yet

        loaded = load(options.file, run_dir=options.run_dir, load_cache=options.load_cache, living_in=run_dir, starting=starting)
        return Loaded(options.adjust(loaded.configuration), loaded.warnings)

    def read(starting: bool) -> Loaded:
        gc.disable()  # loading makes many objects and no garbage: collections would take as long as the load itself
        try:
            return fresh(starting)  # on return the YAML tree is freed already
        finally:
            gc.enable()

    threads = DaemonThreads(MAX_LOADS, "load")

    async def run(*, starting: bool = False) -> Loaded:
        try:
            with anyio.fail_after(LOAD_SECONDS):
                return await threads.run(read, starting)
        except TimeoutError:
            gc.enable()
            words = f"it, or what it includes, could not be read within {LOAD_SECONDS:g} s (does a disk hang?); nothing was changed"
            raise ConfigError([Problem(options.file, 0, 1, words)]) from None

    return run
