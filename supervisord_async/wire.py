"""What crosses a process boundary: names of environment variables, the API's version, and the wording of an exit status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

API_VERSION = "v1"

#: How the daemon's log begins to say why nobody can connect; ``asupd -d`` passes on what follows.
NO_CONTROL_SOCKET = "degraded: no control socket; signals still work; trying again: "

#: The daemon's address for asupctl, and for programs.
ENV_SOCKET = "ASUP_SOCKET"
ENV_NAME = "ASUP_NAME"
ENV_PROGRAM = "ASUP_PROGRAM"
ENV_GROUP = "ASUP_GROUP"
ENV_REPLICA = "ASUP_REPLICA"
ENV_RUN = "ASUP_RUN"
ENV_MAIN_PID = "ASUP_MAIN_PID"  #: for ``stop.command`` and hooks
ENV_EXIT_CODE = "ASUP_EXIT_CODE"  #: for ``hooks.after_exit``
ENV_EXIT_SIGNAL = "ASUP_EXIT_SIGNAL"  #: for ``hooks.after_exit``, instead of the code: a name such as SIGKILL
ENV_CAUSE = "ASUP_CAUSE"  #: for ``hooks.after_exit``: why the run ended
ENV_EVENT = "ASUP_EVENT"  #: for commands of ``on_event``: what happened
ENV_HEARTBEAT_FILE = "ASUP_HEARTBEAT_FILE"
#: sd_notify and socket activation (``man 3 sd_notify``, ``sd_listen_fds``, ``sd_watchdog_enabled``).
ENV_NOTIFY_SOCKET = "NOTIFY_SOCKET"
ENV_WATCHDOG_USEC = "WATCHDOG_USEC"
ENV_WATCHDOG_PID = "WATCHDOG_PID"
ENV_LISTEN_FDS = "LISTEN_FDS"
ENV_LISTEN_PID = "LISTEN_PID"
ENV_LISTEN_FDNAMES = "LISTEN_FDNAMES"
#: At a re-exec: the descriptor from which the new daemon reads the state.
ENV_STATE = "ASUPD_STATE_FD"
#: ``INSTANCE/NAME/RUN``: which run_dir's daemon started a process, and as what. Inherited by descendants.
ENV_TAG = "ASUP_TAG"
#: What a program may be called, as a regular expression.
PROGRAM_NAME = "[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,99}"
#: A digest of those settings of a run whose change needs a restart. Read from the process, since the saved state may be lost.
ENV_SETTINGS = "ASUP_SETTINGS"
#: Variables that concern a run's main process alone: hooks, probes and stop commands do not get them.
MAIN_PROCESS_ONLY = frozenset(
    {ENV_NOTIFY_SOCKET, ENV_WATCHDOG_USEC, ENV_WATCHDOG_PID, ENV_LISTEN_FDS, ENV_LISTEN_PID, ENV_LISTEN_FDNAMES, ENV_SETTINGS}
)


def exit_words(status: Mapping[str, Any] | None) -> str:
    """The API's ``exit_status`` in words: ``exited with 1``, ``killed by SIGKILL (core dumped)``; None reads as unknown."""
    if status is not None and status.get("code") is not None:
        return f"exited with {status['code']}"
    if status is not None and status.get("signal"):
        return f"killed by {status['signal']}{' (core dumped)' if status.get('core') else ''}"
    return "ended, exit status unknown"
