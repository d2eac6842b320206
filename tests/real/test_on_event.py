"""on_event of a real daemon: commands, and a webhook over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.daemons import LiveDaemon

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real

BROKEN = "{command: [sh, -c, 'exit 3'], restart: {max_restarts: 1, backoff: {initial: 10ms}}}"


class Webhook:
    """An HTTP server that refuses its first ``refusals`` requests."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.refusals = 0
        hook = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                refuse, hook.refusals = hook.refusals > 0, max(0, hook.refusals - 1)
                if not refuse:
                    hook.bodies.append(json.loads(body))
                    hook.headers.append({key.lower(): value for key, value in self.headers.items()})
                self.send_response(503 if refuse else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://user:word@127.0.0.1:{self.server.server_port}/hook"


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    hook = Webhook()
    thread = Thread(target=hook.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield hook
    hook.server.shutdown()
    thread.join()
    hook.server.server_close()


def test_a_webhook_is_told_and_asked_again_if_it_refuses(daemon: Make, webhook: Webhook) -> None:
    webhook.refusals = 1
    live = daemon(f"daemon: {{on_event: [{{events: [restart_limit], url: '{webhook.url}'}}]}}\nprograms: {{web: {BROKEN}}}")
    live.wait_until(lambda: webhook.bodies, "the webhook was told")
    told = webhook.bodies[0]
    assert (told["event"], told["name"], told["to"], told["cause"], told["exit_status"]) == (
        "restart_limit",
        "web",
        "FATAL",
        "restart_limit",
        {"code": 3},
    )
    assert webhook.headers[0]["content-type"] == "application/json" and webhook.headers[0]["authorization"].startswith("Basic ")


def test_a_command_gets_the_event_on_its_stdin(daemon: Make, tmp_path: Path) -> None:
    live = daemon(f"""
daemon: {{on_event: [{{events: [fatal], command: [sh, -c, 'cat > draft.json; echo $ASUP_EVENT $ASUP_NAME > words; mv draft.json told.json']}}]}}
programs: {{web: {BROKEN}, fine: {{command: [sleep, "1000"], start_seconds: 0}}}}
""")
    live.wait_until((tmp_path / "told.json").exists, "the command has run")
    told = (tmp_path / "told.json").read_text()
    assert json.loads(told)["event"] == "fatal" and told.count("\n") == 1 and told.endswith("\n")
    assert (tmp_path / "words").read_text() == "fatal web\n"


def test_a_command_that_fails_is_told_with_its_last_words(daemon: Make) -> None:
    command = "[sh, -c, 'echo no such list >&2; exit 3']"
    live = daemon(f"daemon: {{on_event: [{{events: [fatal], command: {command}}}]}}\nprograms: {{web: {BROKEN}}}")
    live.wait_until(lambda: "on_event sh: exited with 3: no such list; further failures" in live.text(), "it is told")


def test_a_job_that_fails_and_is_not_started_again_is_told_and_one_that_ends_well_is_not(daemon: Make, tmp_path: Path) -> None:
    leaves = "'sleep 1000 & exit 3'"  # what is left of it has to go first, so its end is told before it is EXITED
    live = daemon(f"""
daemon: {{on_event: [{{events: [fatal, failed], command: [sh, -c, 'cat >> told']}}]}}
defaults: {{restart: never, autostart: false}}
programs: {{good: {{command: "true"}}, backup: {{command: [sh, -c, 'exit 3']}}, leaves: {{command: [sh, -c, {leaves}]}}}}
""")
    for name in ("good", "backup", "leaves"):
        live.ctl("start", name)

    def told() -> list[dict[str, Any]]:
        return [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()] if (tmp_path / "told").exists() else []

    live.wait_until(lambda: len(told()) == 2, "two failures are told")
    assert [(one["event"], one["name"], one["to"], one["exit_status"]) for one in told()] == [
        ("failed", "backup", "EXITED", {"code": 3}),
        ("failed", "leaves", "EXITED", {"code": 3}),
    ]
    assert "exited with 3; not restarted" in told()[0]["message"] and re.search(
        r"warning backup .*exited with 3; not restarted", live.text()
    )


def test_the_last_word_is_told_before_the_daemon_ends(daemon: Make, tmp_path: Path) -> None:
    live = daemon(
        f"daemon: {{exit_when: any_fatal, on_event: [{{events: [fatal], command: [sh, -c, 'cat > told.json']}}]}}\nprograms: {{web: {BROKEN}}}",
        start=False,
    )
    live.start(wait=False)
    assert live.wait() == 1
    assert json.loads((tmp_path / "told.json").read_text())["name"] == "web"


def test_a_hook_that_does_not_work_is_said_once_and_a_reload_repairs_it(daemon: Make, tmp_path: Path) -> None:
    text = "daemon: {on_event: [{events: [fatal], command: [%s]}]}\nprograms: {a: " + BROKEN + ", b: " + BROKEN + "}"
    live = daemon(text % "./no-such-hook")
    for name in "ab":
        live.wait_for(name, "FATAL")
    live.wait_until(lambda: "on_event ./no-such-hook: cannot be run" in live.text(), "it is said")
    live.write(text % "sh, -c, 'cat > told.json'")
    live.do("reload")
    live.ctl("start", "a")
    live.wait_until(lambda: (tmp_path / "told.json").exists(), "the new hook is told")
    assert live.text().count("on_event ./no-such-hook") == 1
