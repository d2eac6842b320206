"""The optional modules: which of them are missing here, and what is lost without each, reported once at the start."""

from __future__ import annotations

import logging
from importlib import util

from supervisord_async.system import transfer

_log = logging.getLogger("asupd")

#: Module, and what the daemon cannot do without it.
OPTIONAL: tuple[tuple[str, str], ...] = (
    ("uvloop", "the stock event loop is used, which is slower"),
    ("watchfiles", "no notifications of changed files: watched paths are polled"),
    ("prometheus_client", "no metrics"),
    ("_sqlite3", "no history: records live only as long as the daemon"),
    ("uvicorn", "no control socket: signals still work"),
    ("cronsim", "schedules given as cron lines do not work"),
)


def missing() -> list[tuple[str, str]]:
    """The modules of :data:`OPTIONAL` that are not installed, each with what is lost; nothing is imported."""
    return [(module, loss) for module, loss in OPTIONAL if not _is_there(module)]


def report_missing(*, no_cgroups: str | None) -> None:
    """The log names each missing module and what is lost; ``no_cgroups`` says why runs have no cgroups, None if they have."""
    for module, loss in missing():
        _log.warning("degraded: %s cannot be imported: %s", module, loss)
    _report_refused()
    if no_cgroups is not None:  # usual where nobody gave us any, so no warning
        _log.info("degraded: no cgroups (%s); a process that hides from session, parents and environment is not found", no_cgroups)


def _report_refused() -> None:
    try:
        if transfer.splices():
            return
    except OSError:  # no free descriptor: it is checked again at the first output
        return
    _log.warning(
        "degraded: splice and tee are refused (by a sandbox's seccomp profile?): output that is on its way to a log is lost when the "
        "daemon is killed, or the log cannot be written"
    )


def _is_there(module: str) -> bool:
    try:
        return util.find_spec(module) is not None
    except (ImportError, ValueError):  # ValueError: somebody put a partial module in sys.modules
        return False
