"""The daemon is killed, replaced, lied to; no program is lost, doubled or silenced."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from supervisord_async.core.state import State
from supervisord_async.supervise.recovery import persist
from supervisord_async.supervise.runs.run_spec import instance_of
from tests.daemons import LiveDaemon, alive, unbroken
from tests.real.settled import PROGRAMS, SLEEPER, check_log, check_nothing_lost, settle

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real


def test_a_killed_daemons_programs_are_adopted(daemon: Make) -> None:
    live = daemon(PROGRAMS)
    pids = settle(live)
    for _ in range(3):
        live.kill()
        assert all(map(alive, pids.values()))
        live.start()
        check_nothing_lost(live, pids, "adopted")
        check_log(live)
    assert live.end() == 0
    assert live.tagged() == []


@pytest.mark.parametrize("damage", ["removed", "garbage", "all of run_dir"])
def test_adoption_needs_no_state_file(daemon: Make, damage: str) -> None:
    live = daemon(PROGRAMS)
    pids = settle(live)
    live.kill()
    run_dir = live.folder / ".asupd"
    if damage == "all of run_dir":
        shutil.rmtree(run_dir)
    for name in ("state.json", "state.json.previous"):
        if damage == "removed":
            (run_dir / name).unlink(missing_ok=True)
        elif damage == "garbage":
            (run_dir / name).write_bytes(b"\0garbage" * 100)
    live.start()
    for name, pid in pids.items():
        assert live.wait_for(name, "RUNNING")["pid"] == pid
    again = live.wait_for("stopped", "RUNNING")["pid"]  # nobody is left who knows of the stop
    living = {*pids.values(), again}
    # One that is just executing its program shows no environment, and so no tag; "flaky" lives for a moment.
    live.wait_until(lambda: {process.identity.pid for process in live.tagged()} == living, "each lives, once, and nobody else")


def test_without_a_state_who_left_the_session_of_a_run_is_not_taken_for_its_main_process(daemon: Make) -> None:
    live = daemon('programs: {web: {command: [sh, -c, "setsid sleep 1001 & setsid sleep 1002 & exec sleep 1000"]}}')
    pid = live.wait_for("web", "RUNNING")["pid"]
    live.wait_until(lambda: sum(each.is_leader for each in live.tagged()) == 3, "its descendants have left")
    live.kill()
    for name in ("state.json", "state.json.previous"):
        (live.folder / ".asupd" / name).unlink(missing_ok=True)
    live.start()
    live.wait_for("web", "RUNNING", pid=pid)
    assert len(live.tagged()) == 3


def test_what_a_program_says_once_it_need_not_say_again_to_a_successor(daemon: Make) -> None:
    live = daemon('programs: {web: {command: [sh, -c, "echo ready; exec sleep 1000"], readiness: {log: ready, interval: 50ms}}}')
    pid = live.wait_for("web", "RUNNING")["pid"]
    run_dir = str(live.folder / ".asupd")
    live.kill()
    state, complaints = persist.load(run_dir)  # as if it had died before it could save what was said
    assert state is not None and not complaints
    starting = replace(state.processes[0].snapshot, state=State.STARTING, wanted=True, run=1, pid=None)
    persist.save(run_dir, replace(state, processes=(replace(state.processes[0], snapshot=starting),)))
    live.start()
    live.wait_for("web", "RUNNING", pid=pid, run=1)


def test_a_program_that_ended_meanwhile_is_noticed_once(daemon: Make) -> None:
    live = daemon("programs: {a: {command: [sleep, '1000'], start_seconds: 0, restart: {backoff: {initial: 10ms}}}}")
    pid = live.wait_for("a", "RUNNING")["pid"]
    live.kill()
    os.kill(pid, signal.SIGKILL)
    live.wait_until(lambda: not alive(pid), "the program is gone")
    live.start()
    status = live.wait_for("a", "RUNNING", run=2)
    assert status["restarts"] == 1
    assert status["exit_status"] in ({"unknown": True}, {"signal": "SIGKILL", "core": False})


def test_a_watched_file_that_is_saved_while_there_is_no_daemon_restarts_its_program_once(daemon: Make, tmp_path: Path) -> None:
    """It would go on with what the file said before, until the next change. A file that is older than the run restarts nothing."""
    for name in ("saved", "old"):
        (tmp_path / name).write_text("first")
    live = daemon(
        "defaults: {command: [sleep, '1000'], start_seconds: 0}\n"
        "programs: {web: {watch: {paths: [saved], debounce: 50ms}}, calm: {watch: {paths: [old], debounce: 50ms}}}"
    )
    calm = live.wait_for("calm", "RUNNING")["pid"]
    live.wait_for("web", "RUNNING")
    live.kill()
    (tmp_path / "saved").write_text("second")
    live.start()
    live.wait_for("web", "RUNNING", run=2, cause="file_changed")
    live.wait_until(lambda: '"run":2' in (tmp_path / ".asupd" / "state.json").read_text(), "that is saved")
    live.kill()
    live.start()
    live.wait_watching()
    (tmp_path / "saved").write_text("the third")
    live.wait_for("web", "RUNNING", run=3, cause="file_changed")  # what it was restarted for did not count again
    assert live.process_of("calm")["pid"] == calm


def test_a_program_removed_from_the_file_meanwhile_is_stopped(daemon: Make) -> None:
    live = daemon("programs: {a: {command: [sleep, '1000'], start_seconds: 0}, b: {command: [sleep, '1000'], start_seconds: 0}}")
    pids = [live.wait_for(name, "RUNNING")["pid"] for name in ("a", "b")]
    live.kill()
    live.write("programs: {a: {command: [sleep, '1000'], start_seconds: 0}}")
    live.start()
    assert live.wait_for("a", "RUNNING")["pid"] == pids[0]
    live.wait_until(lambda: not alive(pids[1]), "b is stopped")
    live.wait_until(lambda: list(live.status()) == ["a"], "b is forgotten")


def test_a_successor_of_another_environment_restarts_nothing(daemon: Make) -> None:
    """The first one was started by hand, say, and the next by cron."""
    live = daemon(
        "programs: {a: {command: [sleep, '1000'], start_seconds: 0, environment: {LANG: C.UTF-8}}}", environment={"LANG": "C.UTF-8"}
    )
    pid = live.wait_for("a", "RUNNING")["pid"]
    live.kill()
    live.environment |= {"LANG": "C", "MORE": "1"}
    live.start()
    live.wait_until(lambda: any(event["type"] == "adopted" for event in live.events()), "a is taken over")
    assert (live.process_of("a")["pid"], live.process_of("a")["run"]) == (pid, 1)
    live.write(live.file.read_text().replace("C.UTF-8", "POSIX"))
    live.kill()
    live.start()
    assert live.wait_for("a", "RUNNING", run=2)["cause"] == "config_changed"


@pytest.mark.parametrize("now", ["heartbeat: 20s, logs: {stdout: none}", "notify: true, logs: {stdout: none}", "logs: {stdout: a.log}"])
def test_a_successor_restarts_a_run_that_was_never_told_how_to_report(daemon: Make, now: str) -> None:
    """Else it would be ended as hung for the beats that it was not asked for, and its output would be lost."""
    text = "programs: {a: {command: [sleep, '1000'], start_seconds: 0, restart: never%s}}"
    live = daemon(text % ", logs: {stdout: none}")
    live.wait_for("a", "RUNNING")
    live.do("start", "a")  # what was answered is saved
    live.kill()
    live.write(text % f", {now}")
    live.start()
    live.wait_until(lambda: live.process_of("a")["run"] == 2, "it runs anew")
    assert live.process_of("a")["cause"] == "config_changed"


@pytest.mark.parametrize("known", ["the run before it", "nothing"])
@pytest.mark.parametrize("file", ["as at its start", "as before", "new"])
def test_a_run_that_no_saved_state_knows_goes_on_only_with_the_settings_of_the_file(daemon: Make, known: str, file: str) -> None:
    """The daemon dies amid a reload, or the state is lost; meanwhile the file is edited, perhaps back to what it was."""

    def text(value: str) -> str:
        return f"programs: {{a: {{command: [sleep, '1000'], start_seconds: 0, environment: {{VALUE: {value}}}}}}}"

    live = daemon(text("first"))
    run_dir = str(live.folder / ".asupd")
    live.wait_for("a", "RUNNING")
    live.do("start", "a")  # what was answered is saved
    former, _ = persist.load(run_dir)
    live.write(text("second"))
    live.do("reload")
    pid = live.wait_for("a", "RUNNING", run=2)["pid"]
    live.kill()
    for path in Path(run_dir).glob("state.json*"):
        path.unlink()
    if known != "nothing":
        assert former is not None and former.processes[0].snapshot.run == 1
        persist.save(run_dir, former)
    live.write(text({"as at its start": "second", "as before": "first", "new": "third"}[file]))
    live.start()
    if file == "as at its start":
        assert live.wait_for("a", "RUNNING")["pid"] == pid
        assert "while no daemon was there" not in live.text()
    else:
        assert live.wait_for("a", "RUNNING", run=3, cause="config_changed")["restarts"] == 0
        assert not alive(pid)


def test_a_folder_in_the_place_of_a_log_or_heartbeat_keeps_no_program_from_being_taken_over(daemon: Make) -> None:
    sleeps = "command: [sleep, '1000'], start_seconds: 0"
    live = daemon(
        f"programs: {{a: {{{sleeps}, logs: {{stdout: a.log}}}}, b: {{{sleeps}, heartbeat: {{file: beat, timeout: 100s}}}}, c: {{{sleeps}}}}}"
    )
    pids = {name: live.wait_for(name, "RUNNING")["pid"] for name in "abc"}
    live.kill()
    (live.folder / "a.log").unlink(missing_ok=True)
    for name in ("a.log", "beat"):
        (live.folder / name).mkdir()
    live.start()
    assert {name: live.wait_for(name, "RUNNING")["pid"] for name in "abc"} == pids
    assert live.text().count("expected the path of a file, found a folder") == 2
    unbroken(live)


def test_a_living_run_is_taken_over_although_its_user_is_unknown_by_now(daemon: Make) -> None:
    """An account that was deleted, or a directory service that is down, is a matter of the next start."""
    live = daemon("programs: {a: {command: [sleep, '1000'], start_seconds: 0}}")
    pid = live.wait_for("a", "RUNNING")["pid"]
    live.kill()
    live.write("programs: {a: {command: [sleep, '1000'], start_seconds: 0, user: no-such-user}}")
    live.start()
    assert "no-such-user" in live.wait_for("a", "BACKOFF", cause="spawn_failed")["description"]
    assert not alive(pid) and "a bug broke its supervision" not in live.text()
    assert any(event["type"] == "adopted" for event in live.events())


def test_a_run_finds_the_place_of_its_heartbeat_again(daemon: Make) -> None:
    beat = "while :; do sleep 0.05; echo $((n += 1)) > $ASUP_HEARTBEAT_FILE; done"
    live = daemon(f"programs: {{a: {{command: [sh, -c, {json.dumps(beat)}], heartbeat: 5s, start_seconds: 0}}}}")
    live.wait_for("a", "RUNNING", health="healthy")
    live.kill()
    shutil.rmtree((live.folder / ".asupd").rename(live.folder / "gone"))  # from where it beats at this moment
    live.start()
    live.wait_for("a", "RUNNING", health="healthy", run=1)


def test_a_stop_in_flight_goes_on_after_a_death(daemon: Make) -> None:
    live = daemon(
        "programs: {a: {command: [sh, -c, 'trap \"\" TERM; touch up; while :; do sleep 0.1; done'], start_seconds: 0, stop: {grace_period: 3s}}}"
    )
    live.wait_until((live.folder / "up").exists, "it ignores TERM")
    pid = live.wait_for("a", "RUNNING")["pid"]
    live.do("stop", "a", "--no-wait")
    live.wait_for("a", "STOPPING")
    live.kill()
    live.start()
    live.wait_for("a", "STOPPED")
    assert not alive(pid) and live.tagged() == []


def test_a_death_in_the_middle_of_a_shutdown_keeps_nothing_down(daemon: Make) -> None:
    """What only the daemon's own end stopped comes up with its successor, as after an end in peace; what an operator stopped does not."""
    live = daemon(
        "programs: {slow: {command: [sh, -c, 'trap \"\" TERM; touch up; while :; do sleep 0.1; done'], start_seconds: 0,"
        " stop: {grace_period: 2s}}, a: {command: [sleep, '1000'], start_seconds: 0}, down: {command: [sleep, '1000'], start_seconds: 0},"
        " manual: {command: [sleep, '1000'], start_seconds: 0, autostart: false}}"
    )
    live.wait_until((live.folder / "up").exists, "it ignores TERM")
    slow = live.wait_for("slow", "RUNNING")["pid"]
    live.do("start", "manual")
    live.do("stop", "down")
    live.send(signal.SIGTERM)
    live.wait_for("a", "STOPPED", cause="daemon_stop")
    live.wait_for("manual", "STOPPED", cause="daemon_stop")
    saved = live.folder / ".asupd" / persist.FILE_NAME
    live.wait_until(lambda: saved.read_text().count("daemon_stop") == 3, "it is saved")
    live.kill()
    live.start()
    live.wait_for("a", "RUNNING", cause="autostart")
    assert live.wait_for("slow", "RUNNING", cause="autostart")["pid"] != slow and not alive(slow)
    assert {live.process_of(name)["state"] for name in ("down", "manual")} == {"STOPPED"}


def test_what_was_answered_outlives_a_death_in_that_moment(daemon: Make) -> None:
    live = daemon("programs: {a: {command: [sleep, '1000'], start_seconds: 0}}")
    live.wait_for("a", "RUNNING")
    for _ in range(5):
        live.do("stop", "a", "--no-wait")
        live.kill()
        live.start()
        live.wait_for("a", "STOPPED")
        live.do("start", "a", "--no-wait")
        live.kill()
        live.start()
        live.wait_for("a", "RUNNING")


def test_a_replica_that_a_successor_retires_comes_back_when_it_is_wanted_again(daemon: Make) -> None:
    """The file that the successor reads does not list it; the next one does, before its stop has come to an end."""
    stubborn = "command: [sh, -c, 'trap \"\" TERM; while :; do sleep 0.1; done'], start_seconds: 0"
    listed = f"programs: {{w: {{{stubborn}, replicas: 2}}, other: {{command: [sleep, '1000'], start_seconds: 0}}}}"
    live = daemon(listed)
    former = {name: live.wait_for(name, "RUNNING")["pid"] for name in ("w:0", "w:1")}
    live.kill()
    live.write("programs: {other: {command: [sleep, '1000'], start_seconds: 0}}")
    live.start()
    for name in former:
        live.wait_for(name, "STOPPING")
    live.write(listed)
    live.send(signal.SIGHUP)
    live.wait_until(lambda: '"reload"' in live.ctl("events", "--json").stdout, "the file is read again")
    for name, pid in former.items():
        os.kill(pid, signal.SIGKILL)
        assert live.wait_for(name, "RUNNING", cause="autostart")["pid"] != pid


@pytest.mark.parametrize("by", ["death", "re-exec"])
def test_what_a_file_does_not_list_for_a_while_runs_again_when_a_successor_reads_of_it(daemon: Make, by: str) -> None:
    both = "programs:\n  a: {command: [sleep, '1000'], start_seconds: 0}\n"
    both += (
        "  b: {command: \"trap '' TERM; sleep 1000 & while :; do wait; done\", shell: true, start_seconds: 0, stop: {grace_period: 3s}}\n"
    )
    live = daemon(both)
    live.wait_for("b", "RUNNING")
    live.write("\n".join(line for line in both.splitlines() if not line.startswith("  b")) + "\n")
    live.do("reload", "--no-wait")
    live.wait_until(lambda: '"config_changed"' in (live.folder / ".asupd" / "state.json").read_text(), "what is under way is saved")
    live.write(both)
    if by == "death":
        live.kill()
        live.start()
    else:
        live.do("reexec")
    assert live.wait_for("b", "RUNNING", run=2)["cause"] == "autostart"


def test_a_stop_of_what_never_ran_survives_a_death(daemon: Make) -> None:
    live = daemon("programs: {a: {command: [sleep, '1000'], autostart: false}}")
    live.write(SLEEPER)
    live.do("reload")
    live.do("stop", "a")
    live.kill()
    live.start()
    assert (live.process_of("a")["state"], live.process_of("a")["cause"], live.tagged()) == ("STOPPED", "operator", [])


def test_after_a_clean_end_everything_begins_anew(daemon: Make) -> None:
    live = daemon(SLEEPER)
    live.do("restart", "a")
    last = max(event["id"] for event in live.events())
    assert live.end() == 0
    assert not list((live.folder / ".asupd").glob("state.json*"))
    live.start()
    live.wait_for("a", "RUNNING", run=1, cause="autostart")
    assert min(event["id"] for event in live.events() if event["data"].get("pid") == live.pid) > last


def test_numbers_of_events_rise_over_a_death_without_a_history(daemon: Make) -> None:
    live = daemon(SLEEPER)
    for _ in range(5):
        live.do("restart", "a")
    last = max(event["id"] for event in live.events())
    state = live.folder / ".asupd" / "state.json"
    live.wait_until(lambda: f'"last_record_id":{last}' in state.read_text(), "the state is saved")
    live.kill()
    for file in (live.folder / ".asupd").glob("history.db*"):
        file.unlink()
    (live.folder / ".asupd" / "history.db").mkdir()  # and there will be none
    live.start()
    assert min(event["id"] for event in live.events()) > last


def test_what_is_left_of_former_runs_is_ended_by_a_successor(daemon: Make) -> None:
    """Of a run before the living one, and of one that ended unseen; a decoy without our tag is nobody's business."""
    live = daemon(
        "programs: {a: {command: [sleep, '1000'], start_seconds: 0}, b: {command: 'setsid sleep 1000 & exec sleep 1000', shell: true, start_seconds: 0, restart: {backoff: {initial: 10ms}}}}"
    )
    live.wait_for("a", "RUNNING")
    live.do("restart", "a")
    pids = {name: live.wait_for(name, "RUNNING")["pid"] for name in ("a", "b")}
    live.wait_until(lambda: len(live.tagged()) == 3, "b has its child")
    (child,) = [process.identity.pid for process in live.tagged() if process.identity.pid not in pids.values()]
    live.kill()
    os.kill(pids["b"], signal.SIGKILL)
    live.wait_until(lambda: not alive(pids["b"]), "b ends unseen")
    environment = {**os.environ, "ASUP_TAG": f"{instance_of(str(live.folder / '.asupd'))}/a/1"}
    with subprocess.Popen(["sleep", "1000"], env=environment) as stray, subprocess.Popen(["sleep", "1000"]) as decoy:
        try:
            live.start()
            assert stray.wait(20) == -signal.SIGKILL
            assert live.wait_for("a", "RUNNING", run=2)["pid"] == pids["a"]
            live.wait_for("b", "RUNNING", run=2)
            assert not alive(child)
            assert decoy.poll() is None
        finally:
            stray.kill()
            decoy.kill()


def test_a_decoy_with_the_pid_of_the_dead_is_never_signalled(daemon: Make) -> None:
    """The saved PID belongs to a stranger now: as after a reboot of PIDs, made by editing what was saved."""
    live = daemon("programs: {a: {command: [sleep, '1000'], start_seconds: 0}}")
    pid = live.wait_for("a", "RUNNING")["pid"]
    state = live.folder / ".asupd" / "state.json"
    live.wait_until(lambda: f'"pid":{pid}' in state.read_text(), "the state is saved")
    live.kill()
    os.kill(pid, signal.SIGKILL)
    with subprocess.Popen(["sleep", "1000"]) as decoy:
        head, body = state.read_text().split("\n", 1)
        document = json.loads(body.replace(f'"pid":{pid}', f'"pid":{decoy.pid}'))
        body = json.dumps(document)
        words = head.split()
        state.write_text(f"{words[0]} {words[1]} {hashlib.sha256(body.encode()).hexdigest()}\n{body}")
        live.start()
        live.wait_for("a", "RUNNING", run=2)
        live.do("stop", "a")
        assert live.end() == 0
        assert decoy.poll() is None
        decoy.kill()


def test_a_probe_that_outlives_the_daemon_is_ended_without_a_word(daemon: Make, tmp_path: Path) -> None:
    probe = "echo $$$$ > probe.pid; sleep 1000"
    live = daemon(
        f"programs: {{s: {{command: [sleep, '1000'], start_seconds: 0, liveness: {{command: [sh, -c, {json.dumps(probe)}], timeout: 100s}}}}}}"
    )
    live.wait_until(lambda: (tmp_path / "probe.pid").read_text().strip(), "the probe runs")
    pid = live.wait_for("s", "RUNNING")["pid"]
    first = int((tmp_path / "probe.pid").read_text())
    live.kill()
    assert alive(first)
    live.start()
    live.wait_until(lambda: not alive(first), "the old probe is ended")
    assert live.wait_for("s", "RUNNING")["pid"] == pid
    assert "not in" not in live.text()


def test_orders_do_not_outlive_a_reboot(daemon: Make) -> None:
    """One that was not orderly, as when the power fails: what was stopped starts, and what was scaled is as the file says."""
    live = daemon("defaults: {command: [sleep, '1000'], start_seconds: 0}\nprograms: {a: {}, off: {}, cut: {}}")
    live.wait_for("a", "RUNNING")
    live.do("stop", "off")
    live.do("scale", "a", "2")
    live.kill()
    for process in live.tagged():
        os.kill(process.identity.pid, signal.SIGKILL)
    live.wait_until(lambda: not live.tagged(), "nothing lives")
    for name in (persist.FILE_NAME, persist.SPARE_NAME):
        file = live.folder / ".asupd" / name
        file.write_bytes(persist.encode(replace(persist.decode(file.read_bytes()), boot_id="the boot before")))
    live.start()
    assert live.wait_for("off", "RUNNING")["cause"] == "autostart"
    assert list(live.status()) == ["a", "off", "cut"]
    now, before = json.loads(live.do("history", "cut", "--json"))["runs"]
    assert (now["ended_at"], before["exit_status"]) == (None, {"unknown": True})
    assert before["ended_at"] is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_who_only_carries_a_tag_leads_no_run_of_another_user(daemon: Make) -> None:
    live = daemon("programs: {web: {command: [sleep, '1000']}, off: {command: [sleep, '1001'], autostart: false}}")
    pid = live.wait_for("web", "RUNNING")["pid"]
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sleep", "1002"]
    impostors = [
        subprocess.Popen(command, env={**os.environ, "ASUP_TAG": f"{live.instance}/{name}/99"}, start_new_session=True)
        for name in ("web", "off")
    ]
    try:
        live.wait_until(lambda: len([each for each in live.tagged() if each.run == 99 and each.uid == 65534]) == 2, "both are there")
        live.kill()
        live.start()
        assert live.wait_for("web", "RUNNING")["pid"] == pid
        assert live.process_of("off")["state"] == "STOPPED"
    finally:
        for impostor in impostors:
            impostor.kill()
            impostor.wait()
