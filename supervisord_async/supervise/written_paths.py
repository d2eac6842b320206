"""Which files the daemon itself writes: changes of them are no reason to restart a program."""

from __future__ import annotations

from collections.abc import Callable

from supervisord_async.config.model import Configuration


class WrittenPaths:
    """The run_dir, and every file elsewhere that the daemon's own log, or a program's output or heartbeat, goes to.

    Found out once for each configuration: a thousand programs that watch files all ask.
    """

    def __init__(self, configuration: Callable[[], Configuration]) -> None:
        self._configuration = configuration
        self._known: tuple[Configuration, tuple[str, ...]] | None = None

    def __call__(self) -> tuple[str, ...]:
        """Their absolute paths, as of the present configuration."""
        configuration = self._configuration()
        if self._known is None or self._known[0] is not configuration:
            self._known = configuration, _written_paths(configuration)
        return self._known[1]


def _written_paths(configuration: Configuration) -> tuple[str, ...]:
    run_dir, paths = configuration.daemon.run_dir, [configuration.daemon.log.file or ""]
    for program in configuration.programs.values():
        beats = program.heartbeat.file if program.heartbeat is not None else None
        for path in {program.logs.stdout, program.logs.stderr, beats or ""}:
            paths += [path.replace("{replica}", str(replica)) for replica in range(program.replicas)]
    return run_dir, *(path for path in paths if path.startswith("/") and not path.startswith(f"{run_dir}/"))
