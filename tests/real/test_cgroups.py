"""Real daemons whose runs have cgroups: what hides is ended and adopted like everything else; and daemons that get none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisord_async.system import cgroups
from supervisord_async.wire import ENV_TAG
from tests.confinement import HIDE, need_cgroups
from tests.daemons import LiveDaemon, alive
from tests.waiting import wait_until_sync

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real

#: A program that daemonised something which nothing but its cgroup leads to.
HIDING = json.dumps(["sh", "-c", f"{HIDE}; exec sleep 1000"])
#: The mount of cgroup v2 is read-only for the daemon that follows.
READ_ONLY = (
    "unshare",
    "--mount",
    "sh",
    "-c",
    'set -e; for m in $(awk \'$3 == "cgroup2" {print $2}\' /proc/mounts); do mount --bind -o ro $m $m; done; exec "$@"',
    "sh",
)


@pytest.fixture(autouse=True)
def machine() -> None:
    need_cgroups()


def folders(live: LiveDaemon) -> set[str]:
    """The names of the runs' cgroups."""
    return {os.path.basename(each.path) for each in cgroups.of_instance(live.instance).values()}


def hidden(live: LiveDaemon, folder: str = ".") -> int:
    """The PID of what hid in ``folder``, once it did; the next one is another."""
    file = live.folder / folder / "hidden"
    live.wait_until(file.exists, "it hides")
    pid = int(file.read_text())
    file.unlink()
    return pid


def gone(pid: int) -> None:
    wait_until_sync(lambda: not alive(pid), what=f"the end of process {pid}")


def test_what_hides_is_gone_after_a_stop_and_nobody_else(daemon: Make) -> None:
    live = daemon(f"programs: {{w: {{command: {HIDING}, start_seconds: 0}}, other: {{command: [sleep, '1000'], start_seconds: 0}}}}")
    pid, other = hidden(live), live.wait_for("other", "RUNNING")["pid"]
    tag = f"{live.instance}x/w/1"
    decoy = subprocess.Popen(["sleep", "1000"], env={**os.environ, ENV_TAG: tag}, start_new_session=True)
    try:
        live.do("stop", "w")
        assert not alive(pid)
        assert alive(other)
        assert decoy.poll() is None
    finally:
        decoy.kill()
        decoy.wait()


def test_a_daemon_that_hides_as_nginx_does_can_be_named_the_main_process(daemon: Make, tmp_path: Path) -> None:
    (tmp_path / "name.py").write_text("""
import sdnotify, time
sdnotify.SystemdNotifier(debug=True).notify("MAINPID=" + open("hidden").read() + "READY=1")
time.sleep(1000)
""")
    script = f"rm -f hidden; {HIDE}; while [ ! -e hidden ]; do sleep 0.02; done; exec {sys.executable} name.py"
    live = daemon(f"programs: {{w: {{command: {json.dumps(['sh', '-c', script])}, notify: {{access: all}}}}}}")
    pid = live.wait_for("w", "RUNNING")["pid"]
    assert pid == int((tmp_path / "hidden").read_text())
    os.kill(pid, signal.SIGKILL)
    status = live.wait_for("w", "RUNNING", run=2)
    assert (status["exit_status"], status["pid"]) == ({"signal": "SIGKILL", "core": False}, int((tmp_path / "hidden").read_text()))


def test_what_hides_and_takes_no_term_is_killed(daemon: Make) -> None:
    script = f"trap '' TERM; {HIDE}; exec sleep 1000"
    live = daemon(f"""
programs:
  w: {{command: {json.dumps(["sh", "-c", script])}, stop: {{grace_period: 300ms}}, start_seconds: 0}}
""")
    pid = hidden(live)
    live.do("stop", "w")
    assert not alive(pid)


def test_what_hides_is_gone_before_the_next_run(daemon: Make, tmp_path: Path) -> None:
    """Also when the program ended by itself, and left it."""
    check = "test -e hidden && kill -0 $(cat hidden) 2>/dev/null && echo two at once >> wrong; rm -f hidden; "
    script = f"{check}{HIDE}; cat hidden >> all; exit 1"
    live = daemon(f"""
programs:
  w: {{command: {json.dumps(["sh", "-c", script])}, stop: {{grace_period: 100ms}}, restart: {{policy: always, backoff: {{initial: 0}}}}}}
""")
    live.wait_until(lambda: live.process_of("w")["run"] >= 5, "five runs", every=0.2)
    live.do("stop", "w")
    assert not (tmp_path / "wrong").exists()
    pids = [int(line) for line in (tmp_path / "all").read_text().split()]
    assert len(pids) >= 4
    assert not any(map(alive, pids))


def test_a_storm_of_forks_is_gone_after_a_stop(daemon: Make) -> None:
    """Ten lineages that each fork and end after some milliseconds; bounded in pace and number, should nobody end them."""
    script = (
        "import os, time\nuntil = time.monotonic() + 10\n"
        "if os.fork(): open('up', 'w').close(); time.sleep(1000)\n"
        "for _ in range(10):\n  if os.fork() == 0: break\nelse: os._exit(0)\n"
        "os.setsid()\n"
        "for _ in range(1500):\n  if os.fork() or time.monotonic() > until: os._exit(0)\n  time.sleep(0.005)\n"
        "open('escaped', 'w').close()"
    )
    live = daemon(f"""
programs:
  w: {{command: [{sys.executable}, -S, -E, -c, {json.dumps(script)}], stop: {{grace_period: 100ms}}, start_seconds: 0}}
""")
    live.wait_until((live.folder / "up").exists, "it forks")
    live.do("stop", "w")
    assert live.tagged() == []
    assert not (live.folder / "escaped").exists()


def test_scope_main_is_no_business_of_cgroups(daemon: Make) -> None:
    live = daemon(f"programs: {{w: {{command: {HIDING}, stop: {{scope: main}}, start_seconds: 0}}}}")
    pid = hidden(live)
    assert folders(live) == set()
    live.do("stop", "w")
    assert live.end() == 0
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)
    gone(pid)


def test_folders_go_with_their_runs_and_the_last_with_the_daemon(daemon: Make) -> None:
    sleep = "{command: [sleep, '1000'], start_seconds: 0"
    live = daemon(f"programs: {{a: {sleep}}}, b: {sleep}}}, r: {sleep}, replicas: 3}}}}")
    for name in ("a", "b", "r:0", "r:1", "r:2"):
        live.wait_for(name, "RUNNING")
    assert folders(live) == {"a.1", "b.1", "r~0.1", "r~1.1", "r~2.1"}
    live.do("restart", "a")
    live.do("scale", "r", "1")
    live.wait_until(lambda: folders(live) == {"a.2", "b.1", "r.1"} or folders(live) == {"a.2", "b.1", "r~0.1"}, "no more than there is")
    live.write(f"programs: {{a: {sleep}}}}}")
    live.do("reload")
    live.wait_until(lambda: folders(live) == {"a.2"}, "one is left")
    assert live.end() == 0
    assert cgroups.homes_of(live.instance) == []


def test_a_start_that_fails_leaves_no_folder(daemon: Make) -> None:
    live = daemon("programs: {w: {command: [/no/such/command], restart: never}, a: {command: [sleep, '1000'], start_seconds: 0}}")
    live.wait_for("w", "FATAL")
    live.wait_until(lambda: folders(live) == {"a.1"}, "one is left")


@pytest.mark.parametrize("replaced", ["killed", "re-executed"])
def test_a_successor_knows_what_hides(daemon: Make, replaced: str) -> None:
    live = daemon(f"programs: {{w: {{command: {HIDING}, start_seconds: 0}}}}")
    pid, main = hidden(live), live.wait_for("w", "RUNNING")["pid"]
    if replaced == "killed":
        live.kill()
        live.start()
    else:
        live.do("reexec")
    assert live.wait_for("w", "RUNNING")["pid"] == main
    assert folders(live) == {"w.1"}
    live.do("stop", "w")
    assert not alive(pid)
    assert live.end() == 0
    assert cgroups.homes_of(live.instance) == []


@pytest.mark.parametrize("state", ["kept", "lost"])
def test_what_hid_from_a_dead_daemon_is_gone_before_the_next_run(daemon: Make, state: str) -> None:
    live = daemon(f"programs: {{w: {{command: {HIDING}, start_seconds: 0, restart: always}}}}")
    pid, main = hidden(live), live.wait_for("w", "RUNNING")["pid"]
    live.kill()
    os.kill(main, signal.SIGKILL)
    gone(main)
    assert alive(pid)
    if state == "lost":
        for name in ("state.json", "state.json.previous"):
            (live.folder / ".asupd" / name).unlink(missing_ok=True)
    live.start()
    second = hidden(live)
    assert not alive(pid)
    assert alive(second)
    live.do("stop", "w")
    assert not alive(second)


def test_a_main_process_without_its_environment_is_adopted_though_the_state_is_lost(daemon: Make) -> None:
    live = daemon("programs: {w: {command: [env, -i, sleep, '1000'], start_seconds: 0}}")
    main = live.wait_for("w", "RUNNING")["pid"]
    live.wait_until(lambda: b"sleep" in Path(f"/proc/{main}/cmdline").read_bytes()[:5], "its own environment")
    live.kill()
    for name in ("state.json", "state.json.previous"):
        (live.folder / ".asupd" / name).unlink(missing_ok=True)
    live.start()
    assert live.wait_for("w", "RUNNING")["pid"] == main


def test_cleanup_ends_what_hid_from_a_dead_daemon(daemon: Make) -> None:
    live = daemon(f"programs: {{w: {{command: {HIDING}, start_seconds: 0}}}}")
    pid = hidden(live)
    live.kill()
    assert str(pid) in live.do("cleanup")
    live.do("cleanup", "--apply", "--grace", "300ms")
    assert not alive(pid)
    assert cgroups.homes_of(live.instance) == []


# without


def is_read_only() -> bool:
    return subprocess.run([*READ_ONLY, "true"], capture_output=True, check=False).returncode == 0


def test_without_a_writable_cgroup_it_is_said_once_and_all_else_is_as_before(daemon: Make) -> None:
    if not is_read_only():
        pytest.skip("this machine gives us no mount namespace")
    programs = f"programs: {{w: {{command: {HIDING}, start_seconds: 0}}, a: {{command: [sleep, '1000'], start_seconds: 0}}}}"
    live = daemon(programs, prefix=READ_ONLY)
    pid = hidden(live)
    assert live.text().count("degraded: no cgroups (") == 1
    assert "info" in next(line for line in live.text().splitlines() if "no cgroups" in line)
    live.wait_for("a", "RUNNING")
    live.do("restart", "a")
    assert folders(live) == set()
    live.do("stop", "w")
    assert alive(pid), "this is what is lost"
    os.kill(pid, signal.SIGKILL)
    gone(pid)
    assert live.end() == 0


def test_without_cgroups_too_what_named_another_main_process_ends_with_the_run(daemon: Make) -> None:
    """The one that sent MAINPID was older than the new main process, so it was taken for a stranger's, and each stop left it alive."""
    if not is_read_only():
        pytest.skip("this machine gives us no mount namespace")
    code = "import os, sdnotify, time; time.sleep(0.1); pid = os.fork(); pid and sdnotify.SystemdNotifier().notify(f'MAINPID={pid}\\nREADY=1'); time.sleep(1000)"
    live = daemon(f"programs: {{a: {{command: [{sys.executable}, -c, {json.dumps(code)}], notify: true}}}}", prefix=READ_ONLY)
    live.wait_for("a", "RUNNING")
    assert len(live.tagged()) == 2
    live.do("restart", "a")
    live.wait_for("a", "RUNNING", run=2)
    assert {each.run for each in live.tagged()} == {2}
    live.do("stop", "a")
    assert live.tagged() == []


def test_a_run_that_was_begun_without_a_cgroup_gets_one_from_a_successor(daemon: Make, tmp_path: Path) -> None:
    """With all that descends from it and is where the daemon is."""
    if not is_read_only():
        pytest.skip("this machine gives us no mount namespace")
    elsewhere = cgroups.run_folder(os.path.join(cgroups.folder_of(), f"asupd-{os.getpid()}-elsewhere"), "x/y/1")
    script = "trap '' TERM; sleep 1000 & env -i setsid sleep 1000 & sleep 1000 & echo $! > up; wait"
    live = daemon(
        f"programs: {{w: {{command: {json.dumps(['sh', '-c', script])}, stop: {{grace_period: 300ms}}, start_seconds: 0}}}}",
        prefix=READ_ONLY,
    )
    live.wait_until(lambda: (tmp_path / "up").read_text(), "its children")
    main, away = live.wait_for("w", "RUNNING")["pid"], int((tmp_path / "up").read_text())
    live.kill()
    os.makedirs(elsewhere.path)
    elsewhere.add(away)
    live.prefix = ()
    live.start()
    assert live.wait_for("w", "RUNNING")["pid"] == main
    cgroup = cgroups.of_instance(live.instance)[f"{live.instance}/w/1"]
    pids = cgroup.pids()
    assert main in pids
    assert len(pids) == 3
    assert elsewhere.pids() == {away}, "who is elsewhere was put there"
    live.do("stop", "w")
    assert not any(map(alive, {*pids, away}))
    assert elsewhere.remove()
    os.rmdir(os.path.dirname(elsewhere.path))


def test_a_cgroup_that_is_taken_away_while_the_daemon_runs_costs_no_start(daemon: Make) -> None:
    """The folder of all is removed when it is empty, then made anew; then the kernel allows no more of them."""
    live = daemon("programs: {w: {command: [sleep, '1000'], start_seconds: 0}}")
    live.wait_for("w", "RUNNING")
    (home,) = cgroups.homes_of(live.instance)
    live.do("stop", "w")
    live.wait_until(lambda: folders(live) == set(), "it is empty")
    os.rmdir(home)
    live.do("start", "w")
    assert folders(live) == {"w.2"}
    assert "degraded" not in live.text()
    Path(home, "cgroup.max.descendants").write_text("0")
    live.do("restart", "w")
    live.do("restart", "w")
    assert live.text().count("degraded: cannot put a run into a cgroup") == 1
    Path(home, "cgroup.max.descendants").write_text("max")
    live.do("restart", "w")
    assert folders(live) == {"w.5"}
