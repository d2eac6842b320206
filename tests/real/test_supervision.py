"""The main job on real processes, by the commands as users type them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemons import LiveDaemon, alive
from tests.waiting import wait_until_sync

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real


def test_programs_start_and_everything_stops_with_the_daemon(daemon: Make) -> None:
    live = daemon(
        "programs: {a: {command: [sleep, '1000'], start_seconds: 0}, b: {command: [sleep, '1000'], replicas: 2, start_seconds: 0}}"
    )
    pids = [live.wait_for(name, "RUNNING")["pid"] for name in ("a", "b:0", "b:1")]
    assert all(map(alive, pids))
    assert live.end() == 0
    assert not any(map(alive, pids))
    assert live.tagged() == []


def test_a_crash_is_restarted_with_backoff_and_the_limit_is_fatal(daemon: Make) -> None:
    live = daemon("programs: {bad: {command: [sh, -c, 'exit 3'], restart: {max_restarts: 2, backoff: {initial: 50ms}}}}")
    status = live.wait_for("bad", "FATAL")
    assert (status["cause"], status["run"], status["exit_status"], status["restarts"]) == ("restart_limit", 3, {"code": 3}, 2)
    assert live.ctl("status").returncode == 3
    started = live.ctl("start", "bad")
    assert started.returncode == 1 and "exited with 3" in started.stdout + started.stderr


def test_a_killed_program_is_another_process_afterwards(daemon: Make) -> None:
    live = daemon("programs: {web: {command: [sleep, '1000'], start_seconds: 0, restart: {backoff: {initial: 10ms}}}}")
    first = live.wait_for("web", "RUNNING")
    os.kill(first["pid"], signal.SIGKILL)
    second = live.wait_for("web", "RUNNING", run=2)
    assert second["pid"] != first["pid"]
    assert (second["cause"], second["restarts"], second["exit_status"]) == ("exited", 1, {"signal": "SIGKILL", "core": False})


def test_policies_decide_what_follows_an_exit(daemon: Make) -> None:
    live = daemon("""
programs:
  job: {command: ["true"]}
  failed-once: {command: ["false"], restart: never}
  prevented: {command: [sh, -c, "exit 9"], restart: {policy: always, prevent_exit_codes: [9]}}
  fine: {command: [sh, -c, "exit 4"], restart: {success_exit_codes: [0, 4]}}
  always: {command: ["true"], restart: {policy: always, backoff: {initial: 10ms, max: 10ms}}}
""")
    for name, code in (("job", 0), ("failed-once", 1), ("prevented", 9), ("fine", 4)):
        status = live.wait_for(name, "EXITED")
        assert (status["exit_status"], status["cause"], status["run"]) == ({"code": code}, "exited", 1), name
    live.wait_until(lambda: live.process_of("always")["run"] >= 3, "always is run again")


def test_a_hung_program_is_found_by_its_heartbeat(daemon: Make) -> None:
    script = (
        "import os,time\nf=os.environ['ASUP_HEARTBEAT_FILE']\nfor i in range(3): open(f,'w').write(str(i)); time.sleep(0.1)\n"
        "while os.environ['ASUP_RUN'] != '1': open(f,'w').write(str(time.time())); time.sleep(0.1)\ntime.sleep(1000)"  # the first run hangs
    )
    live = daemon(
        f"programs: {{w: {{command: [{sys.executable}, -c, {json.dumps(script)}], heartbeat: 3s, start_seconds: 0, restart: {{backoff: {{initial: 10ms}}}}}}}}"
    )
    status = live.wait_for("w", "RUNNING", run=2)
    assert status["cause"] == "heartbeat_missed"
    assert "heartbeat" in live.do("why", "w")


def test_a_stopped_daemon_blames_no_healthy_program(daemon: Make) -> None:
    script = "import os,time\nf=os.environ['ASUP_HEARTBEAT_FILE']\nwhile True: open(f,'w').write(str(time.time())); time.sleep(0.1)"
    live = daemon(f"programs: {{w: {{command: [{sys.executable}, -c, {json.dumps(script)}], heartbeat: 2s, start_seconds: 0}}}}")
    first = live.wait_for("w", "RUNNING", health="healthy")
    live.send(signal.SIGSTOP)
    until = time.monotonic() + 3  # longer than the timeout: the condition is that time itself
    wait_until_sync(lambda: time.monotonic() > until)
    live.send(signal.SIGCONT)
    beats = live.folder / ".asupd" / "heartbeats" / "w"
    seen = beats.stat().st_mtime_ns
    live.wait_until(lambda: beats.stat().st_mtime_ns > seen + 2_500_000_000, "more than a timeout of beats after the daemon woke")
    assert live.process_of("w")["pid"] == first["pid"]


def test_a_changed_file_restarts_its_program_only(daemon: Make, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "app.py").write_text("1")
    live = daemon(
        "programs: {dev: {command: [sleep, '1000'], watch: {paths: [src], debounce: 50ms}, start_seconds: 0}, other: {command: [sleep, '1000'], start_seconds: 0}}"
    )
    live.wait_for("dev", "RUNNING")
    other = live.wait_for("other", "RUNNING")
    draft = tmp_path / "src" / ".app.py.tmp"

    def save() -> bool:
        draft.write_text(str(time.time()))
        draft.replace(tmp_path / "src" / "app.py")  # as editors do
        return bool(live.process_of("dev")["run"] >= 2)

    live.wait_until(save, "dev is restarted", every=0.5)
    status = live.wait_for("dev", "RUNNING")
    assert (status["cause"], status["restarts"]) == ("file_changed", 0)
    assert live.process_of("other")["pid"] == other["pid"]


def test_a_spawn_that_fails_says_at_which_stage(daemon: Make) -> None:
    live = daemon("""
programs:
  nofile: {command: [/no/such/thing], restart: {max_restarts: 1, backoff: {initial: 10ms}}}
  nodir: {command: [sleep, "1"], directory: /no/such/dir, restart: {max_restarts: 1, backoff: {initial: 10ms}}}
  nouser: {command: [sleep, "1"], user: no-such-user-here, restart: {max_restarts: 1, backoff: {initial: 10ms}}}
""")
    for name, words in (("nofile", "exec: /no/such/thing: No such file"), ("nodir", "directory: /no/such/dir"), ("nouser", "user: ")):
        assert live.wait_for(name, "FATAL")["run"] == 2
        assert words in live.do("why", name), name


def test_the_child_has_a_clean_slate(daemon: Make, tmp_path: Path) -> None:
    out = tmp_path / "slate.json"
    script = (
        "import json,os,time\ns=dict(l.split(':\\t') for l in open('/proc/self/status').read().splitlines() if ':\\t' in l)\n"
        "fds={n: os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{n}')}\n"
        f"json.dump(dict(blocked=s['SigBlk'], ignored=s['SigIgn'], fds=fds, sid=os.getsid(0), pid=os.getpid(), umask=s['Umask'], cwd=os.getcwd(), "
        f"env={{k: v for k, v in os.environ.items() if k.startswith(('ASUP', 'GREETING', 'NOTIFY'))}}), open({str(out)!r} + '.new', 'w'))\n"
        f"os.rename({str(out)!r} + '.new', {str(out)!r}); time.sleep(1000)"
    )
    (tmp_path / ".env").write_text("GREETING=from the file\nGREETING2=two\n")
    live = daemon(
        f"programs: {{c: {{command: [{sys.executable}, -c, {json.dumps(script)}], umask: '027', directory: /tmp, environment: {{GREETING: hello}}, environment_files: [.env]}}}}",
        start=False,
    )
    # a hostile launch: descriptors left open, signals blocked and ignored
    leaked = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
    try:
        starter = f"import os,signal,sys\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\nos.execv(sys.executable, [sys.executable, '-m', 'supervisord_async.cli.asupd', '-c', {str(live.file)!r}])"
        for descriptor in leaked:
            os.set_inheritable(descriptor, True)
        with live.log.open("ab") as log:
            live.process = subprocess.Popen(
                [sys.executable, "-c", starter],
                pass_fds=leaked,
                stdout=log,
                stderr=log,
                env={**live.environment, "NOTIFY_SOCKET": "/nowhere"},
                cwd=tmp_path,
            )
    finally:
        for descriptor in leaked:
            os.close(descriptor)
    live.wait_until(out.exists, "the child looked at itself")
    slate = json.loads(out.read_text())
    assert int(slate["blocked"], 16) == 0
    assert int(slate["ignored"], 16) & (1 << (signal.SIGCHLD - 1) | 1 << (signal.SIGTERM - 1) | 1 << (signal.SIGHUP - 1)) == 0
    assert (
        slate["fds"].get("0") == "/dev/null" and len([number for number in slate["fds"] if int(number) > 2]) <= 1
    )  # the directory it lists
    assert slate["sid"] == slate["pid"] and slate["umask"] == "0027" and slate["cwd"] == "/tmp"
    environment = slate["env"]
    assert environment["GREETING"] == "hello" and environment["GREETING2"] == "two" and "NOTIFY_SOCKET" not in environment
    assert (environment["ASUP_NAME"], environment["ASUP_RUN"], environment["ASUP_REPLICA"]) == ("c", "1", "0")
    assert live.end() == 0


def test_nothing_of_a_tree_survives_its_stop(daemon: Make, tmp_path: Path) -> None:
    script = (
        "import os,signal,time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "def fork(): return os.fork() == 0\n"
        "if fork():\n  os.setsid()\n  if fork(): open('pid.setsid','w').write(str(os.getpid())); time.sleep(1000)\n  os._exit(0)\n"
        "if fork(): open('pid.child','w').write(str(os.getpid())); time.sleep(1000)\n"
        "time.sleep(1000)"
    )
    live = daemon(
        f"programs: {{t: {{command: [{sys.executable}, -c, {json.dumps(script)}], stop: {{grace_period: 300ms}}, start_seconds: 0}}}}"
    )
    live.wait_until(lambda: (tmp_path / "pid.setsid").exists() and (tmp_path / "pid.child").exists(), "the tree is there")
    pids = [int((tmp_path / name).read_text() or 0) for name in ("pid.setsid", "pid.child")]
    main = live.wait_for("t", "RUNNING")["pid"]
    live.do("stop", "t")
    assert not any(map(alive, [*pids, main]))
    assert live.tagged() == []


def test_leftovers_are_gone_before_the_next_run(daemon: Make, tmp_path: Path) -> None:
    script = "import os,time\nif os.fork() == 0:\n  os.setsid()\n  open('left','a').write(f'{os.getpid()}\\n'); time.sleep(1000)\nwhile not os.path.exists('left'): time.sleep(0.01)\nif os.environ['ASUP_RUN'] == '2': time.sleep(1000)\nos._exit(1)"
    live = daemon(
        f"programs: {{t: {{command: [{sys.executable}, -c, {json.dumps(script)}], restart: {{backoff: {{initial: 10ms}}}}, start_seconds: 0}}}}"
    )
    live.wait_for("t", "RUNNING", run=2)
    assert not alive(int((tmp_path / "left").read_text().split()[0]))


def test_a_second_daemon_names_the_first_and_touches_nothing(daemon: Make) -> None:
    live = daemon("programs: {a: {command: [sleep, '1000'], start_seconds: 0}}")
    first = live.wait_for("a", "RUNNING")
    second = subprocess.run(
        [sys.executable, "-m", "supervisord_async.cli.asupd", "-c", str(live.file)],
        capture_output=True,
        text=True,
        timeout=30,
        env=live.environment,
        check=False,
    )
    assert second.returncode != 0 and str(live.pid) in second.stderr
    assert live.process_of("a")["pid"] == first["pid"]


def test_another_signal_hastens_a_slow_stop_however_soon_it_comes(daemon: Make) -> None:
    live = daemon(
        "programs: {stubborn: {command: [sh, -c, 'trap \"\" TERM; while :; do sleep 0.1; done'], start_seconds: 0, stop: {grace_period: 10m}}}"
    )
    live.wait_for("stubborn", "RUNNING")
    live.send(signal.SIGTERM)
    live.send(signal.SIGINT)
    assert live.wait() == 0
    assert live.tagged() == []


def test_a_second_signal_hastens_a_slow_stop_as_whoever_waits_is_told(daemon: Make) -> None:
    live = daemon(
        "programs: {stubborn: {command: [sh, -c, 'trap \"\" TERM; while :; do sleep 0.1; done'], start_seconds: 0, stop: {grace_period: 10m}}}",
        constants={"supervisord_async.supervise.fleet.shutdown.TELL_SECONDS": 0.1},
    )
    pid = live.wait_for("stubborn", "RUNNING")["pid"]
    live.send(signal.SIGTERM)
    told = f"still waiting for stubborn (pid {pid}); one more TERM or INT kills at once"
    live.wait_until(lambda: told in live.text(), "it is told who holds up the end")

    def insist() -> bool:
        """The same one that comes right after the first may be taken for its echo."""
        assert live.process is not None
        if live.process.poll() is None:
            live.send(signal.SIGTERM)
        return live.process.poll() is not None

    live.wait_until(insist, "it ends", every=0.2)
    assert live.wait() == 0
    assert live.tagged() == []


def test_on_limit_shutdown_ends_the_daemon_with_another_code(daemon: Make) -> None:
    live = daemon(
        "programs: {a: {command: [sleep, '1000']}, b: {command: ['false'], restart: {max_restarts: 1, on_limit: shutdown, backoff: {initial: 10ms}}}}",
        start=False,
    )
    live.start(wait=False)
    assert live.wait() not in (0, None)
    assert live.tagged() == []


@pytest.mark.parametrize(
    ("when", "last", "code"),
    [
        ("all_exited", "['true']", 0),
        ("all_exited", "['false'], restart: never", 1),  # it ended with 0, as if the job had been done
        ("any_fatal", "['false'], restart: {max_restarts: 0}", 1),
    ],
)
def test_exit_when(daemon: Make, when: str, last: str, code: int) -> None:
    live = daemon(f"daemon: {{exit_when: {when}}}\nprograms: {{a: {{command: ['true']}}, b: {{command: {last}}}}}", start=False)
    live.start(wait=False)
    assert live.wait() == code


@pytest.mark.parametrize(
    ("programs", "code"),
    [
        ("a: {command: ['false'], restart: {max_restarts: 0}}, b: {command: ['true'], depends_on: {a: ready}}", 1),
        ("a: {command: ['true']}, b: {command: ['true'], depends_on: {a: ready}}", 1),
        ("a: {command: ['true'], autostart: false}, b: {command: ['true'], depends_on: {a: succeeded}}, c: {command: ['true']}", 0),
    ],
)
def test_who_waits_for_what_will_not_come_keeps_no_daemon_up(daemon: Make, programs: str, code: int) -> None:
    """It never ended, although nothing ran, nor would. Whom the last end releases runs first."""
    live = daemon(f"daemon: {{exit_when: all_exited}}\nprograms: {{{programs}}}", start=False)
    live.start(wait=False)
    assert live.wait() == code
    assert ("nothing will release b" in live.text()) == (code == 1)


@pytest.mark.parametrize(
    "due",
    [
        "schedule: '0 0 1 1 *'",
        "autostart: false, sockets: {s: 'unix:s.sock'}, start_on_connect: true",
        "command: ['false'], restart: {max_restarts: 0, on_limit: {retry_after: 1h}}",
    ],
)
def test_all_have_not_exited_while_one_is_due_to_start_by_itself(daemon: Make, due: str) -> None:
    command = "" if "command" in due else "command: ['true'], "
    live = daemon(f"daemon: {{exit_when: all_exited}}\nprograms: {{due: {{{command}{due}}}, long: {{command: [sleep, '1000']}}}}")
    live.wait_for("due", "FATAL" if "retry" in due else "STOPPED")
    live.do("signal", "TERM", "long")
    live.wait_for("long", "EXITED")
    assert live.process_of("due")["state"] in ("FATAL", "STOPPED")
    live.write("daemon: {exit_when: all_exited}\nprograms: {long: {command: ['true']}}")
    live.send(signal.SIGHUP)  # asupctl might not get its answer any more
    assert live.wait() == 0


def test_a_signal_by_the_operator_reaches_the_program(daemon: Make, tmp_path: Path) -> None:
    live = daemon("programs: {a: {command: [sh, -c, 'trap \"echo got >> got\" USR1; while :; do sleep 0.05; done'], start_seconds: 0}}")
    live.wait_for("a", "RUNNING")
    live.do("signal", "USR1", "a")
    live.wait_until((tmp_path / "got").exists, "the signal arrived")
