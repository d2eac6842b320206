"""asupctl told something that cannot be done: exit codes, advice, and the words of other supervisors."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisord_async.cli import other_verbs, session
from supervisord_async.cli.group import VERBS
from tests.cli.conftest import Ended
from tests.cli.fake_daemon import FakeDaemon, RefusalError

Ctl = Callable[..., Ended]


def test_unknown_name_is_exit_code_1_with_the_nearest_name(ctl: Ctl) -> None:
    for verb in (["start", "wbe"], ["status", "wbe"], ["logs", "wbe"]):
        assert ctl(*verb) == Ended(1, "", "asupctl: no program 'wbe': did you mean 'web'?\n")


def test_a_program_that_only_the_file_has_is_told_as_such(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.answers["POST /v1/reload"] = lambda query, _: (
        {"applied": False, "lines": [], "plan": {"added": ["new"]}} if query["plan"] else {}
    )
    words = "asupctl: no program 'new' (the file has it by now: `asupctl reload` puts that in force)\n"
    for verb in (["start", "new"], ["status", "new"], ["logs", "new"]):
        assert ctl(*verb) == Ended(1, "", words)
    assert ctl("start", "old").err == "asupctl: no program 'old'\n"


def test_glob_that_fits_nothing_is_exit_code_1(ctl: Ctl) -> None:
    assert ctl("stop", "x*").code == 1


def test_no_daemon_is_exit_code_4_with_advice(tmp_path: Path, ctl: Ctl) -> None:
    ended = ctl("status", socket=tmp_path / "none.sock")
    assert ended.code == 4
    assert ended.err == f"asupctl: no daemon at {tmp_path}/none.sock: start one with `asupd -c FILE`\n"


def test_a_command_that_is_advised_can_be_copied_into_a_shell(tmp_path: Path, ctl: Ctl) -> None:
    folder = tmp_path / "my shop"
    folder.mkdir()
    (folder / "programs.yaml").touch()
    ended = ctl("-c", str(folder / "programs.yaml"), "status", socket=None)
    assert ended.err.endswith(f": start one with `asupd -c '{folder}/programs.yaml'`\n")


def test_a_daemon_that_died_is_told_as_such(tmp_path: Path, ctl: Ctl) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "left.sock"))
    ended = ctl("status", socket=tmp_path / "left.sock")
    assert ended.code == 4
    assert "start one with `asupd -c FILE`; the last one died" in ended.err
    assert "`asupctl cleanup` shows them" in ended.err


def test_what_is_no_socket_and_no_file_is_told_as_such(tmp_path: Path, ctl: Ctl) -> None:
    (tmp_path / "programs.yaml").touch()
    for path in (tmp_path, tmp_path / "programs.yaml"):
        assert ctl("status", socket=path).err == f"asupctl: no daemon at {path}: that is no socket (-c FILE names a configuration)\n"
    assert f": {tmp_path} is a folder (-c FILE names a file in it)\n" in ctl("-c", str(tmp_path), "status", socket=None).err


@pytest.mark.parametrize("words", [("status",), ("status", "--json")])
def test_status_of_a_daemon_that_hangs_is_given_up_soon_with_advice(
    tmp_path: Path, ctl: Ctl, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert session.STATUS_SECONDS <= 10
    monkeypatch.setattr(session, "STATUS_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute.sock"))
        mute.listen()
        ended = ctl(*words, socket=tmp_path / "mute.sock")
    assert (ended.code, ended.out) == (6, "")
    assert "does not answer (is it stopped, or very busy? `asupctl doctor` looks closer)" in ended.err


@pytest.mark.parametrize("verb", [["status"], ["start", "x"], ["logs", "x"], ["events"], ["why", "x"], ["history", "x"], ["reload"],
                                  ["config"], ["wait", "x", "--for", "ready"], ["reexec"], ["shutdown"], ["web"], ["scale", "x", "1"],
                                  ["signal", "HUP", "x"], ["logs", "-f", "x"], ["events", "-f"], ["top", "--json"]])  # fmt: skip
def test_every_verb_says_that_there_is_no_daemon(tmp_path: Path, ctl: Ctl, verb: list[str]) -> None:
    ended = ctl(*verb, socket=tmp_path / "none.sock")
    assert (ended.code, ended.out) == (4, "")
    assert "no daemon at" in ended.err


def test_not_allowed_is_exit_code_5(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.answers["POST /v1/shutdown"] = RefusalError(403, "cannot: you are not its user", kind="not_allowed")
    assert ctl("shutdown").code == 5


def test_misspelt_verb_is_exit_code_2_with_the_nearest_one(ctl: Ctl) -> None:
    ended = ctl("stauts")
    assert ended.code == 2
    assert "did you mean 'status'?" in ended.err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["tail", "-f", "web"], "did you mean 'asupctl logs web'?"),
        (["reread"], "did you mean 'asupctl reload --plan'?"),
        (["ps"], "did you mean 'asupctl status'?"),
        (["stat"], "did you mean 'status'?"),
        (["down"], "did you mean 'asupctl shutdown'?"),
        (["down", "web"], "did you mean 'asupctl stop web'?"),
        (["up"], "`asupd -d` starts the daemon"),
        (["help"], "did you mean 'asupctl --help'?"),
        (["help", "logs"], "did you mean 'asupctl logs --help'?"),
        (["signal", "web", "HUP"], "the signal comes first: asupctl signal HUP web"),
        (["logs", "-n", "few", "web"], "'few': expected a whole number from 0"),
        (["rollout", "restart", "deployment/web"], "did you mean 'asupctl restart web'?"),
        (["rollout", "status", "web"], "did you mean 'asupctl wait web --for ready'?"),
        (["rollout", "undo", "web"], "put the former file in its place"),
        (["describe", "pod", "web"], "did you mean 'asupctl why web'?"),
        (["get", "pods"], "did you mean 'asupctl status'?"),
        (["kill", "-HUP", "web"], "did you mean 'asupctl signal HUP web'?"),
        (["kill", "-s", "9", "web"], "did you mean 'asupctl signal 9 web'?"),
        (["quit"], "no verb 'quit': there is no shell to leave; `asupctl shutdown` stops all programs"),
        (["save"], "no verb 'save': the file is the list of programs"),
        (["once", "web"], "no verb 'once': with restart: never"),
        (["logs", "--previous", "web"], "No such option '--previous'. The last output of the run before is in `asupctl why NAME`"),
        (["restart", "--all"], "No such option '--all'. 'all' is a selector"),
        (["logs"], "Missing argument 'SELECTOR...': a name, GROUP:*, a glob such as 'web*', or all."),
        (["logs", "--folow", "web"], "Did you mean '--follow'?"),
        (["restart", "--force", "web"], "No such option '--force'. A stop ends with KILL by itself, after stop.grace_period."),
        (["signal", "-9", "web"], "No such option '-9'. A signal is sent by `asupctl signal 9 NAME`."),
        (["start", "--timeout", "5min", "web"], "'5min': expected a duration such as 5s, 500ms or 1m30s; did you mean '5m'?"),
        (["start", "--wait", "web"], "No such option '--wait'. That it does by itself"),
        (["start", "--time", "5", "web"], "No such option '--time'. Did you mean '--timeout'?"),
        (["reload", "--dry-run"], "No such option '--dry-run'. What a reload would do is `asupctl reload --plan`."),
        (["disable", "web"], "with autostart: false in the file it does not start with the daemon; `asupctl stop NAME` stops it now"),
        (["reset-failed", "web"], "`asupctl start NAME` starts over after FATAL or flapping"),
        (["list-timers"], "did you mean 'asupctl status'?"),
        (["status", "--failed"], "What is missing: `asupctl status | grep -v RUNNING`"),
        (["logs", "-20", "web"], "So many lines are -n N."),
        (["reload", "web"], "unexpected extra argument (web): it puts the whole file in force. `asupctl restart web` begins a new run"),
        (["shutdown", "web", "db"], "(web db): it stops everything, then the daemon. `asupctl stop web db` stops programs"),
        (["doctor", "web"], "Got unexpected extra argument (web)\n"),
        (["stop", "-t", "5", "web"], "No such option '-t'. How long a program may take to end is its stop.grace_period"),
        (["logs", "-t", "web"], "No such option '-t'. Lines have times"),
        (["delete", "web"], "no verb 'delete': delete it from the file, then `asupctl reload`"),
    ],
)
def test_words_of_other_supervisors_and_slips_are_told_ours(ctl: Ctl, words: list[str], meant: str) -> None:
    ended = ctl(*words)
    assert ended.code == 2
    assert meant in ended.err


def test_other_verbs_lead_to_verbs_that_exist() -> None:
    ours = {line.split()[0] for line in other_verbs._WORDS}
    assert ours <= {*VERBS, "--help"}
    theirs = [word for words in (*other_verbs._WORDS.values(), *other_verbs._INSTEAD) for word in words.split()]
    assert not set(theirs) & set(VERBS)
    assert len(theirs) == len(set(theirs))


def test_both_ways_to_name_a_daemon_are_refused(tmp_path: Path, ctl: Ctl) -> None:
    assert ctl("-c", str(tmp_path / "p.yaml"), "status").code == 2


def test_help_names_every_verb(ctl: Ctl) -> None:
    ended = ctl("--help")
    assert ended.code == 0
    assert all(f"  {name} " in ended.out for name in VERBS)
    assert "..." not in ended.out.partition("Commands:")[2].replace("12 ...", "")
    assert all(f" {code}: " in " ".join(ended.out.split()) for code in range(7))  # the exit codes, for who has no docs at hand


@pytest.mark.parametrize("name", sorted(VERBS))
def test_each_verb_has_help_and_json(ctl: Ctl, name: str) -> None:
    ended = ctl(name, "--help")
    assert ended.code == 0
    assert "--json" in ended.out
