"""``top``: the full-screen view, if textual is installed."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from supervisord_async.cli.options import verb
from supervisord_async.cli.output import print_json
from supervisord_async.cli.session import Session
from supervisord_async.errors import FailedError, UsageError


@verb("top")
def top(session: Session) -> None:
    """Watch all programs live on a full screen.

    One program's log is below the table; keys start, stop, restart, search and follow.

    With --json: one snapshot, as `status --json` with CPU and memory.
    """
    if session.json:
        with session.client() as client:
            print_json(client.process_documents())
        return
    if find_spec("textual") is None:
        raise FailedError("cannot show top: textual is not installed (pip install 'supervisord_async[tui]')")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("cannot show top: it needs a terminal (for scripts: status --json)")
    with session.client() as client:
        client.health()  # reports a missing daemon here instead of on an empty screen
    import gc

    from supervisord_async.cli.top import Top

    gc.set_threshold(700)  # long-running from here on
    Top(session.client).run()
