"""What the command line gives the daemon beside the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from supervisord_async.config.model import Configuration, DaemonLog
from supervisord_async.config.recollection import Recollection


class Options(msgspec.Struct, frozen=True):
    """It holds for the daemon's lifetime."""

    file: str
    run_dir: str | None = None
    echo: Callable[[str, str, bytes], None] | None = None
    told_to_stop: Sequence[int] = ()  #: the signal to stop that came before anybody listened; empty until one comes
    reopen_own_log: Callable[[], None] = lambda: None
    follow_log_settings: Callable[[DaemonLog], None] = lambda log: None  #: called when a reload changes ``daemon.log``
    adjust: Callable[[Configuration], Configuration] = lambda configuration: configuration  #: lays the command line's settings over it
    recollection: Recollection = msgspec.field(default_factory=Recollection)  #: of the file's programs as loaded last
