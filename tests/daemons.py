"""A real daemon on a real file, in a directory of its own, for tests that use the commands as users do."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from supervisord_async.client import Client
from supervisord_async.errors import NoDaemonError, SupervisordError
from supervisord_async.supervise.runs.run_spec import instance_of
from supervisord_async.system import cgroups, tags
from supervisord_async.system.lock import InstanceLock
from tests.waiting import PATIENCE_SECONDS, wait_until_sync

COMMAND_SECONDS = 60
#: At the end of a test: so long the programs may take for going by themselves.
HASTE_SECONDS = 0.5


def python(code: str) -> str:
    """A ``command`` that runs ``code``, as a file's flow style takes it."""
    return f"[{sys.executable}, -u, -c, {json.dumps(code)}]"


class LiveDaemon:
    """``asupd`` on ``programs.yaml`` in ``folder``; a context manager that leaves nothing behind."""

    def __init__(
        self,
        folder: Path,
        programs: str = "",
        *,
        options: tuple[str, ...] = (),
        prefix: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
        constants: dict[str, float] | None = None,
    ) -> None:
        self.folder = folder
        self.file = folder / "programs.yaml"
        self.options = options
        self.prefix = prefix  #: a command that becomes the daemon: it must exec what follows, so that the PID stays
        self.constants = constants or {}  #: "module.NAME" to another value: its daemons wait less for what they look at now and then
        self.environment = {**os.environ, "XDG_STATE_HOME": str(folder / "xdg"), **(environment or {})}
        self.environment.pop("ASUP_SOCKET", None)
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "asupd.log"
        if programs:
            self.write(programs)

    def write(self, programs: str) -> None:
        self.file.write_text(programs)

    # the daemon

    def start(self, *, wait: bool = True, output: int | None = None) -> LiveDaemon:
        """The daemon runs, and answers unless ``wait`` is False; what it says goes to ``output``, by default to :attr:`log`."""
        with self.log.open("ab") as log:
            command = [*self.prefix, sys.executable, *self._main(), "-c", str(self.file), *self.options]
            self.process = subprocess.Popen(
                command, stdout=output or log, stderr=output or log, stdin=subprocess.DEVNULL, env=self.environment, cwd=self.folder
            )
        if wait:
            self.wait_until(lambda: self.answers(), "the daemon answers")
        return self

    def _main(self) -> list[str]:
        if not self.constants:
            return ["-m", "supervisord_async.cli.asupd"]
        named = [(*name.rsplit(".", 1), value) for name, value in self.constants.items()]
        lines = [f"import {module}; {module}.{constant} = {value}" for module, constant, value in named]
        return ["-c", "\n".join([*lines, "from supervisord_async.cli.asupd import main; main()"])]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def answers(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.text()}")
        try:
            with Client(self.folder / ".asupd" / "asupd.sock") as client:
                return client.health().pid == self.pid
        except NoDaemonError:
            return False

    def kill(self) -> None:
        """SIGKILL, as the OOM killer would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def send(self, signum: int) -> None:
        assert self.process is not None
        self.process.send_signal(signum)

    def end(self, signum: int = signal.SIGTERM) -> int:
        """Stopped by a signal; its exit code."""
        self.send(signum)
        return self.wait()

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(COMMAND_SECONDS)

    def __enter__(self) -> LiveDaemon:
        return self.start() if self.process is None else self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self._wait_impatiently(self.process)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        lock = InstanceLock(self.folder / ".asupd" / "asupd.lock")
        if (background := lock.holder()) is not None:  # begun by a command of the test, which failed before it was ended
            os.kill(background, signal.SIGKILL)
            wait_until_sync(lambda: lock.holder() is None, what="the end of a daemon in the background")
        for process in self.tagged():
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(process.identity.pid, signal.SIGKILL)
        wait_until_sync(lambda: not self.tagged(), what="the end of what was killed")
        cgroups.remove_all(self.instance)

    def _wait_impatiently(self, process: subprocess.Popen[bytes]) -> None:
        """It has ended; what keeps it from that is killed by it, for the asking once more: the test is over."""
        try:
            process.wait(HASTE_SECONDS)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait(COMMAND_SECONDS)

    # what it knows

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "supervisord_async.cli.asupctl", "-c", str(self.file), *words]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_SECONDS, env=self.environment, cwd=self.folder, check=False
        )

    def do(self, *words: str) -> str:
        """A command that must succeed; what it printed."""
        done = self.ctl(*words)
        assert done.returncode == 0, (
            f"asupctl {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}\n{self.text()[-3000:]}"
        )
        return done.stdout

    def status(self, *selectors: str) -> dict[str, dict[str, Any]]:
        """What ``asupctl status --json`` prints, by name: asked for without a process of its own, unless there is something to be told."""
        with contextlib.suppress(SupervisordError), Client(self.folder / ".asupd" / "asupd.sock") as client:
            return {entry["name"]: entry for entry in client.process_documents(*selectors)}
        done = self.ctl("status", "--json", *selectors)
        assert done.returncode in (0, 3), done.stderr
        return {entry["name"]: entry for entry in json.loads(done.stdout)}

    def process_of(self, name: str) -> dict[str, Any]:
        return self.status(name)[name]

    def wait_for(self, name: str, state: str, **fields: Any) -> dict[str, Any]:
        """The status of ``name`` once it has this state and these fields."""
        found: dict[str, Any] = {}

        def there() -> bool:
            found.clear()
            found.update(self.status().get(name, {}))
            return found.get("state") == state and all(found.get(key) == value for key, value in fields.items())

        self.wait_until(there, f"{name} to be {state} {fields}")
        return dict(found)

    def wait_watching(self) -> None:
        """Files are watched, by notifications: what is saved from now on is seen."""

        def watches() -> bool:
            for info in Path(f"/proc/{self.pid}/fdinfo").iterdir():
                with contextlib.suppress(OSError):
                    if "inotify wd:" in info.read_text():
                        return True
            return False

        self.wait_until(watches, "files are watched")

    def events(self) -> list[dict[str, Any]]:
        return list(json.loads(self.do("events", "--json", "-n", "1000")))

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def instance(self) -> str:
        return instance_of(str(self.folder / ".asupd"))

    def tagged(self) -> list[tags.Tagged]:
        """All living processes that some daemon of this folder started; not the daemon, which is in a run's cgroup while it forks."""
        return [each for each in tags.living(self.instance) if self.process is None or each.identity.pid != self.process.pid]

    def wait_until(self, condition: Any, what: str, *, every: float = 0.05) -> None:
        try:
            wait_until_sync(condition, PATIENCE_SECONDS, every=every, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n--- the daemon's log:\n{self.text()[-6000:]}") from None


def alive(pid: int) -> bool:
    """Whether ``pid`` runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def unbroken(live: LiveDaemon) -> None:
    """Nothing of the daemon's own code failed so far."""
    assert "Traceback" not in live.text(), live.text()[-8000:]
