"""The page as it is served: whole, light, kept for ever, and nothing in it that could run what programs say."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from supervisord_async.control.web.assets import FOLDER, MEDIA, Pages, load
from tests.control.conftest import ask, swift

OWN = sorted(path for path in FOLDER.iterdir() if path.suffix in MEDIA)
SCRIPTS = [path for path in OWN if path.suffix == ".js"]
#: Of the files as they are here; another version of a library comes with its licence, its line in vendor/README.md, and this.
VENDORED = {
    "preact.js": "225d7a773766e6fb2cfcc45274fe41d2059f5782f3f2c4569aa5132a2d3a2902",
    "hooks.js": "5c65ab263688d0805862fd0807c779af02c2799c44fda0873dfcb870d0da70a0",
    "htm.js": "ab33dd3f38059b9be4d5f5350128eefb2356639c4e0bbe9d9e8b3ba75847e9e4",
}


class Visitor:
    """Asks over TCP with the page's cookie, as a browser does."""

    def __init__(self, wire: Any, token: str) -> None:
        self._wire, self._token = wire, token

    async def get(self, target: str, method: str = "GET", **headers: str) -> Any:
        async with await anyio.connect_tcp("127.0.0.1", self._wire.tcp_port) as stream:
            place = {"host": f"127.0.0.1:{self._wire.tcp_port}", "cookie": f"asup_token_{self._wire.tcp_port}={self._token}"}
            return await ask(stream, method, target, headers={**place, **{key.replace("_", "-"): value for key, value in headers.items()}})


@pytest.fixture
def visiting(serving: Callable[..., Any], tmp_path: Path) -> Callable[[Any], Visitor]:
    return lambda wire: Visitor(wire, (tmp_path / "http.token").read_text().strip())


TCP = {"http": ("127.0.0.1", 0)}


@pytest.mark.anyio
async def test_page_and_all_that_it_loads_are_served_with_a_strict_policy(serving: Callable[..., Any], visiting: Any) -> None:
    async with serving(swift("web"), settings=TCP) as wire:
        visitor = visiting(wire)
        page = await visitor.get("/")
        assert (page.status, page.headers["content-type"], page.headers["cache-control"]) == (200, "text/html; charset=utf-8", "no-cache")
        addresses = re.findall(r'(?:href|src)="([^"]+)"', page.body.decode())
        assert len(addresses) == 3
        for address in addresses:
            answer = await visitor.get(address)
            assert answer.status == 200
            assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
        for one in (page, answer):
            policy = one.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "require-trusted-types-for 'script'" in policy
            assert "unsafe" not in policy
            assert (one.headers["x-content-type-options"], one.headers["referrer-policy"]) == ("nosniff", "no-referrer")


@pytest.mark.anyio
async def test_page_is_sent_once_and_then_confirmed(serving: Callable[..., Any], visiting: Any) -> None:
    async with serving(swift("web"), settings=TCP) as wire:
        visitor = visiting(wire)
        etag = (await visitor.get("/")).headers["etag"]
        for known in (etag, f'W/{etag}, "other"', "*"):
            again = await visitor.get("/", if_none_match=known)
            assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
        assert (await visitor.get("/", if_none_match='"other"')).status == 200
        (await visitor.get("/", method="POST")).problem(405, "method_not_allowed")


@pytest.mark.anyio
async def test_nothing_but_the_pages_own_files_is_served(serving: Callable[..., Any], visiting: Any) -> None:
    version = load().version
    async with serving(swift("web"), settings=TCP) as wire:
        visitor = visiting(wire)
        assert (await visitor.get(f"/assets/{version}/vendor/htm.js")).status == 200
        for name in (
            "vendor/LICENSE-htm",
            "vendor/README.md",
            "vendor/",
            "",
            "index.html",
            "../assets.py",
            "..%2fassets.py",
            "%2fetc%2fpasswd",
        ):
            (await visitor.get(f"/assets/{version}/{name}")).problem(404, "not_found")
        (await visitor.get("/assets/0000000000000000/app.js")).problem(404, "not_found")


@pytest.mark.anyio
async def test_only_the_page_may_be_kept_by_a_browser(serving: Callable[..., Any], visiting: Any) -> None:
    async with serving(swift("web"), settings=TCP) as wire:
        visitor = visiting(wire)
        for target in ("/v1/health", "/v1/processes", "/v1/nothing", "/metrics"):
            assert (await visitor.get(target)).headers["cache-control"] == "no-store", target


@pytest.mark.anyio
async def test_action_of_a_page_needs_its_own_origin(serving: Callable[..., Any], visiting: Any) -> None:
    async with serving(swift("web"), settings=TCP) as wire:
        visitor = visiting(wire)
        target = "/v1/processes/web/restart"
        (await visitor.get(target, method="POST", origin="https://evil.example")).problem(403, "not_allowed")
        (await visitor.get(target, method="POST", sec_fetch_site="cross-site")).problem(403, "not_allowed")
        assert wire.scene.snapshot("web").run == 1
        assert (await visitor.get(target, method="POST", origin=f"http://127.0.0.1:{wire.tcp_port}")).status == 200


@pytest.mark.anyio
async def test_no_file_is_read_before_the_first_request(serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr("supervisord_async.control.web.assets.load", lambda folder: read.append(folder) or load(folder))
    async with serving(swift("web")) as wire:
        await wire.ask("GET", "/v1/health")
        assert read == []
        await wire.ask("GET", "/")
        await wire.ask("GET", "/")
        assert read == [FOLDER]


@pytest.mark.anyio
async def test_files_that_cannot_be_read_are_a_problem_and_tried_again(
    tmp_path: Path, serving: Callable[..., Any], monkeypatch: Any
) -> None:
    def broken(_folder: Path) -> Any:
        raise OSError(24, "Too many open files")

    async with serving(swift("web")) as wire:
        with monkeypatch.context() as patched:
            patched.setattr("supervisord_async.control.web.assets.load", broken)
            assert "Too many open files" in (await wire.ask("GET", "/")).problem(503, "busy")["detail"]
        assert (await wire.ask("GET", "/")).status == 200


def test_version_changes_with_any_file(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("@VERSION@")
    (tmp_path / "a.js").write_text("1")
    first = load(tmp_path)
    assert first.files["index.html"].body.decode() == first.version
    (tmp_path / "a.js").write_text("2")
    second = load(tmp_path)
    assert second.version != first.version
    assert second.files["index.html"].etag != first.files["index.html"].etag
    assert Pages(tmp_path).loaded is None


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_makes_no_markup_and_no_code_of_text(path: Path) -> None:
    text = path.read_text()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "dangerouslySetInnerHTML", "document.write", "eval(", "Function("):
        assert way not in text
    for module in re.findall(r'from "([^"]+)"', text):
        assert module.startswith("./")
        assert (path.parent / module).is_file()
    assert len(text.splitlines()) < 500


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_file_of_the_page_leads_nowhere_else(path: Path) -> None:
    text = path.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|@import|url\(", text)


def test_page_has_no_inline_script_or_style() -> None:
    text = (FOLDER / "index.html").read_text()
    assert re.search(r"<style|style=|\bon\w+=", text) is None
    assert re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL) == [""]


@pytest.mark.parametrize("name", sorted(VENDORED))
def test_library_of_others_is_the_one_that_was_taken(name: str) -> None:
    vendor = FOLDER / "vendor"
    assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == VENDORED[name]
    assert {path.name for path in vendor.glob("*.js")} == set(VENDORED)
    (row,) = [line for line in (vendor / "README.md").read_text().splitlines() if line.startswith("|") and name in line]
    licence = re.search(r"LICENSE-\w+", row)
    assert licence is not None
    assert (vendor / licence[0]).stat().st_size > 500
