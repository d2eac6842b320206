"""The control API's client, for asupctl and for applications: typed answers over the daemon's unix socket.

    with Client("/run/shop/asupd.sock") as client:
        for result in client.restart("web"):
            print(result.name, result.state, result.message)

Errors are those of :mod:`supervisord_async.errors`. Importing this loads nothing of the daemon, and nothing beyond the
standard library. Finding a daemon's socket from its configuration file is left to :mod:`..daemon_registry` and the command line.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from supervisord_async.client.answers import DaemonHealth, Event, ProcessStatus, Reload, Result, Run
    from supervisord_async.client.api import Client

__all__ = ["Client", "DaemonHealth", "Event", "ProcessStatus", "Reload", "Result", "Run"]


def __getattr__(name: str) -> Any:
    """The name, imported at its first use: whoever needs only a part of this package does not wait for all of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from supervisord_async.client import answers, api

    return getattr(api if name == "Client" else answers, name)
