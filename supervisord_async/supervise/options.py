"""What the command line tells the daemon beyond the configuration file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from supervisord_async.config.load_cache import LoadCache
from supervisord_async.config.model import Configuration, DaemonLog


class Options(msgspec.Struct, frozen=True):
    """The command line's settings, unchanged during the daemon's lifetime."""

    file: str
    run_dir: str | None = None
    echo: Callable[[str, str, bytes], None] | None = None
    told_to_stop: Sequence[int] = ()  #: the stop signal that came before the daemon handled signals; empty if none has come
    reopen_own_log: Callable[[], None] = lambda: None
    follow_log_settings: Callable[[DaemonLog], None] = lambda log: None  #: called when a reload changes ``daemon.log``
    adjust: Callable[[Configuration], Configuration] = lambda configuration: configuration  #: applies the command line's overrides to it
    load_cache: LoadCache = msgspec.field(default_factory=LoadCache)  #: the file's programs as last loaded
