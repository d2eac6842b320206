"""What a monitor of a run may know and do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from supervisord_async.config.model import Program
from supervisord_async.core.inputs import HealthReported, Input
from supervisord_async.core.state import Health, Snapshot
from supervisord_async.supervise.host import ChildProcess, Host, ProcessTree, Signature
from supervisord_async.supervise.senses.logsearch import LogSearch

if TYPE_CHECKING:
    from supervisord_async.supervise.runs.launch import RunEnvironment
    from supervisord_async.supervise.runs.output import Output
    from supervisord_async.supervise.senses.notify import Voice

#: Looks per heartbeat timeout: a miss is found no later than 1 + 1/LOOKS timeouts after the last beat, and a look's delay.
LOOKS = 8
#: What the heartbeat's health is reported as, whoever watches it.
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
    snapshot: Callable[[], Snapshot]  #: the process's present one
    environment: RunEnvironment  #: what the run was started with
    null_fd: int  #: /dev/null
    output: Output  #: what it says, on its way to the logs
    searches: Mapping[str, LogSearch]  #: by pattern, over what this run prints
    heartbeat_file: str | None = None
    heartbeat_baseline: Signature = None  #: of the heartbeat file, before the run was spawned
    voice: Voice | None = None  #: what the run says by sd_notify; None without ``notify``

    def report(self, check: str, health: Health, detail: str = "") -> None:
        """A check has a new word on the run; ``detail`` says what it found wrong."""
        self.post(HealthReported(self.run, check, health, detail))
