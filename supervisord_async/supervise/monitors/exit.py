"""The exit-code watcher: posts Exited as the run's main process is gone, TreeGone when all of it is."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from supervisord_async.core.inputs import Exited, TreeGone
from supervisord_async.core.state import Cause, State
from supervisord_async.supervise.monitors.context import RunContext
from supervisord_async.supervise.patience import is_want, patiently
from supervisord_async.supervise.records.narrate import exit_words
from supervisord_async.system.child import Ended

#: So many kinds of processes that were left behind are named.
NAMED = 3

#: What is to be awaited when nothing of a run lives.
Follower: TypeAlias = Callable[[Ended, Cause], Awaitable[None]]


def told_at_once(context: RunContext, ended: Ended, afterwards: Follower | None) -> bool:
    """Posts Exited and returns True where nothing is to be awaited first, as with most runs; False: :func:`monitor_exit` has to."""
    if afterwards is not None or context.voice is not None or not context.output.settled:
        return False
    if _is_unexplained(context, ended) and context.host.may_have_oom_killed():
        return False
    if context.program.stop.ends_all and _has_leftovers(context):
        return False
    context.post(Exited(context.run, ended.status))
    return True


async def monitor_exit(context: RunContext, ended: Ended, afterwards: Follower | None) -> None:
    """Returns when nothing of the run lives, what is to follow it has been done, and what it said is in its logs.

    ``ended`` is how the main process ended; ``afterwards`` is to be awaited, with it and why, when nothing lives, before the
    run is called over. With ``scope: main`` descendants are none of our business, and nothing remains by definition.
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
        await patiently(f"see what lives of {context.name}", context.tree.wait_gone)
    if afterwards is not None:
        await afterwards(ended, cause)
    if more_to_come:
        await context.output.settle()
        context.post(TreeGone(context.run))


def _has_leftovers(context: RunContext) -> bool:
    """Whether something may live on; what cannot be seen just now may."""
    try:
        return context.tree.has_leftovers()
    except OSError as error:
        if not is_want(error):
            raise
        return True


def _is_unexplained(context: RunContext, ended: Ended) -> bool:
    """Whether somebody killed it, and not us."""
    now = context.snapshot()
    return ended.status.signal == signal.SIGKILL and now.state is not State.STOPPING and now.sent != signal.SIGKILL


async def _detail(context: RunContext, ended: Ended, *, remains: bool) -> str:
    """What else is known of an end: what the run said of it, that it left for the background, or that the kernel was out of memory."""
    if context.voice is not None and (said := context.voice.last_words()):
        return f"{exit_words(ended.status)}; {said}"
    if remains and ended.status.code == 0 and context.snapshot().state is not State.STOPPING:
        return await _background_words(context)
    if not _is_unexplained(context, ended) or not context.host.may_have_oom_killed():
        return ""
    known = await context.host.was_oom_killed(context.child.pid)
    return "killed by SIGKILL: the kernel was out of memory" if known else ""


async def _background_words(context: RunContext) -> str:
    """Of a main process that has done its work, it seems, by leaving it to others; "" where these have gone as well."""
    names: list[str] = []

    async def look() -> None:
        names[:] = context.tree.left_behind()

    await patiently(f"see what {context.name} left", look)
    if not names:
        return ""
    what = f"{len(names)} process{'es' if len(names) != 1 else ''} ({', '.join(sorted(set(names))[:NAMED])})"
    return f"exited with 0; it left {what}, which asupd ends: a program has to stay in the foreground"
