"""asupctl logs and events: what was said and what happened, of the past and as it comes; against a fake daemon."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime

import pytest

from supervisord_async.cli.since import _moment
from supervisord_async.cli.verbs import events
from tests.cli.conftest import Ended
from tests.cli.fake_daemon import FakeDaemon, RefusalError, process
from tests.waiting import PATIENCE_SECONDS, wait_until_sync

Ctl = Callable[..., Ended]
Spawn = Callable[..., "subprocess.Popen[bytes]"]


def test_logs_of_one_are_its_bytes(daemon: FakeDaemon, spawn_ctl: Spawn) -> None:
    daemon.log("web", b"\xff raw \x1b[31mred", "two")
    out, _ = spawn_ctl("logs", "web").communicate(timeout=20)
    assert out == b"\xff raw \x1b[31mred\ntwo\n"


def test_an_empty_log_is_told_on_a_terminal_with_what_may_hold_the_output_back(
    daemon: FakeDaemon, ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.log("web")
    assert ctl("logs", "web") == Ended(0, "", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert "nothing yet" in ctl("logs", "web").err and "PYTHONUNBUFFERED" in ctl("logs", "web").err
    assert ctl("logs", "-n", "0", "web").err == ""
    daemon.log("web", "a fault", stream="stderr")
    assert ctl("logs", "web").err == "nothing on standard output yet; standard error is shown by `asupctl logs --stderr web`\n"
    daemon.log("web", "a")
    assert ctl("logs", "web") == Ended(0, "a\n", "")


def test_logs_of_several_have_prefixes(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.log("web", "a")
    daemon.log("db", "b", "c")
    assert ctl("logs", "all").out == "==> web <==\nweb | a\n==> db <==\ndb  | b\ndb  | c\n"


def test_logs_of_several_are_shown_though_one_of_them_is_not_kept(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.log("web", "a")
    daemon.answers["GET /v1/processes/db/logs"] = RefusalError(409, "cannot read stdout of db: it is not kept", kind="failed")
    words = "asupctl: cannot read stdout of db: it is not kept\n"
    assert ctl("logs", "all") == Ended(1, "==> web <==\nweb | a\n", words)
    ended = ctl("logs", "all", "--json")
    assert (ended.code, json.loads(ended.out), ended.err) == (1, [{"name": "web", "stream": "stdout", "line": "a"}], words)
    assert ctl("logs", "db") == Ended(1, "", words)


def test_logs_that_have_times_are_merged_by_them(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.log("web", "2026-11-21T12:00:00.000Z a", "no time of its own", "2026-11-21T12:00:02.000Z c")
    daemon.log("db", '{"at":"2026-11-21T12:00:01.000Z","line":"b"}')
    daemon.log_formats |= {"web": "timestamp", "db": "json"}
    out = ctl("logs", "all").out.splitlines()
    assert [line[-3:] for line in out] == ["Z a", "own", 'b"}', "Z c"]
    assert [line[:3] for line in out] == ["web", "web", "db ", "web"]
    assert [one["name"] for one in json.loads(ctl("logs", "all", "--json").out)] == ["web", "web", "db", "web"]


def test_logs_of_stderr_say_where_it_goes_with_stdout(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.log("web", "err", stream="stderr")
    assert ctl("logs", "--stderr", "web").err == ""
    daemon.shared_stderr.add("web")
    daemon.log("web", "both")
    ended = ctl("logs", "--stderr", "web")
    assert ended.out == "both\n"
    assert "standard error of web goes where standard output goes" in ended.err
    assert ended.code == 0


def test_logs_options_reach_the_daemon(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.log("web", "out")
    daemon.log("web", "err 1", "err 2", stream="stderr")
    assert ctl("logs", "-n", "1", "--stderr", "web").out == "err 2\n"
    assert ctl("logs", "--since", "2026-11-21T12:00:00+00:00", "web").out == "out\n"
    (first, _), (second, _) = daemon.asked("GET", "/v1/processes/web/logs")
    assert first == {"lines": "1", "stream": "stderr"}
    assert second["since"] == "2026-11-21T12:00:00.000Z"
    assert int(second["lines"]) > 1000


def test_logs_since_takes_a_duration(daemon: FakeDaemon, ctl: Ctl) -> None:
    assert ctl("logs", "--since", "10m", "web").code == 0
    ((query, _),) = daemon.asked("GET", "/v1/processes/web/logs")
    assert query["since"].endswith("Z")
    assert ctl("logs", "--since", "tomorrow", "web").code == 2


def test_logs_since_of_lines_without_times_say_so(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.log("web", "when?")
    ended = ctl("logs", "--since", "10m", "web")
    assert (ended.code, ended.out) == (0, "when?\n")
    assert "lines of web have no times: older ones are shown as well" in ended.err
    daemon.log_formats["web"] = "timestamp"
    assert ctl("logs", "--since", "10m", "web").err == ""
    assert ctl("logs", "web").err == ""


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("10m", "2026-11-21T12:20:00"),
        ("-10min", "2026-11-21T12:20:00"),
        ("10 min ago", "2026-11-21T12:20:00"),
        ("1 hour 30 minutes ago", "2026-11-21T11:00:00"),
        ("2days", "2026-11-19T12:30:00"),
        ("2w", "2026-11-07T12:30:00"),
        ("1 Week 2 hours ago", "2026-11-14T10:30:00"),
        ("1month", "2026-10-22T01:56:24"),
        ("1M", "2026-10-22T01:56:24"),
        ("1m", "2026-11-21T12:29:00"),
        ("now", "2026-11-21T12:30:00"),
        ("@1795000000", "2026-11-18T11:06:40Z"),
        ("1795000000.5", "2026-11-18T11:06:40.5Z"),
        ("2026-11-20 14:00 UTC", "2026-11-20T14:00:00Z"),
        ("2026-11-20 14:00 Asia/Tokyo", "2026-11-20T05:00:00Z"),
        ("2026-11-20T14:00:00.123456789+09:00", "2026-11-20T05:00:00.123456Z"),
        ("today", "2026-11-21T00:00:00"),
        ("Yesterday", "2026-11-20T00:00:00"),
        ("2:05", "2026-11-21T02:05:00"),
        ("2:05:30", "2026-11-21T02:05:30"),
        ("02:05:30", "2026-11-21T02:05:30"),
        ("2026-11-20 14:00", "2026-11-20T14:00:00"),
        ("2026-11-20T14:00:00Z", "2026-11-20T14:00:00Z"),
    ],
)
def test_a_moment_is_written_as_journalctl_takes_it(written: str, meant: str) -> None:
    now = datetime.fromisoformat("2026-11-21T12:30:00").astimezone()
    assert _moment(written, now) == datetime.fromisoformat(meant).astimezone()


@pytest.mark.parametrize(
    "written",
    [
        "",
        "-",
        "ago",
        "25:00",
        "2026-13-01",
        "soon",
        "10 parsecs",
        "99999999999d",
        "99y",
        "@",
        "2026-11-20 14:00 Nowhere",
        "2026-11-20 14:00 ../etc",
    ],
)
def test_what_is_no_moment_is_a_usage_error(ctl: Ctl, written: str) -> None:
    assert "expected a duration such as 10m, or a time such as 02:30" in ctl("logs", "--since", written, "web").err


def test_logs_json_is_one_document_or_one_object_a_line(daemon: FakeDaemon, ctl: Ctl, spawn_ctl: Spawn) -> None:
    daemon.log("web", "a", b"\xff")
    expected = [{"name": "web", "stream": "stdout", "line": line} for line in ("a", "\ufffd")]
    assert json.loads(ctl("logs", "--json", "web").out) == expected
    child = spawn_ctl("logs", "-f", "--json", "web")
    assert child.stdout is not None
    assert [json.loads(child.stdout.readline()) for _ in range(2)] == expected


def test_followed_logs_merge_and_survive_a_restart_of_the_daemon(daemon: FakeDaemon, spawn_ctl: Spawn) -> None:
    daemon.log("web", "w1")
    child = spawn_ctl("logs", "-f", "all")
    assert child.stdout is not None
    assert child.stdout.readline() == b"web | w1\n"
    daemon.log("db", "d1")
    assert child.stdout.readline() == b"db  | d1\n"
    daemon.stop()
    daemon.log("web", "w2")
    daemon.start()
    assert child.stdout.readline() == b"web | w2\n"
    daemon.log("db", "d2")
    assert child.stdout.readline() == b"db  | d2\n"


@pytest.mark.parametrize("words", [("logs", "-f", "web"), ("logs", "-f", "all"), ("events", "-f", "-n", "1")])
def test_who_follows_ends_with_the_reader_although_there_is_nothing_to_print(
    daemon: FakeDaemon, spawn_ctl: Spawn, words: tuple[str, ...]
) -> None:
    daemon.log("web", "ready")
    daemon.event(type="state", name="web", **{"from": "STARTING", "to": "RUNNING"})
    child = spawn_ctl(*words)
    assert child.stdout is not None
    assert child.stdout.readline()
    child.stdout.close()
    assert child.wait(timeout=PATIENCE_SECONDS) == 141


def test_logs_of_what_is_started_later_are_followed_too(daemon: FakeDaemon, spawn_ctl: Spawn) -> None:
    daemon.log("web", "w1")
    child = spawn_ctl("logs", "-f", "all")
    assert child.stdout is not None
    assert child.stdout.readline() == b"web | w1\n"
    wait_until_sync(lambda: any(query.get("follow") != "false" for query, _ in daemon.asked("GET", "/v1/events")))
    daemon.add(process("newcomer"))
    daemon.log("newcomer", "n1")
    for _ in range(2):  # the second start of the same is nothing new
        daemon.event(type="state", name="newcomer", **{"from": "STOPPED", "to": "STARTING"})
    assert child.stdout.readline() == b"newcomer | n1\n"
    daemon.log("web", "w2")
    assert child.stdout.readline() == b"web      | w2\n"


def test_too_many_logs_are_not_followed(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.add(*(process(f"p{number}") for number in range(100)))
    ended = ctl("logs", "-f", "all")
    assert ended.code == 2
    assert "at most 64" in ended.err


def test_events_of_the_past_in_words_and_json(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.event(type="state", name="web", **{"from": "STARTING", "to": "RUNNING"}, message="running, pid 7, run 1")
    daemon.event(type="reload", message="reloaded\x1b[2J")
    first, second = ctl("events").out.splitlines()
    assert re.split("  +", first)[1:] == ["web", "STARTING \N{RIGHTWARDS ARROW} RUNNING", "running, pid 7, run 1"]
    assert re.split("  +", second)[1:] == ["daemon", "reload", "reloaded\\x1b[2J"]
    assert first.index("running,") == second.index("reloaded")
    assert json.loads(ctl("events", "--json", "-n", "1").out) == daemon.events[-1:]


def test_events_since_a_moment_are_all_those_and_no_older_ones(daemon: FakeDaemon, ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    for hour in (10, 11, 12):
        daemon.event(type="reload", at=f"2026-11-21T{hour}:00:00.000Z", message=f"at {hour}")
    ended = ctl("events", "--since", "2026-11-21T11:00:00Z")
    assert [line.split()[-1] for line in ended.out.splitlines()] == ["11", "12"]
    assert ended.err == ""
    assert ctl("events", "--since", "1m").out == ""
    monkeypatch.setattr(events, "_MAX_EVENTS", 2)
    assert "there may be older ones" in ctl("events", "--since", "2026-11-21T09:00:00Z").err


def test_events_say_nothing_twice(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.event(type="health", name="web", **{"from": "starting", "to": "healthy"}, message="health: healthy")
    daemon.event(type="flapping", name="web", to="true", message="flapping: 5 automatic restarts")
    health, flapping = ctl("events").out.splitlines()
    assert re.split("  +", health)[1:] == ["web", "health healthy"]
    assert re.split("  +", flapping)[1:] == ["web", "flapping", "5 automatic restarts"]


def test_followed_events_are_json_lines_without_gap(daemon: FakeDaemon, spawn_ctl: Spawn) -> None:
    daemon.event(type="reload")
    daemon.event(type="reload")
    child = spawn_ctl("events", "-f", "-n", "1", "--json")
    assert child.stdout is not None
    assert json.loads(child.stdout.readline())["id"] == 2
    daemon.event(type="state", name="web")
    assert json.loads(child.stdout.readline())["id"] == 3
