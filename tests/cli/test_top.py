"""The full-screen view, driven by textual's pilot, on a client that is none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any, Self

import pytest
from textual.widgets import DataTable, Input, RichLog, Static

from supervisord_async.cli.top import Top
from supervisord_async.client import ProcessStatus, Result
from supervisord_async.errors import FailedError, NoDaemonError
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    """textual runs on the stock loop."""
    return ("asyncio", {"loop_factory": asyncio.new_event_loop})


class ScriptedClient:
    """Answers from lists; remembers what it was told."""

    def __init__(self) -> None:
        self.states = {"web": "RUNNING", "db": "FATAL", "[b]odd\x1b": "STOPPED"}
        self.lines = {"web": ["hello [red]not markup[/red]", "\x1b[2Jclear"], "db": ["db says"]}
        self.words: dict[str, str] = {}
        self.told: list[tuple[str, str, bool]] = []
        self.away = False
        self.refusing = False
        self.streams: set[str] = set()
        self.threads: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def processes(self, *_: str) -> Sequence[ProcessStatus]:
        self.threads.add(threading.get_ident())
        if self.away:
            raise NoDaemonError("no daemon at /x")
        told = {"cpu_percent": 1.5, "memory_bytes": 2048}
        return [ProcessStatus(name=name, state=state, description=self.words.get(name, ""), **told) for name, state in self.states.items()]

    def logs(self, name: str, *, lines: int, stream: str) -> Sequence[str]:
        self.streams.add(stream)
        if name not in self.lines:
            raise FailedError(f"cannot read {name}: it is not kept in a file")
        return self.lines[name][-lines:]

    def act(self, verb: str, selectors: Sequence[str], *, wait: bool) -> Sequence[Result]:
        if self.refusing:
            raise FailedError("cannot: the daemon is shutting down")
        self.told += [(verb, name, wait) for name in selectors]
        return [Result(name=name, ok=True, message="accepted") for name in selectors]


@pytest.fixture
def client() -> ScriptedClient:
    return ScriptedClient()


@pytest.fixture
def app(client: ScriptedClient) -> Top:
    return Top(lambda: client, refresh_seconds=0.05)


def cells(app: Top) -> list[list[str]]:
    table = app.query_one("#table", DataTable)
    return [[cell.plain for cell in table.get_row_at(row)] for row in range(table.row_count)]


def log(app: Top) -> str:
    return "\n".join(line.text.rstrip() for line in app.query_one("#log", RichLog).lines)


def notice(app: Top) -> str:
    return str(app.query_one("#notice", Static).render())


async def test_top_shows_the_table_and_the_log_of_the_selected(app: Top, client: ScriptedClient) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await wait_until(lambda: len(cells(app)) == 3)
        assert cells(app)[0][:6] == ["web", "RUNNING", "-", "-", "1.5", "2.0KiB"]
        assert cells(app)[2][0] == "[b]odd\\x1b"
        assert "1 of 3 running" in notice(app)
        await wait_until(lambda: "hello [red]not markup[/red]\n\\x1b[2Jclear" in log(app))
        await pilot.press("down")
        await wait_until(lambda: log(app) == "db says")
        client.lines["db"].append("and more")
        await wait_until(lambda: log(app) == "db says\nand more")
        await pilot.press("down")
        await wait_until(lambda: "it is not kept in a file" in log(app))
        assert threading.get_ident() not in client.threads


async def test_top_without_colours_greys_no_state_out(app: Top, client: ScriptedClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    client.states["db"] = "FATAL"
    async with app.run_test(size=(120, 40)):
        await wait_until(lambda: len(cells(app)) == 3)
        styles = {cell.plain: cell.style for row in range(3) for cell in app.query_one("#table", DataTable).get_row_at(row)}
        assert (styles["FATAL"], styles["RUNNING"]) == ("bold", "")


async def test_top_shows_changes_and_keeps_the_cursor(app: Top, client: ScriptedClient) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await wait_until(lambda: len(cells(app)) == 3)
        await pilot.press("down")
        client.states["db"] = "RUNNING"
        await wait_until(lambda: cells(app)[1][1] == "RUNNING")
        client.states = {"new": "STARTING", **client.states}
        await wait_until(lambda: len(cells(app)) == 4)
        assert app.selected == "db"


async def test_top_says_all_of_the_detail_that_a_narrow_table_cuts(app: Top, client: ScriptedClient) -> None:
    client.words = {"web": "no heartbeat for 3.0 s"}
    async with app.run_test(size=(60, 24)):
        await wait_until(lambda: "web stdout (following)  no heartbeat for 3.0 s" in str(app.query_one("#title", Static).render()))
        client.words = {"web": "run 2"}
        await wait_until(lambda: str(app.query_one("#title", Static).render()).endswith("(following)  run 2"))


async def test_top_cuts_a_long_name_and_keeps_its_whole_in_the_log_title(app: Top, client: ScriptedClient) -> None:
    name = "n" * 70
    client.states = {name: "RUNNING"}
    async with app.run_test(size=(80, 24)):
        await wait_until(lambda: [row[0] for row in cells(app)] == ["n" * 31 + "\N{HORIZONTAL ELLIPSIS}"])
        assert app.selected == name
        await wait_until(lambda: name in str(app.query_one("#title", Static).render()))


@pytest.mark.parametrize(("key", "verb"), [("s", "start"), ("x", "stop"), ("r", "restart")])
async def test_top_keys_tell_the_daemon_without_waiting(app: Top, client: ScriptedClient, key: str, verb: str) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await wait_until(lambda: len(cells(app)) == 3)
        await pilot.press("down", key)
        await wait_until(lambda: client.told == [(verb, "db", False)])


async def test_top_says_why_an_action_was_refused(app: Top, client: ScriptedClient) -> None:
    client.refusing = True
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await wait_until(lambda: len(cells(app)) == 3)
        await pilot.press("s")
        await wait_until(lambda: any("shutting down" in one.message for one in app._notifications))


async def test_top_search_hides_and_shows(app: Top) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await wait_until(lambda: len(cells(app)) == 3)
        await pilot.press("slash", "d", "b", "enter")
        await wait_until(lambda: [row[0] for row in cells(app)] == ["db"])
        assert "2 hidden by 'db'" in notice(app)
        assert app.focused is app.query_one("#table")
        await pilot.press("escape")
        await wait_until(lambda: len(cells(app)) == 3)
        assert app.query_one("#search", Input).value == ""


async def test_top_holds_the_log_and_follows_again(app: Top, client: ScriptedClient) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await wait_until(lambda: "hello" in log(app))
        await pilot.press("f")
        client.lines["web"].append("later")
        client.states["web"] = "FATAL"
        await wait_until(lambda: cells(app)[0][1] == "FATAL")
        assert "later" not in log(app)
        await pilot.press("f")
        await wait_until(lambda: "later" in log(app))


async def test_top_shows_the_other_stream(app: Top, client: ScriptedClient) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await wait_until(lambda: "stdout" in client.streams)
        await pilot.press("e")
        await wait_until(lambda: "stderr" in client.streams)


async def test_top_outlives_the_daemon(app: Top, client: ScriptedClient) -> None:
    async with app.run_test(size=(120, 40)):
        await wait_until(lambda: len(cells(app)) == 3)
        client.away = True
        await wait_until(lambda: "no daemon at /x" in notice(app))
        assert len(cells(app)) == 3
        client.away = False
        await wait_until(lambda: "1 of 3 running" in notice(app))
