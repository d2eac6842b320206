"""What a monitor of a run may know and do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from supervisord_async.config.model import Program
from supervisord_async.core.inputs import Input
from supervisord_async.supervise.host import ChildProcess, Host, ProcessTree, Signature


@dataclass(frozen=True, slots=True)
class RunContext:
    """One run, as its monitors see it."""

    name: str
    run: int
    program: Program
    host: Host
    child: ChildProcess
    tree: ProcessTree
    post: Callable[[Input], None]
    heartbeat_file: str | None = None
    heartbeat_baseline: Signature = None  #: of the heartbeat file, before the run was spawned
