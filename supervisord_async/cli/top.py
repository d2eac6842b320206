"""The full-screen view: a table of all processes, one program's log below it, and keys to act.

All requests are made in threads, each with its own client, so the screen never waits for the daemon; while the daemon is
away the last known table stays, and a line says so. Text from programs is never interpreted as markup, and its control
characters are spelt out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal, Protocol

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import DataTable, Footer, Input, RichLog, Static

from supervisord_async.cli.output import STATE_STYLES, shortened
from supervisord_async.cli.words import duration, printable, printable_line, reason, size
from supervisord_async.client import ProcessStatus, Result
from supervisord_async.errors import SupervisordError

REFRESH_SECONDS = 1.0
LOG_LINES = 200
#: A longer name is cut, so that the states stay on the screen; the log's title shows it in full.
NAME_COLUMNS = 32
COLUMNS = ("NAME", "STATE", "HEALTH", "PID", "CPU%", "MEMORY", "UPTIME", "RESTARTS", "DETAIL")

Action = Literal["start", "stop", "restart"]


class Asked(Protocol):
    """What the screen needs from a client."""

    def processes(self, *selectors: str) -> Sequence[ProcessStatus]: ...  # noqa: D102
    def logs(self, name: str, *, lines: int, stream: Any) -> Sequence[str]: ...  # noqa: D102
    def act(self, verb: str, selectors: Sequence[str], *, wait: bool) -> Sequence[Result]: ...  # noqa: D102


class Top(App[None]):
    """The application; ``clients`` makes a client for one request."""

    TITLE = "asupctl top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #notice { height: 1; color: $text-muted; }
    #notice.away { background: $error; color: $text; }
    #table { height: 2fr; }
    #search { display: none; }
    #search.open { display: block; }
    #title { height: 1; background: $primary-background; }
    #log { height: 1fr; min-height: 5; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "act('start')", "Start"),
        Binding("x", "act('stop')", "Stop"),
        Binding("r", "act('restart')", "Restart"),
        Binding("slash", "search", "Search"),
        Binding("f", "follow", "Follow"),
        Binding("e", "stream", "stdout/stderr"),
        Binding("escape", "close_search", "All", show=False),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, clients: Callable[[], AbstractContextManager[Asked]], *, refresh_seconds: float = REFRESH_SECONDS) -> None:
        super().__init__()
        self._clients = clients
        self._refresh_seconds = refresh_seconds
        self._processes: Sequence[ProcessStatus] = ()
        self._shown: dict[str, tuple[str, ...]] = {}
        self._drawn_log: tuple[str, tuple[str, ...]] = ("", ())
        self.needle = ""
        self.following = True
        # kept as attributes, not queried: messages may still arrive when the screen is gone
        self._notice_line = Static(id="notice", markup=False)
        self._search = Input(placeholder="part of a name", id="search")
        self._table: DataTable[Text] = DataTable(id="table", cursor_type="row", zebra_stripes=True)
        self._log_title = Static(id="title", markup=False)
        self._log_pane = RichLog(id="log", max_lines=LOG_LINES, markup=False, highlight=False, wrap=False)
        self.stream: Literal["stdout", "stderr"] = "stdout"

    # the screen's contents

    def compose(self) -> ComposeResult:
        """The screen, from top to bottom."""
        yield self._notice_line
        yield self._search
        yield Vertical(self._table, self._log_title, self._log_pane)
        yield Footer()

    def on_mount(self) -> None:
        """The table has its columns, and is refreshed from now on."""
        for title in COLUMNS:
            self._table.add_column(title, key=title)
        self._table.focus()
        self._notice("asking the daemon …")
        self.ask()
        self.set_interval(self._refresh_seconds, self.ask)

    @property
    def selected(self) -> str | None:
        """The name under the cursor; None in an empty table."""
        names = list(self._shown)
        row = self._table.cursor_row
        return names[row] if 0 <= row < len(names) else None

    def _notice(self, text: str, *, away: bool = False) -> None:
        self._notice_line.set_class(away, "away")
        self._notice_line.update(printable(text))

    # requests

    @work(thread=True, exclusive=True, group="ask", exit_on_error=False)
    def ask(self) -> None:
        """Request the present table and log, and show them."""
        name, stream = self.selected, self.stream
        try:
            with self._clients() as client:
                processes = client.processes()
                self._call(self.show_processes, processes)
                if name is not None and self.following:
                    self._call(self.show_log, name, stream, self._lines(client, name, stream))
        except SupervisordError as error:
            self._call(self._notice, str(error), away=True)

    def _lines(self, client: Asked, name: str, stream: Literal["stdout", "stderr"]) -> Sequence[str]:
        try:
            return client.logs(name, lines=LOG_LINES, stream=stream)
        except SupervisordError as error:  # such as a log that is no file: that does not mean that the daemon is away
            return [str(error)]

    def _call(self, function: Callable[..., object], *arguments: Any, **named: Any) -> None:
        """Call ``function`` in the screen's own thread, unless the screen is gone."""
        if self.is_running:
            self.call_from_thread(function, *arguments, **named)

    def show_processes(self, processes: Sequence[ProcessStatus]) -> None:
        """The table shows those of ``processes`` that match the search; only cells that changed are drawn."""
        self._processes = processes
        rows = {one.name: _row(one) for one in processes if self.needle.lower() in one.name.lower()}
        table = self._table
        if list(rows) != list(self._shown):
            before = self.selected
            table.clear()
            for name, row in rows.items():
                table.add_row(*(_cell(text) for text in row), key=name)
            if before in rows:
                table.move_cursor(row=list(rows).index(before))
        else:
            for name, row in rows.items():
                for column, text, old in zip(COLUMNS, row, self._shown[name], strict=True):
                    if text != old:
                        table.update_cell(name, column, _cell(text))
        self._shown = rows
        self._say_title()
        running = sum(one.state == "RUNNING" for one in processes)
        hidden = len(processes) - len(rows)
        self._notice(f"{running} of {len(processes)} running" + (f"; {hidden} hidden by '{self.needle}'" if hidden else ""))

    def show_log(self, name: str, stream: str, lines: Sequence[str]) -> None:
        """The log's pane shows these lines, unless ``name`` is no longer selected."""
        if name != self.selected or stream != self.stream:
            return
        self._say_title()
        known = (f"{name} {stream}", tuple(lines))
        if known == self._drawn_log:
            return
        self._drawn_log = known
        self._log_pane.clear()
        for line in lines:
            self._log_pane.write(Text(printable_line(line)))

    def _say_title(self) -> None:
        mode = "following" if self.following else "held: f follows"
        detail = self._shown[self.selected][-1] if self.selected is not None else ""  # a narrow screen cuts the table's last column
        self._log_title.update(f" {printable(self.selected or '')} {self.stream} ({mode})  {printable(detail)}")

    # keys

    def on_data_table_row_highlighted(self, _: DataTable.RowHighlighted) -> None:
        """Another program is under the cursor: its log is requested at once."""
        self._say_title()
        self.ask()

    def action_act(self, verb: Action) -> None:
        """The command is sent for the program under the cursor; the table shows its effect."""
        if (name := self.selected) is not None:
            self.tell(verb, name)

    @work(thread=True, group="act", exit_on_error=False)
    def tell(self, verb: Action, name: str) -> None:
        """The daemon has accepted the command, or the screen says why not."""
        try:
            with self._clients() as client:
                results = client.act(verb, (name,), wait=False)
        except SupervisordError as error:
            self._call(self.notify, printable(str(error)), severity="error", markup=False)
            return
        for result in results:
            severity = "information" if result.ok else "error"
            self._call(self.notify, printable(f"{verb} {result.name}: {result.message}"), severity=severity, markup=False)
        self._call(self.ask)

    def action_search(self) -> None:
        """The search field is open."""
        self._search.add_class("open")
        self._search.focus()

    def action_close_search(self) -> None:
        """All processes are shown again."""
        self._search.value = ""
        self._search.remove_class("open")
        self._table.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Only names that contain the text are shown."""
        self.needle = event.value
        self.show_processes(self._processes)

    def on_input_submitted(self, _: Input.Submitted) -> None:
        """The table has the keyboard again; the search stays."""
        self._table.focus()

    def action_follow(self) -> None:
        """The log is followed, or no longer followed."""
        self.following = not self.following
        self._say_title()

    def action_stream(self) -> None:
        """The other stream's log is shown."""
        self.stream = "stderr" if self.stream == "stdout" else "stdout"
        self._say_title()
        self.ask()


def _row(one: ProcessStatus) -> tuple[str, ...]:
    return (
        shortened(printable(one.name), NAME_COLUMNS),
        one.state,
        "-" if one.health == "none" else one.health,
        str(one.pid or "-"),
        f"{one.cpu_percent:.1f}" if one.cpu_percent is not None else "-",
        size(one.memory_bytes) or "-",
        duration(one.uptime_seconds) or "-",
        str(one.restarts),
        reason(one),
    )


def _cell(text: str) -> Text:
    style = STATE_STYLES.get(text, "")
    if os.environ.get("NO_COLOR"):  # shown in grey, red would be nearly as dark as the background
        style = "bold" if style == "red" else ""
    return Text(printable(text), style=style)
