"""The exit monitor: posts Exited once the run's main process has ended, and TreeGone once the whole run has."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from supervisord_async.core.inputs import Exited, TreeGone
from supervisord_async.core.state import Cause, State
from supervisord_async.supervise.monitors.context import RunContext
from supervisord_async.supervise.records.narrate import OUT_OF_MEMORY, exit_words
from supervisord_async.supervise.retry import retry_on_shortage
from supervisord_async.system.child import Ended
from supervisord_async.system.shortage import is_shortage

#: How many names of processes that were left behind are mentioned.
NAMED = 3

#: What to await, once nothing of a run lives, before the run is over; is given its end and the cause of that.
Follower: TypeAlias = Callable[[Ended, Cause], Awaitable[None]]


def post_exit_nowait(context: RunContext, ended: Ended, afterwards: Follower | None) -> bool:
    """Post Exited and return True if nothing has to be awaited first, as with most runs; else :func:`monitor_exit` has to be called."""
    if afterwards is not None or context.notify_state is not None or not context.output.settled:
        return False
    if _is_unexplained(context, ended) and context.host.may_have_oom_killed():
        return False
    if context.program.stop.ends_all and _has_leftovers(context):
        return False
    context.post(Exited(context.run, ended.status))
    return True


async def monitor_exit(context: RunContext, ended: Ended, afterwards: Follower | None) -> None:
    """Return once nothing of the run lives, ``afterwards`` is done, and the run's output is in its logs.

    ``ended`` says how the main process ended; ``afterwards`` is awaited once nothing lives, before the run counts as over.
    With ``scope: main`` descendants are not our concern: they do not count as remaining.
    """
    now = context.snapshot()
    cause = now.cause if now.state is State.STOPPING and now.cause is not None else Cause.EXITED
    remains = context.program.stop.ends_all and _has_leftovers(context)
    more_to_come = remains or afterwards is not None
    detail = await _detail(context, ended, remains=remains)
    if not more_to_come:
        await context.output.settle()
    context.post(Exited(context.run, ended.status, more_to_come, detail))
    if remains:
        await retry_on_shortage(f"see what lives of {context.name}", context.tree.wait_gone)
    if afterwards is not None:
        await afterwards(ended, cause)
    if more_to_come:
        await context.output.settle()
        context.post(TreeGone(context.run))


def _has_leftovers(context: RunContext) -> bool:
    """Whether something of the run may live on; True also where we cannot look for lack of a descriptor."""
    try:
        return context.tree.has_leftovers()
    except OSError as error:
        if not is_shortage(error):
            raise
        return True


def _is_unexplained(context: RunContext, ended: Ended) -> bool:
    """Whether somebody else killed it: the kernel, perhaps."""
    now = context.snapshot()
    return ended.status.signal == signal.SIGKILL and now.state is not State.STOPPING and now.sent != signal.SIGKILL


async def _detail(context: RunContext, ended: Ended, *, remains: bool) -> str:
    """What is known besides the exit status: the run's own sd_notify words, that it went to the background, or was OOM-killed."""
    if context.notify_state is not None and (said := context.notify_state.failure_text):
        return f"{exit_words(ended.status)}; {said}"
    if remains and ended.status.code == 0 and context.snapshot().state is not State.STOPPING:
        return await _background_words(context)
    if not _is_unexplained(context, ended) or not context.host.may_have_oom_killed():
        return ""
    known = await context.host.was_oom_killed(context.child.pid)
    return f"killed by SIGKILL: {OUT_OF_MEMORY}" if known else ""


async def _background_words(context: RunContext) -> str:
    """For a main process that exited with 0 and left others behind, a daemon most likely; "" where these are gone as well."""
    names: list[str] = []

    async def look() -> None:
        names[:] = context.tree.left_behind()

    await retry_on_shortage(f"see what {context.name} left", look)
    if not names:
        return ""
    what = f"{len(names)} process{'es' if len(names) != 1 else ''} ({', '.join(sorted(set(names))[:NAMED])})"
    return f"exited with 0; it left {what}, which asupd ends: a program has to stay in the foreground"
