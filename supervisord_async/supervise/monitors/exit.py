"""The exit-code watcher: posts Exited when the run's main process is gone, TreeGone when all of it is."""

from __future__ import annotations

from collections.abc import Callable

from supervisord_async.core.inputs import Exited, TreeGone
from supervisord_async.supervise.monitors.context import RunContext
from supervisord_async.system.child import Ended


async def monitor_exit(context: RunContext, before_news: Callable[[Ended], None]) -> None:
    """Returns when nothing of the run lives.

    ``before_news`` is called with how the main process ended, before ``Exited`` is posted. With ``scope: main``
    descendants are none of our business, and nothing remains by definition.
    """
    ended = await context.child.wait()
    before_news(ended)
    remains = context.program.stop.scope == "tree" and context.tree.has_leftovers()
    context.post(Exited(context.run, ended.status, remains))
    if remains:
        await context.tree.wait_gone()
        context.post(TreeGone(context.run))
