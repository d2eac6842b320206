"""What a run's monitors may know and do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from supervisord_async.config.model import Program
from supervisord_async.core.inputs import HealthReported, Input
from supervisord_async.core.state import Health, Snapshot
from supervisord_async.supervise.host import ChildProcess, Host, ProcessTree, Signature
from supervisord_async.supervise.sources.logsearch import LogSearch

if TYPE_CHECKING:
    from supervisord_async.supervise.runs.output import Output
    from supervisord_async.supervise.runs.run_spec import RunEnvironment
    from supervisord_async.supervise.sources.notify_state import NotifyState

#: How often a heartbeat is looked for in its timeout: a miss is found at most 1 + 1/8 timeouts, and a look's duration, after the last beat.
POLLS_PER_TIMEOUT = 8
#: The name of the check that reports the heartbeat, by file or by sd_notify.
HEARTBEAT_CHECK = "heartbeat"


class RunContext(msgspec.Struct, frozen=True):
    """One run, as its monitors see it."""

    name: str
    run: int
    program: Program
    host: Host
    child: ChildProcess
    tree: ProcessTree
    post: Callable[[Input], None]
    snapshot: Callable[[], Snapshot]  #: returns the process's current snapshot
    environment: RunEnvironment  #: the environment that the run was started with
    null_fd: int  #: /dev/null
    output: Output  #: the process's output, on its way to the logs
    searches: Mapping[str, LogSearch]  #: the searches of this run's output, by pattern
    heartbeat_file: str | None = None
    heartbeat_baseline: Signature = None  #: of the heartbeat file, before the run was spawned
    notify_state: NotifyState | None = None  #: what it has said by sd_notify; None without ``notify``

    def report(self, check: str, health: Health, detail: str = "") -> None:
        """Post a check's new verdict on the run; ``detail`` says what it found wrong."""
        self.post(HealthReported(self.run, check, health, detail))
