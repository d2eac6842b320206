"""Words, tables and colours; what differs on a terminal is shown on a real one (a pty)."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_async.cli.output import table
from supervisord_async.cli.progress import awaited_words
from supervisord_async.cli.words import duration, exit_words, local_time, printable, printable_line, reason, seconds_until, size
from supervisord_async.client import ProcessStatus
from tests.cli.conftest import Ended
from tests.cli.fake_daemon import FakeDaemon, process
from tests.waiting import wait_until_sync

Spawn = Callable[..., "subprocess.Popen[bytes]"]
Ctl = Callable[..., Ended]


@given(st.text())
def test_printable_text_is_one_line_without_controls(text: str) -> None:
    found = printable(text)
    assert all(ord(char) >= 0x20 and not 0x7F <= ord(char) < 0xA0 for char in found)
    assert found.splitlines() in ([], [found])


def test_printable_line_keeps_tabs_and_spells_out_the_rest() -> None:
    assert printable_line("a\tb\x1b[0m\udcff\u00e9") == "a\tb\\x1b[0m\\xff\u00e9"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, ""), (0.04, "0.0s"), (9.94, "9.9s"), (59, "59s"), (185, "3m05s"), (7800, "2h10m"), (273600, "3d04h")],
)
def test_durations_in_words(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(("count", "words"), [(None, ""), (512, "512B"), (1536, "1.5KiB"), (3 * 2**30, "3.0GiB"), (2**52, "4096.0TiB")])
def test_sizes_in_words(count: int | None, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (None, ""),
        ({"code": 1}, "exited with 1"),
        ({"signal": "SIGKILL", "core": True}, "killed by SIGKILL (core dumped)"),
        ({"signal": "SIGTERM", "core": False}, "killed by SIGTERM"),
        ({"unknown": True}, "ended, exit status unknown"),
    ],
)
def test_exits_in_words(status: dict[str, object] | None, words: str) -> None:
    assert exit_words(status) == words


NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SOON = (NOW + timedelta(seconds=4)).isoformat().replace("+00:00", "Z")
LATER = (NOW + timedelta(seconds=3594)).isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"state": "RUNNING", "description": "run 3"}, "run 3"),
        ({"state": "BACKOFF", "exit_status": {"code": 1}, "cause": "exited", "next_at": SOON}, "exited with 1; next attempt in 4 s"),
        (
            {"state": "BACKOFF", "exit_status": {"code": 1}, "description": "exited with 1", "next_at": SOON, "flapping": True},
            "flapping; exited with 1; next attempt in 4 s",
        ),
        (
            {"state": "RUNNING", "cause": "config_changed", "description": "configuration changed: command"},
            "configuration changed: command",
        ),
        ({"state": "RUNNING", "cause": "file_changed", "description": "src/app.py changed"}, "src/app.py changed"),
        ({"state": "RUNNING", "cause": "file_changed", "description": "the shop"}, "file changed; the shop"),
        ({"state": "RUNNING", "cause": "heartbeat_missed", "description": "the shop"}, "heartbeat missed; the shop"),
        ({"state": "STOPPING", "cause": "operator", "next_at": SOON}, "KILL in 4 s"),
        (
            {"state": "BACKOFF", "cause": "spawn_failed", "description": "exec: web: No such file or directory", "next_at": SOON},
            "exec: web: No such file or directory; spawn failed; next attempt in 4 s",
        ),
        (
            {
                "state": "BACKOFF",
                "flapping": True,
                "cause": "heartbeat_missed",
                "exit_status": {"signal": "SIGTERM"},
                "description": "no heartbeat for 3.0 s",
                "next_at": SOON,
            },
            "flapping; no heartbeat for 3.0 s; killed by SIGTERM; heartbeat missed; next attempt in 4 s",
        ),
        ({"state": "BACKOFF", "cause": "exited", "next_at": LATER}, "next attempt in 59m54s"),
        (
            {"state": "BACKOFF", "cause": "exited", "next_at": (NOW + timedelta(seconds=0.3)).isoformat()},
            "next attempt in 0.3 s",
        ),
        (
            {"state": "FATAL", "cause": "restart_limit", "exit_status": {"signal": "SIGSEGV", "core": True}},
            "killed by SIGSEGV (core dumped)",
        ),
        (
            {
                "state": "FATAL",
                "cause": "restart_limit",
                "exit_status": {"code": 7},
                "description": "restart limit of 3 reached; last: exited with 7",
            },
            "exited with 7; restart limit of 3 reached",
        ),
        (
            {
                "state": "FATAL",
                "cause": "restart_limit",
                "description": "restart limit of 3 reached; last: user: no user named 'x'",
                "next_at": SOON,
            },
            "user: no user named 'x'; restart limit of 3 reached; next attempt in 4 s",
        ),
        ({"state": "STOPPED", "cause": "operator", "exit_status": {"code": 0}}, ""),
    ],
)
def test_reasons_in_words(fields: dict[str, object], words: str) -> None:
    assert reason(ProcessStatus(name="web", **fields), NOW) == words  # type: ignore[arg-type]


def test_next_run_of_today_is_told_without_its_date() -> None:
    late_today = NOW.astimezone().replace(hour=23, minute=59, second=58)
    process = ProcessStatus(name="job", state="STOPPED", next_at=late_today.isoformat())
    assert reason(process, NOW) == "next run at 23:59:58"
    another_day = ProcessStatus(name="job", state="STOPPED", next_at=(late_today + timedelta(days=1)).isoformat())
    assert reason(another_day, NOW) == f"next run at {local_time(another_day.next_at)}"


def test_times_that_cannot_be_read_are_none_or_as_they_are() -> None:
    assert seconds_until("soon") is None
    assert seconds_until(None) is None
    assert seconds_until("2001-01-01T00:00:00") == 0
    assert local_time("yesterday") == "yesterday"
    assert local_time(None) == ""


def test_what_is_awaited_in_words() -> None:
    def one(name: str, state: str, **more: str) -> ProcessStatus:
        return ProcessStatus(name=name, state=state, **more)  # type: ignore[arg-type]

    far = (datetime.now(UTC) + timedelta(hours=3)).isoformat()
    assert awaited_words([one("web", "RUNNING")], "RUNNING") == ""
    words = awaited_words([one("web", "STOPPING", next_at=far), one("db", "RUNNING"), one("x", "STOPPED")], "STOPPED")
    assert words.startswith("waiting for web: STOPPING, KILL in 10")
    assert words.endswith("; db: RUNNING")
    assert awaited_words([one(str(number), "STARTING") for number in range(6)], "RUNNING").endswith("and 2 more")


def test_table_of_wide_characters_stays_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    table(("A", "B"), [("\u65e5\u672c", "x"), ("abcd", "y"), ("e\u0301", "z")])
    assert capsys.readouterr().out == "A     B\n\u65e5\u672c  x\nabcd  y\ne\u0301     z\n"


@contextmanager
def terminal(columns: int) -> Iterator[tuple[int, int]]:
    """Both ends of a terminal of that width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


def read_while_alive(ours: int, child: subprocess.Popen[bytes]) -> str:
    """Everything that the child wrote on the terminal."""
    assert child.wait(timeout=20) is not None
    os.set_blocking(ours, False)
    data = b""
    try:
        while block := os.read(ours, 65536):
            data += block
    except BlockingIOError:
        pass
    return data.decode()


def test_status_on_a_terminal_is_coloured_and_fits(daemon: FakeDaemon, spawn_ctl: Spawn) -> None:
    daemon.add(process("job", "FATAL", description="long " * 50))
    with terminal(60) as (ours, theirs):
        text = read_while_alive(ours, spawn_ctl("status", stdout=theirs))
    assert "\x1b[32mRUNNING\x1b[0m" in text
    plain = text.replace("\x1b[0m", "")
    for code in ("1", "2", "31", "32"):
        plain = plain.replace(f"\x1b[{code}m", "")
    assert "\x1b" not in plain
    assert max(len(line) for line in plain.splitlines()) <= 60
    assert "\N{HORIZONTAL ELLIPSIS}" in plain


def test_a_long_name_leaves_room_for_the_cause_in_80_columns(daemon: FakeDaemon, spawn_ctl: Spawn) -> None:
    daemon.add(process("n" * 70, "BACKOFF", description="no such luck at all, for once"))
    with terminal(80) as (ours, theirs):
        text = read_while_alive(ours, spawn_ctl("status", stdout=theirs, env={**os.environ, "NO_COLOR": "1"}))
    row = text.splitlines()[-1]
    assert len(row) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" in row.split()[0]
    assert row.split()[1] == "BACKOFF"
    assert "no such luck" in row


@pytest.mark.parametrize("verb", ["why web", "events"])
def test_long_sentences_are_broken_between_words_on_a_terminal(daemon: FakeDaemon, spawn_ctl: Spawn, ctl: Ctl, verb: str) -> None:
    sentence = " ".join(f"no-such-{number}" for number in range(30))
    path = "/srv/" + "x" * 90
    daemon.answers["GET /v1/processes/web/why"] = {"lines": [f"web: FATAL, because {sentence}", f"  {path}", "  short"]}
    daemon.event(type="state", name="web", to="FATAL", message=sentence, **{"from": "STARTING"})
    with terminal(80) as (ours, theirs):
        lines = read_while_alive(ours, spawn_ctl(*verb.split(), stdout=theirs, env={**os.environ, "NO_COLOR": "1"})).splitlines()
    told = [line for line in lines if "no-such" in line]
    assert len(told) > 3
    assert max(map(len, told)) <= 80
    assert " ".join(line.strip() for line in told).endswith(sentence)
    assert all(line.startswith("  ") for line in told[1:])
    if verb == "why web":
        assert lines[-2:] == [f"  {path}", "  short"]
    assert sentence in ctl(*verb.split()).out


@pytest.mark.parametrize("verb", ["restart", "start"])
def test_who_restarts_on_a_terminal_is_told_of_settings_that_only_a_reload_reads(
    daemon: FakeDaemon, spawn_ctl: Spawn, ctl: Ctl, verb: str
) -> None:
    changed = [{"program": "web", "keys": ["environment"]}, {"program": "db", "keys": ["command"]}]
    daemon.answers["POST /v1/reload"] = {"applied": False, "lines": [], "plan": {"changed": changed}, "results": []}
    with terminal(200) as (ours, theirs):
        text = read_while_alive(ours, spawn_ctl(verb, "web", stderr=theirs, stdout=subprocess.DEVNULL))
    assert "web has other settings in the file by now (environment): `asupctl reload` puts them in force" in text
    assert "db" not in text
    assert all(query["plan"] == "true" for query, _ in daemon.asked("POST", "/v1/reload"))
    assert ctl(verb, "web").err == ""
    daemon.answers["POST /v1/reload"] = {"lines": []}  # of a daemon that says less
    with terminal(200) as (ours, theirs):
        child = spawn_ctl(verb, "web", stderr=theirs, stdout=subprocess.DEVNULL)
        assert "other settings" not in read_while_alive(ours, child)
    assert child.returncode == 0


def test_ctrl_c_ends_the_waiting_and_says_that_the_daemon_goes_on(daemon: FakeDaemon, spawn_ctl: Spawn) -> None:
    answered = threading.Event()
    daemon.answers["POST /v1/processes/web/stop"] = lambda *_: answered.wait(20) and {"results": []}
    with terminal(80) as (ours, theirs):
        child = spawn_ctl("stop", "web", stderr=theirs)
        said = b""
        while b"waiting for web: RUNNING" not in said:
            assert select.select([ours], [], [], 20)[0]
            said += os.read(ours, 65536)
        child.send_signal(signal.SIGINT)
        assert read_while_alive(ours, child).endswith("\x1b[Kno longer waiting; the daemon goes on with it\r\n")
    answered.set()
    assert child.returncode == 130


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_where_it_is_not_wanted(daemon: FakeDaemon, spawn_ctl: Spawn, setting: dict[str, str]) -> None:
    with terminal(100) as (ours, theirs):
        text = read_while_alive(ours, spawn_ctl("status", stdout=theirs, env={**os.environ, **setting}))
    assert "RUNNING" in text
    assert "\x1b" not in text


def test_logs_on_a_terminal_hold_no_control_characters(daemon: FakeDaemon, spawn_ctl: Spawn) -> None:
    daemon.log("web", b"\x1b[31mred\x1b[0m \x1b]0;title\x07 \xff end")
    with terminal(100) as (ours, theirs):
        text = read_while_alive(ours, spawn_ctl("logs", "web", stdout=theirs))
    assert text == "red \\x1b]0;title\\x07 \\xff end\r\n"


def test_json_on_a_terminal_is_readable(daemon: FakeDaemon, spawn_ctl: Spawn) -> None:
    with terminal(100) as (ours, theirs):
        text = read_while_alive(ours, spawn_ctl("status", "--json", stdout=theirs))
    assert text.startswith("[\r\n  {\r\n")


def test_progress_on_a_terminal_says_what_is_awaited(daemon: FakeDaemon, spawn_ctl: Spawn) -> None:
    daemon.add(process("slow", "STOPPING", next_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat()))

    def answer_when_seen(*_: object) -> dict[str, object]:
        with daemon.news:
            daemon.news.wait_for(lambda: len(daemon.asked("GET", "/v1/processes")) >= 2, timeout=20)
        return {"results": [{"name": "slow", "ok": True, "message": "stopped"}]}

    daemon.answers["POST /v1/processes/slow/stop"] = answer_when_seen
    with terminal(100) as (ours, theirs):
        child = spawn_ctl("stop", "slow", stderr=theirs)
        text = read_while_alive(ours, child)
        assert child.stdout is not None
        assert child.stdout.read() == b"slow: stopped\n"
    assert "waiting for slow: STOPPING, KILL in 3" in text
    assert text.endswith("\r\x1b[K")
    assert child.returncode == 0


def test_progress_of_a_shutdown_says_what_is_awaited(daemon: FakeDaemon, spawn_ctl: Spawn) -> None:
    daemon.add(process("slow", "STOPPING"), process("web", "STOPPED"))
    with terminal(100) as (ours, theirs):
        child = spawn_ctl("shutdown", stderr=theirs)
        wait_until_sync(lambda: daemon.asked("GET", "/v1/processes"))
        daemon.stop()
        text = read_while_alive(ours, child)
    assert "waiting for slow: STOPPING" in text
    assert "web" not in text
    assert text.endswith("\r\x1b[K")
    assert child.returncode == 0


def test_progress_keeps_the_error_and_its_exit_code(daemon: FakeDaemon, spawn_ctl: Spawn) -> None:
    with terminal(100) as (ours, theirs):
        child = spawn_ctl("stop", "wbe", stderr=theirs)
        text = read_while_alive(ours, child)
    assert "did you mean 'web'?" in text
    assert child.returncode == 1
