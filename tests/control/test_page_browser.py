"""The page as people use it: a real browser on a real daemon. Needs playwright and a chromium; without either it is skipped, and says so.

Whatever a test does, it fails if the page said anything on the console, a script of a program ran, or a request left this machine.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.daemons import LiveDaemon
from tests.waiting import wait_until_sync

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage"]
PATIENCE_MS = 20_000

# What a hostile program would say: markup, a terminal's escape sequences, a reversal of direction.
HOSTILE = "<img src=x onerror=pwned()><script>pwned()</script>"
PROGRAMS = """
version: 1
daemon: {http: "127.0.0.1:PORT"}
programs:
  web:
    description: "HOSTILE \\u202egpj.exe"
    command: [bash, -c, "echo hello from web; exec sleep 1000"]
    start_seconds: 0s
    readiness: {command: "true"}
  speaker:
    command:
      - bash
      - -c
      - |
        printf '%s\\n' 'HOSTILE'
        printf '\\033]0;pwned\\007\\033[2J\\033[1;31mred\\033[0m \\001\\n'
        echo cannot connect >&2
        n=0
        while sleep 0.2; do echo line $((n+=1)); done
    start_seconds: 0s
    logs: {stderr: .asupd/logs/speaker.err}
  doomed:
    command: [bash, -c, "echo 'HOSTILE'; exit 7"]
    restart: {max_restarts: 0}
  idle: {command: [sleep, "1000"], start_seconds: 0s}
  job: {command: 'exit $(cat code || echo 2)', shell: true, restart: {policy: never, success_exit_codes: [0, 2]}}
  victim: {command: [sleep, "1000"], start_seconds: 0s}
""".replace("HOSTILE", HOSTILE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: the page is NOT tried in a browser")
    found = os.environ.get("ASUP_TEST_BROWSER") or next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no chromium: the page is NOT tried in a browser")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=found, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def daemon(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDaemon]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with LiveDaemon(tmp_path_factory.mktemp("page"), PROGRAMS.replace("PORT", str(port))) as live:
        live.wait_for("doomed", "FATAL")
        yield live


@pytest.fixture(scope="module")
def address(daemon: LiveDaemon) -> str:
    """The page's, with the token."""
    return daemon.do("web").strip()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """``visit("#web/log")`` is the page, logged in by its address and live; what it may never do is looked for at the end."""
    said: list[str] = []
    left: list[str] = []
    contexts = []

    def open_page(hash_: str = "", *, quiet: bool = True, **settings: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **settings})
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.add_init_script("window.pwned = () => console.error('a script of a program ran')")
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: left.append(request.url) if urlsplit(request.url).hostname != "127.0.0.1" else None)
        if quiet:
            page.on("console", lambda message: said.append(message.text))
        page.goto(address + hash_)
        page.locator(".link.live").wait_for()
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            assert page.locator("#app img, #app script").count() == 0
        context.close()
    assert said == []
    assert left == []


LOG = "document.querySelector('[role=log]')"


def until(page: Any, script: str) -> None:
    """``script`` is true in ``page``; its policy forbids the browser's own way to wait for that, which is an eval."""
    wait_until_sync(lambda: page.evaluate(script), what=script)


def row(page: Any, name: str) -> Any:
    return page.locator("tbody tr").filter(has=page.get_by_role("button", name=name, exact=True))


def test_page_shows_each_process_and_drops_the_token(visit: Callable[..., Any], daemon: LiveDaemon) -> None:
    page = visit()
    assert "token" not in page.url
    for name, entry in daemon.status().items():
        row(page, name).get_by_text(entry["state"], exact=True).wait_for()
    web = row(page, "web")
    web.get_by_text(str(daemon.process_of("web")["pid"]), exact=True).wait_for()
    assert HOSTILE in web.inner_text()
    assert "\u202e" not in web.inner_text()
    assert "U+202E" in web.inner_text()
    page.locator(".memory", has_text="iB").first.wait_for()
    assert page.title().startswith("(1)")  # doomed


def test_a_job_is_in_trouble_if_it_failed_and_not_for_another_code_than_0(visit: Callable[..., Any], daemon: LiveDaemon) -> None:
    page = visit()
    row(page, "job").get_by_text("EXITED", exact=True).wait_for()
    assert "trouble" not in row(page, "job").get_attribute("class")
    (daemon.folder / "code").write_text("3")
    assert daemon.ctl("start", "job").returncode == 1
    until(page, "document.title.startsWith('(2)')")
    assert "trouble" in row(page, "job").get_attribute("class")
    (daemon.folder / "code").write_text("2")
    daemon.do("start", "job")
    until(page, "document.title.startsWith('(1)')")


def test_click_on_restart_restarts_and_says_so(visit: Callable[..., Any], daemon: LiveDaemon) -> None:
    page = visit()
    before = daemon.process_of("web")
    page.get_by_role("button", name="Restart web").click()
    page.locator(".notice.good", has_text="web").wait_for()
    after = daemon.wait_for("web", "RUNNING", run=before["run"] + 1)
    assert after["cause"] == "operator"
    row(page, "web").get_by_text(str(after["pid"]), exact=True).wait_for()
    page.locator(".events li", has_text=f"running, pid {after['pid']}").wait_for()


def test_stop_asks_first_and_start_starts_again(visit: Callable[..., Any], daemon: LiveDaemon) -> None:
    page = visit()
    page.get_by_role("button", name="Stop idle").click()
    page.get_by_role("dialog", name="Stop idle?").wait_for()
    page.keyboard.press("Enter")  # Cancel has the focus
    page.get_by_role("dialog").wait_for(state="hidden")
    assert daemon.process_of("idle")["state"] == "RUNNING"
    page.get_by_role("button", name="Stop idle").click()
    page.get_by_role("button", name="Stop it").click()
    row(page, "idle").get_by_text("STOPPED", exact=True).wait_for()
    assert daemon.process_of("idle")["state"] == "STOPPED"
    page.get_by_role("button", name="Start idle", exact=True).click()
    row(page, "idle").get_by_text("RUNNING", exact=True).wait_for()


def test_failed_action_says_why(visit: Callable[..., Any]) -> None:
    page = visit(quiet=False)  # the browser itself notes the 409
    page.get_by_role("button", name="Start doomed", exact=True).click()
    page.locator(".notice.bad", has_text="cannot start doomed").wait_for()


def test_log_is_live_coloured_and_inert(visit: Callable[..., Any]) -> None:
    page = visit("#speaker/log")
    log = page.get_by_role("log")
    log.get_by_text(HOSTILE, exact=True).wait_for()
    red = log.locator(".bold.fg-1")
    assert red.first.inner_text() == "red"
    log.get_by_text("^A").first.wait_for()
    assert "]0;" not in log.inner_text()
    seen = page.evaluate(f"{LOG}.childElementCount")
    until(page, f"{LOG}.childElementCount > {seen} + 2")
    until(page, f"{LOG}.scrollHeight - {LOG}.scrollTop - {LOG}.clientHeight < 31")
    page.get_by_label("stream").select_option("stderr")
    log.get_by_text("cannot connect").wait_for()
    assert "line 1" not in log.inner_text()


def test_log_stays_where_a_reader_is(visit: Callable[..., Any]) -> None:
    page = visit("#speaker/log", viewport={"width": 1280, "height": 420})
    until(page, f"{LOG}.scrollHeight > {LOG}.clientHeight + 100")
    page.evaluate(f"{LOG}.scrollTop = 0")
    follow = page.get_by_role("button", name="↓ follow")
    follow.wait_for()
    seen = page.evaluate(f"{LOG}.childElementCount")
    until(page, f"{LOG}.childElementCount > {seen}")
    assert page.evaluate(f"{LOG}.scrollTop") == 0
    follow.click()
    follow.wait_for(state="detached")


def test_why_and_runs_and_events_of_one(visit: Callable[..., Any]) -> None:
    page = visit()
    row(page, "doomed").click()
    page.get_by_role("tab", name="Why").click()
    page.locator(".why .headline", has_text="FATAL").wait_for()
    page.locator(".why .log", has_text=HOSTILE).wait_for()
    page.locator(".why code", has_text="programs.doomed.restart").first.wait_for()
    page.get_by_role("tab", name="Runs").click()
    page.locator(".runs td", has_text="exit code 7").first.wait_for()
    page.get_by_role("tab", name="Events").click()
    page.locator(".events li", has_text="FATAL").first.wait_for()
    assert page.url.endswith("#doomed/events")


def test_why_says_what_a_living_process_uses_and_how_its_checks_are(visit: Callable[..., Any]) -> None:
    page = visit()
    row(page, "web").click()
    page.get_by_role("tab", name="Why").click()
    page.locator(".why .checks li", has_text="readiness: healthy").wait_for()
    words = page.locator(".why .uses").inner_text()
    assert re.fullmatch(r"It uses .* % CPU, .* of memory, \d+ process(es)?, \d+ threads?, \d+ open files", words)


def test_keyboard_is_enough(visit: Callable[..., Any]) -> None:
    page = visit()
    page.keyboard.press("/")
    page.keyboard.type("speak")
    assert row(page, "web").count() == 0
    page.keyboard.press("Tab")
    while not page.evaluate("document.activeElement.matches('td .choose')"):
        page.keyboard.press("Tab")
    chosen = page.evaluate("document.activeElement.innerText")
    page.keyboard.press("Enter")
    until(page, "document.activeElement.matches('[role=tab][aria-selected=true]')")
    page.keyboard.press("ArrowRight")
    page.locator(".why .headline").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("tablist").wait_for(state="detached")
    until(page, f"document.activeElement.matches('td .choose') && document.activeElement.innerText === '{chosen}'")
    page.keyboard.press("/")
    page.keyboard.press("Escape")
    row(page, "web").wait_for()


def test_what_a_panel_covers_has_no_focus(visit: Callable[..., Any]) -> None:
    """On a narrow screen, and on a wide one at 200 %."""
    page = visit(viewport={"width": 375, "height": 740})
    row(page, "web").get_by_role("button", name="web", exact=True).click()
    until(page, "document.activeElement.matches('[role=tab]')")
    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('.table, header') === null")
    page.keyboard.press("Escape")
    until(page, "document.activeElement.matches('td .choose')")


def test_refused_file_is_a_banner_until_it_is_sound(visit: Callable[..., Any], daemon: LiveDaemon) -> None:
    page = visit()
    sound = daemon.file.read_text()
    try:
        daemon.write(sound + f'  "{HOSTILE}": {{command: [sleep, "1"]}}\n')
        assert daemon.ctl("reload").returncode == 2
        page.get_by_role("alert").get_by_text("was refused").wait_for()
        page.get_by_role("alert").get_by_text("programs.yaml:").first.wait_for()
    finally:
        daemon.write(sound)
    daemon.do("reload")
    page.locator(".banner").wait_for(state="detached")


def test_added_and_removed_programs_come_and_go(visit: Callable[..., Any], daemon: LiveDaemon) -> None:
    page = visit()
    sound = daemon.file.read_text()
    try:
        daemon.write(sound + '  newcomer: {command: [sleep, "1000"], start_seconds: 0s}\n')
        daemon.do("reload")
        row(page, "newcomer").get_by_text("RUNNING", exact=True).wait_for()
    finally:
        daemon.write(sound)
        daemon.do("reload")
    row(page, "newcomer").wait_for(state="detached")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_screen_has_all_of_it(visit: Callable[..., Any], scheme: str) -> None:
    page = visit(viewport={"width": 400, "height": 800}, color_scheme=scheme)
    row(page, "web").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.get_by_role("button", name="Restart web").wait_for()
    row(page, "speaker").locator(".choose").click()
    page.get_by_role("log").get_by_text("line 1", exact=True).first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.go_back()
    page.get_by_role("log").wait_for(state="detached")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 27)"
    assert dark == (scheme == "dark")


def test_hidden_page_keeps_no_connection_and_resumes(visit: Callable[..., Any], daemon: LiveDaemon) -> None:
    page = visit("#speaker/log")
    page.get_by_role("log").get_by_text("line 1", exact=True).first.wait_for()
    show = """(seen) => {
        Object.defineProperty(document, "visibilityState", { configurable: true, get: () => seen });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/v1/events")):
        page.evaluate(show, "hidden")
    before = daemon.process_of("victim")
    daemon.do("restart", "victim")
    with page.expect_request(lambda request: request.url.endswith("/v1/events")) as resumed:
        page.evaluate(show, "visible")
    assert int(resumed.value.headers["last-event-id"]) > 0
    pid = daemon.process_of("victim")["pid"]
    assert pid != before["pid"]
    row(page, "victim").get_by_text(str(pid), exact=True).wait_for()
    page.get_by_role("tab", name="Log").wait_for()


def test_a_daemon_that_does_not_answer_is_told_until_it_does(visit: Callable[..., Any]) -> None:
    page = visit("#idle/log")
    page.locator(".log[data-open]:empty").wait_for()  # it has printed nothing, and the page says so
    held: list[Any] = []
    page.route("**/v1/processes", lambda route: held.append(route))
    page.get_by_role("alert").get_by_text("The daemon does not answer").wait_for()
    page.locator(".link.late").wait_for()
    page.unroute("**/v1/processes")  # which lets go of what it held
    page.locator(".link.live").wait_for()
    page.get_by_role("alert").wait_for(state="detached")


def test_page_outlives_its_daemon_and_finds_the_next(visit: Callable[..., Any], daemon: LiveDaemon) -> None:
    page = visit("#web/log", quiet=False)  # the browser itself notes each connection that failed
    pid = daemon.process_of("web")["pid"]
    daemon.kill()
    page.get_by_role("alert").get_by_text("Connection lost").wait_for()
    daemon.start()
    page.locator(".link.live").wait_for()
    page.get_by_role("alert").wait_for(state="detached")
    row(page, "web").get_by_text(str(pid), exact=True).wait_for()  # adopted
    page.get_by_role("button", name="Restart web").click()
    page.get_by_role("log").get_by_text("hello from web").nth(1).wait_for()


def test_stranger_without_the_token_is_told_how_to_get_in(browser: Any, address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    answer = page.goto(address.partition("?")[0])
    assert answer.status == 401
    assert "asupctl web" in page.content()
    context.close()


SAYINGS = [
    # what is printed; the pieces that are shown: text, and what of its look is not the usual
    ("plain", [["plain", {}]]),
    ("\x1b[1mbold\x1b[22m not", [["bold", {"bold": True}], [" not", {}]]),
    ("\x1b[91mbright\x1b[39m\x1b[44mback", [["bright", {"fg": 9}], ["back", {"bg": 4}]]),
    ("\x1b[38;5;1ma\x1b[38;5;208mb\x1b[38;5;244mc", [["a", {"fg": 1}], ["b", {"fg": "rgb(255 135 0)"}], ["c", {"fg": "rgb(128 128 128)"}]]),
    ("\x1b[48;2;1;2;999mx\x1b[0my", [["x", {"bg": "rgb(1 2 255)"}], ["y", {}]]),
    ("\x1b[38;5mx", [["x", {}]]),  # cut short
    ("\x1b[;mx\x1b[999mz", [["x", {}], ["z", {}]]),
    ("a\x1b]8;;http://evil.example\x07link\x1b]8;;\x1b\\b", [["a", {}], ["link", {}], ["b", {}]]),
    ("a\x1b]0;never ended", [["a", {}]]),
    ("\x1b[2J\x1b[Hx\x1b(By\x1b7z", [["x", {}], ["y", {}], ["z", {}]]),
    ("\x1b", [["^[", {}]]),
    ("a\tb\x00\x9b\u202e\u200b", [["a\tb^@⟨U+009B⟩⟨U+202E⟩⟨U+200B⟩", {}]]),
]


def test_output_is_shown_as_a_terminal_would_without_its_powers(visit: Callable[..., Any]) -> None:
    page = visit()
    module = page.locator("script").first.get_attribute("src").replace("app.js", "text.js")
    script = """async ([module, lines]) => {
        const { newLook, pieces } = await import(module);
        const usual = newLook();
        const unusual = (look) => Object.fromEntries(Object.entries(look).filter(([key, value]) => value !== usual[key]));
        return lines.map((line) => pieces(line, newLook()).map(({ text, look }) => [text, unusual(look)]));
    }"""
    found = page.evaluate(script, [module, [line for line, _ in SAYINGS]])
    for (line, expected), pieces in zip(SAYINGS, found, strict=True):
        assert pieces == expected, repr(line)
