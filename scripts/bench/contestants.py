"""How each contestant supervises N copies of the child: its configuration, its start, its stop, its status requests.

If a peer has a choice, its settings are those that favour it; ``settings`` names them and is printed under the table.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import processes
from asking import free_port, timed_request, wait
from peers import Tools

from supervisord_async.supervise.runs.run_spec import instance_of
from supervisord_async.system import cgroups

ROOT = Path(__file__).resolve().parents[2]
ROTATE_BYTES = 50 * 1024 * 1024
BACKUPS = 40


class Contestant:
    """One contestant in its own folder, with ``count`` programs."""

    name: ClassVar[str]
    settings: ClassVar[str] = ""
    #: The workloads that it cannot do, and is not measured with.
    lacks: ClassVar[frozenset[str]] = frozenset()
    #: The most programs that it can run in a reasonable time.
    most: ClassVar[int] = 100_000

    def __init__(self, tools: Tools, folder: Path, tag: str, count: int, mode: str = "", *, logs: bool = False) -> None:
        self.tools, self.folder, self.tag, self.count, self.logs = tools, folder, tag, count, logs
        self.stamps_file = folder / "stamps"
        self.environment = {
            **tools.environment(),
            processes.TAG: tag,
            "BENCH_STAMPS": str(self.stamps_file),
            "BENCH_MODE": mode,
            "PWD": str(folder),
        }
        for variable in ("ASUP_SOCKET", "PYTHONDONTWRITEBYTECODE"):  # modules are compiled for users, and for each peer
            self.environment.pop(variable, None)
        self.daemon: subprocess.Popen[bytes] | None = None
        self.log_folder = folder / "logs"
        self.log_folder.mkdir()
        self.names = [f"p{number}" for number in range(count)]
        self.write()

    def write(self) -> None:
        """The configuration is written."""

    def command(self) -> list[str]:
        """The command that runs it in the foreground."""
        raise NotImplementedError

    def start(self) -> float:
        """It is started; returns when (monotonic)."""
        with (self.folder / "daemon.log").open("ab") as log:
            at = time.monotonic()
            self.daemon = subprocess.Popen(
                self.command(),
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return at

    def stop(self) -> None:
        """All programs are told to stop, in the fastest way that it offers."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGTERM)

    def prepare_one_more(self) -> None:
        """The configuration has one more program, but has not been reloaded."""

    def add_one(self) -> None:
        """The prepared configuration is loaded."""

    def status_command(self) -> list[str] | None:
        """The command that prints the status of all programs; None if there is none."""
        return None

    def raw_status(self) -> float | None:
        """The seconds that one status request for all programs takes over its own interface; None if there is none."""
        return None

    def ready(self) -> None:
        """Wait until it answers."""

    def log_bytes(self) -> int:
        """All bytes of all log files."""
        total = 0
        for path in self.log_folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # just renamed: the next call finds it
                total += path.stat().st_size if path.is_file() and path.name not in ("lock", "state") else 0
        return total

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False, timeout=120)

    def is_over(self) -> bool:
        """Whether it has failed and will start nothing more. pm2's command ends with 0 when its daemon has started all programs."""
        return self.daemon is not None and self.daemon.poll() not in (None, 0)

    def failure_text(self) -> str:
        """The end of its output."""
        return (self.folder / "daemon.log").read_text(errors="replace")[-300:].strip()

    def end(self) -> None:
        """None of its processes is left."""
        processes.sweep(self.tag)
        if self.daemon is not None:
            self.daemon.wait()


class Bare(Contestant):
    name = "bare"
    settings = "a C loop of posix_spawn and waitpid that does nothing else; no logs, no control"
    lacks = frozenset({"log", "fanin"})

    def command(self) -> list[str]:
        return [str(self.tools.spawner), str(self.count), str(self.tools.child)]

    def add_one(self) -> None:
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGHUP)


class ToFile(Contestant):
    name = "child > file"
    settings = "the child writes to the file itself: no rotation, nothing in between"
    pipeline = "exec {child} > logs/out"

    def command(self) -> list[str]:
        one = self.pipeline.format(child=self.tools.child)
        script = "\n".join(f"({one.replace('logs/out', f'logs/{name}')}) &" for name in self.names)
        return ["/bin/sh", "-c", f"{script}\nwait"]


class ThroughCat(ToFile):
    name = "child | cat > file"
    settings = "a pipe and cat: no rotation"
    pipeline = "{child} | cat > logs/out"


class Asupd(Contestant):
    name = "asupd"
    settings = (
        "restart without backoff (initial: 0), every program's output captured to its own rotated file, history and state saved; "
        "stop.scope: tree, the default: each run is started in its own cgroup, which this machine allows"
    )
    scope = "tree"

    def write(self) -> None:
        self.environment |= {"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(self.folder / "xdg")}
        self._file(self.names)

    def _python(self, command: str) -> list[str]:
        """The code of the tree in which this script is, whatever is installed."""
        return [sys.executable, "-m", f"supervisord_async.cli.{command}"]

    def _file(self, names: list[str]) -> None:
        logs = f"{{stdout: logs/{{name}}.log, max_size: {ROTATE_BYTES}, backups: {BACKUPS}}}"
        text = (
            f"version: 1\ndefaults:\n  restart: {{policy: always, backoff: {{initial: 0s}}}}\n  stop: {{scope: {self.scope}}}\nprograms:\n"
        )
        text += "".join(f"  {name}: {{command: ['{self.tools.child}'], logs: {logs.replace('{name}', name)}}}\n" for name in names)
        (self.folder / "programs.yaml").write_text(text)

    def command(self) -> list[str]:
        return [*self._python("asupd"), "-c", "programs.yaml"]

    def prepare_one_more(self) -> None:
        self._file([*self.names, "more"])

    def add_one(self) -> None:
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGHUP)

    def status_command(self) -> list[str]:
        return [*self._python("asupctl"), "-c", "programs.yaml", "status"]

    def raw_status(self) -> float:
        return timed_request(self.folder / ".asupd" / "asupd.sock", "GET", "/v1/processes")

    def ready(self) -> None:
        wait((self.folder / ".asupd" / "asupd.sock").exists)

    def end(self) -> None:
        """None of its processes is left, nor its cgroups, which the next daemon would scan."""
        super().end()
        cgroups.remove_all(instance_of(str(self.folder / ".asupd")))


class AsupdMain(Asupd):
    name = "asupd main"
    settings = "as asupd, with stop.scope: main: only the main process is ended, as with all others here; no cgroups"
    scope = "main"
    lacks = frozenset({"log", "fanin"})


class Supervisord(Contestant):
    name = "supervisord"
    settings = "startsecs=0 (its default of 1 would not be faster), stdout and stderr into one rotated file, as with asupd"

    def write(self) -> None:
        head = (
            "[unix_http_server]\nfile=%(here)s/sock\n"
            "[supervisord]\nnodaemon=true\nlogfile=%(here)s/supervisord.log\npidfile=%(here)s/pid\n"
            f"minfds={self.count * 4 + 1024}\n"
            "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
            "[supervisorctl]\nserverurl=unix://%(here)s/sock\n[include]\nfiles=more.conf\n"
        )
        (self.folder / "supervisord.conf").write_text(head + "".join(map(self._program, self.names)))

    def _program(self, name: str) -> str:
        rotation = f"stdout_logfile_maxbytes={ROTATE_BYTES}\nstdout_logfile_backups={BACKUPS}\n"
        return (
            f"[program:{name}]\ncommand={self.tools.child}\nautorestart=true\nstartsecs=0\nredirect_stderr=true\n"
            f"stdout_logfile={self.log_folder}/{name}.log\n{rotation}"
        )

    def command(self) -> list[str]:
        return [self.tools.python("supervisor", "supervisord"), "-c", "supervisord.conf"]

    def prepare_one_more(self) -> None:
        (self.folder / "more.conf").write_text(self._program("more"))

    def add_one(self) -> None:
        self._call("reloadConfig")
        self._call("addProcessGroup", "more")

    def status_command(self) -> list[str]:
        return [self.tools.python("supervisor", "supervisorctl"), "-c", "supervisord.conf", "status"]

    def raw_status(self) -> float:
        begin = time.monotonic()
        self._call("getAllProcessInfo")
        return time.monotonic() - begin

    def _call(self, method: str, *arguments: str) -> None:
        import xmlrpc.client

        body = xmlrpc.client.dumps(arguments, f"supervisor.{method}")
        timed_request(self.folder / "sock", "POST", "/RPC2", body, {"Content-Type": "text/xml"})

    def ready(self) -> None:
        wait((self.folder / "sock").exists)


class Services(Contestant):
    """Contestants whose configuration is a folder per program with a ``run`` file: the child itself, so that no shell is in between."""

    logger = ""

    def write(self) -> None:
        self.services = self.folder / "services"
        self.services.mkdir()
        for name in self.names:
            self._service(self.services, name)

    def _service(self, where: Path, name: str) -> Path:
        service = where / name
        service.mkdir()
        (service / "run").symlink_to(self.tools.child)
        if self.logs:
            service.joinpath("log").mkdir()
            script = service / "log" / "run"
            log = self.log_folder / name
            log.mkdir()
            script.write_text(f"#!/bin/sh\nexec {self.logger.format(log=log)}\n")
            script.chmod(0o755)
            if self.name == "runit":
                (log / "config").write_text(f"s{ROTATE_BYTES}\nn{BACKUPS}\n")
        return service

    def prepare_one_more(self) -> None:
        self._more = self._service(self.folder, "more")

    def add_one(self) -> None:
        self._more.rename(self.services / "more")
        self.names.append("more")

    def paths(self) -> list[str]:
        return [f"services/{name}" for name in self.names]


class Daemontools(Services):
    name = "daemontools"
    settings = "run is the child itself, no logger except in the log workloads; svscan checks for new programs every 5 s"
    logger = f"multilog s16777215 n{BACKUPS * 3} {{log}}"
    most = 1000

    def command(self) -> list[str]:
        return ["svscan", "services"]

    def stop(self) -> None:
        self.run(["svc", "-d", *self.paths()])

    def status_command(self) -> list[str]:
        return ["svstat", *self.paths()]


class S6(Services):
    name = "s6"
    settings = "run is the child itself; its built-in pause of 1 s between starts stays"
    logger = f"s6-log -b n{BACKUPS} s{ROTATE_BYTES} {{log}}"

    def command(self) -> list[str]:
        return ["s6-svscan", "-c", str(2 * self.count + 16), "services"]

    def stop(self) -> None:
        self.run(["s6-svscanctl", "-t", "services"])

    def add_one(self) -> None:
        super().add_one()
        self.run(["s6-svscanctl", "-a", "services"])

    def status_command(self) -> list[str] | None:
        return ["/bin/sh", "-c", "for s in services/*; do s6-svstat $s; done"] if self.count <= 100 else None


class Runit(Services):
    name = "runit"
    settings = "run is the child itself; runsvdir checks for new programs every 5 s"
    logger = "svlogd {log}"

    def command(self) -> list[str]:
        return ["runsvdir", "services"]

    def stop(self) -> None:
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGHUP)

    def status_command(self) -> list[str]:
        return ["sv", "status", *[f"./{path}" for path in self.paths()]]


class Circus(Contestant):
    name = "circus"
    settings = "copy_env, no stream capture except in the log workloads (its default)"

    def write(self) -> None:
        base = 20000 + os.getpid() % 20000
        self._ports = [free_port(base), free_port(base + 1), free_port(base + 2)]
        text = "[circus]\n" + "".join(
            f"{key} = tcp://127.0.0.1:{port}\n"
            for key, port in zip(("endpoint", "pubsub_endpoint", "stats_endpoint"), self._ports, strict=True)
        )
        (self.folder / "circus.ini").write_text(text + "".join(map(self._watcher, self.names)))

    def _watcher(self, name: str) -> str:
        stream = (
            f"stdout_stream.class = FileStream\nstdout_stream.filename = {self.log_folder}/{name}.log\n"
            f"stdout_stream.max_bytes = {ROTATE_BYTES}\nstdout_stream.backup_count = {BACKUPS}\n"
        )
        return f"[watcher:{name}]\ncmd = {self.tools.child}\ncopy_env = True\nmax_retry = -1\n" + (stream if self.logs else "")

    def command(self) -> list[str]:
        return [self.tools.python("circus", "circusd"), "circus.ini"]

    def prepare_one_more(self) -> None:
        with (self.folder / "circus.ini").open("a") as file:
            file.write(self._watcher("more"))

    def _ctl(self, *words: str) -> list[str]:
        return [self.tools.python("circus", "circusctl"), "--endpoint", f"tcp://127.0.0.1:{self._ports[0]}", *words]

    def add_one(self) -> None:
        self.run(self._ctl("reloadconfig"))

    def status_command(self) -> list[str]:
        return self._ctl("status")

    def raw_status(self) -> float | None:
        code = (
            "import time, sys; from circus.client import CircusClient\n"
            f"c = CircusClient(endpoint='tcp://127.0.0.1:{self._ports[0]}', timeout=30); q = {{'command': 'status', 'properties': {{}}}}\n"
            "c.call(q); b = time.monotonic(); c.call(q); print(time.monotonic() - b)"
        )
        done = self.run([self.tools.python("circus", "python"), "-c", code])
        return float(done.stdout) if done.returncode == 0 else None


class Pm2(Contestant):
    name = "pm2"
    settings = "fork mode, no restart delay; logs without rotation, since that needs a separate module"

    def write(self) -> None:
        self.environment |= {"PM2_HOME": str(self.folder / "pm2"), "PM2_DISABLE_VERSION_CHECK": "true"}
        self._file("apps.json", self.names)

    def _file(self, path: str, names: list[str]) -> None:
        apps = [
            {
                "name": name,
                "script": str(self.tools.child),
                "interpreter": "none",
                "out_file": f"{self.log_folder}/{name}.log",
                "error_file": f"{self.log_folder}/{name}.log",
            }
            for name in names
        ]
        (self.folder / path).write_text(json.dumps({"apps": apps}))

    def command(self) -> list[str]:
        return [self.tools.pm2, "start", "apps.json"]

    def stop(self) -> None:
        quiet = subprocess.DEVNULL
        subprocess.Popen([self.tools.pm2, "stop", "all"], env=self.environment, cwd=self.folder, stdout=quiet, stderr=quiet)

    def ready(self) -> None:
        assert self.daemon is not None
        self.daemon.wait(60)

    def prepare_one_more(self) -> None:
        self._file("more.json", ["more"])

    def add_one(self) -> None:
        self.run([self.tools.pm2, "start", "more.json"])

    def status_command(self) -> list[str]:
        return [self.tools.pm2, "list"]


class Monit(Contestant):
    name = "monit"
    settings = "a check each second, its shortest; a shell puts the child into the background, as monit needs it; no output is captured"
    #: It starts one program each second, as an orphan, and notices its end only after another process has reaped it.
    lacks = frozenset({"respawn", "crowd", "log", "fanin"})
    most = 1

    def write(self) -> None:
        marks = " ".join(f"{key}='{self.environment[key]}'" for key in (processes.TAG, "BENCH_STAMPS", "BENCH_MODE"))
        start = self.folder / "start"  # monit gives what it starts an environment of its own
        start.write_text(f"#!/bin/sh\n{marks} '{self.tools.child}' >/dev/null 2>&1 </dev/null &\necho $! >$1.pid\n")
        start.chmod(0o755)
        head = "".join(f"set {key}file {self.folder}/monit.{key}\n" for key in ("pid", "id", "state", "log"))
        head += f"set daemon 1\nset httpd unixsocket {self.folder}/sock allow bench:bench\n"
        services = "".join(
            f'check process {name} with pidfile {self.folder}/{name}.pid\n  start program = "{start} {self.folder}/{name}"\n'
            for name in self.names
        )
        (self.folder / "monitrc").write_text(head + services)
        (self.folder / "monitrc").chmod(0o600)

    def _monit(self, *words: str) -> list[str]:
        return ["monit", "-c", f"{self.folder}/monitrc", *words]

    def command(self) -> list[str]:
        return self._monit("-I")

    def status_command(self) -> list[str]:
        return self._monit("summary")

    def ready(self) -> None:
        wait((self.folder / "sock").exists)


class Honcho(Contestant):
    name = "honcho"
    settings = "no restarts, no control: it starts the programs, passes output on, and ends when one of them ends"
    lacks = frozenset({"respawn", "crowd", "log", "fanin"})
    most = 100  # a thread for each; with 1,000 a round takes half a minute

    def write(self) -> None:
        (self.folder / "Procfile").write_text("".join(f"{name}: exec {self.tools.child}\n" for name in self.names))

    def command(self) -> list[str]:
        return [self.tools.python("honcho", "honcho"), "start"]


ALL: dict[str, type[Contestant]] = {
    contestant.name: contestant
    for contestant in (Bare, ToFile, ThroughCat, Asupd, AsupdMain, Supervisord, Daemontools, S6, Runit, Circus, Pm2, Monit, Honcho)
}
