"""What crosses a process border: the names of environment variables, the API's version, and how an exit status reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

API_VERSION = "v1"

#: The daemon's address for asupctl, and for programs.
ENV_SOCKET = "ASUP_SOCKET"
ENV_NAME = "ASUP_NAME"
ENV_PROGRAM = "ASUP_PROGRAM"
ENV_GROUP = "ASUP_GROUP"
ENV_REPLICA = "ASUP_REPLICA"
ENV_RUN = "ASUP_RUN"
ENV_MAIN_PID = "ASUP_MAIN_PID"  #: for ``stop.command`` and hooks
ENV_EXIT_CODE = "ASUP_EXIT_CODE"  #: for ``hooks.after_exit``
ENV_EXIT_SIGNAL = "ASUP_EXIT_SIGNAL"  #: for it too, instead: a name
ENV_CAUSE = "ASUP_CAUSE"  #: for it too: why the run ended
ENV_EVENT = "ASUP_EVENT"  #: for commands of ``on_event``: what happened
ENV_HEARTBEAT_FILE = "ASUP_HEARTBEAT_FILE"
#: Of sd_notify and socket activation (``man 3 sd_notify``, ``sd_listen_fds``, ``sd_watchdog_enabled``).
ENV_NOTIFY_SOCKET = "NOTIFY_SOCKET"
ENV_WATCHDOG_USEC = "WATCHDOG_USEC"
ENV_WATCHDOG_PID = "WATCHDOG_PID"
ENV_LISTEN_FDS = "LISTEN_FDS"
ENV_LISTEN_PID = "LISTEN_PID"
ENV_LISTEN_FDNAMES = "LISTEN_FDNAMES"
#: Names the descriptor with the state to the daemon's new self at a re-exec.
ENV_STATE = "ASUPD_STATE_FD"
#: ``INSTANCE/NAME/RUN``: says which run_dir's daemon started a process, and as what. Inherited by descendants.
ENV_TAG = "ASUP_TAG"
#: A digest of the settings that a run was begun with, as far as a change of them needs a restart: what no saved state may know.
ENV_SETTINGS = "ASUP_SETTINGS"
#: What speaks of, or for, a run's main process alone: no command beside it has these.
MAIN_PROCESS_ONLY = frozenset(
    {ENV_NOTIFY_SOCKET, ENV_WATCHDOG_USEC, ENV_WATCHDOG_PID, ENV_LISTEN_FDS, ENV_LISTEN_PID, ENV_LISTEN_FDNAMES, ENV_SETTINGS}
)


def exit_words(status: Mapping[str, Any] | None) -> str:
    """The API's ``exit_status`` in words: ``exited with 1``, ``killed by SIGKILL (core dumped)``; None counts as unknown."""
    if status is not None and status.get("code") is not None:
        return f"exited with {status['code']}"
    if status is not None and status.get("signal"):
        return f"killed by {status['signal']}{' (core dumped)' if status.get('core') else ''}"
    return "ended, exit status unknown"
