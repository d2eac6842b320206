"""Who may ask: peers of the unix socket, and over TCP the token, the Host and the Origin."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute

from supervisord_async.config.model import HttpTls
from supervisord_async.control import auth
from supervisord_async.control.auth import Authorizer, TcpAccess, is_our_host, refuse_open_address, token_of
from supervisord_async.control.message import Message, Peer, Request
from supervisord_async.errors import DaemonError, NotAllowedError, UnavailableError
from tests.control.conftest import ask, swift

TCP = TcpAccess(host="127.0.0.1", port=9001, token="t" * 43)


async def nothing_comes() -> Message:
    raise AssertionError("the authorizer looks at the head alone")


def asked_by(peer: Peer | None) -> Request:
    scope = {"method": "GET", "path": "/v1/processes", "headers": [], "state": {"peer": peer}}
    return Request(scope, nothing_comes)


@pytest.mark.anyio
async def test_root_and_our_own_user_may_and_others_may_not() -> None:
    authorizer = Authorizer()
    for uid in (0, os.geteuid()):
        assert await authorizer.check(asked_by(Peer(1, uid, 1))) is None
    with pytest.raises(NotAllowedError, match="socket_group"):
        await authorizer.check(asked_by(Peer(1, 65534, 65534)))
    with pytest.raises(NotAllowedError):
        await authorizer.check(asked_by(None))  # neither a peer nor TCP: nobody


@pytest.mark.anyio
async def test_socket_group_opens_it_to_members() -> None:
    nobody = pwd.getpwnam("nobody")
    group = grp.getgrgid(nobody.pw_gid).gr_name
    authorizer = Authorizer(group=group)
    assert await authorizer.check(asked_by(Peer(1, nobody.pw_uid, 12345))) is None  # by membership
    assert await authorizer.check(asked_by(Peer(1, 4_000_000, nobody.pw_gid))) is None  # by the primary group
    with pytest.raises(NotAllowedError):
        await authorizer.check(asked_by(Peer(1, 4_000_000, 4_000_000)))
    with pytest.raises(NotAllowedError):
        await Authorizer(group="no-such-group").check(asked_by(Peer(1, nobody.pw_uid, nobody.pw_gid)))


@pytest.mark.anyio
async def test_a_directory_service_that_hangs_holds_up_only_who_has_to_be_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(auth, "is_member", lambda *_: go_on.wait(10))
    monkeypatch.setattr(auth, "GROUP_SECONDS", 0.1)
    authorizer = Authorizer(group="staff")
    try:
        with pytest.raises(UnavailableError, match="user 4000000 is in the group staff"):
            await authorizer.check(asked_by(Peer(1, 4_000_000, 4_000_000)))
        assert await authorizer.check(asked_by(Peer(1, 0, 0))) is None
    finally:
        go_on.set()


@pytest.mark.parametrize("host", ["localhost:9001", "127.0.0.1:9001", "localhost", "LOCALHOST:9001"])
def test_our_own_hosts_are_ours(host: str) -> None:
    assert is_our_host(host, TCP)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9001", "127.0.0.1:80", "localhost:9001@evil", "", "10.1.2.3:9001", "[::1", "a/b"]
)
def test_foreign_hosts_are_not(host: str) -> None:
    assert not is_our_host(host, TCP)


def test_an_open_address_answers_to_addresses_and_no_foreign_name() -> None:
    everywhere = TcpAccess(host="0.0.0.0", port=9001, token="t" * 43, tls=True)
    assert is_our_host("192.168.7.7:9001", everywhere)
    assert not is_our_host("rebound.example:9001", everywhere)
    assert everywhere.url == f"https://127.0.0.1:9001/?token={'t' * 43}"


def test_the_token_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "http.token"
    token = token_of(path)
    assert len(token) >= 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token_of(path) == token
    assert [one.name for one in tmp_path.iterdir()] == ["http.token"]
    path.chmod(0o644)
    with pytest.raises(DaemonError, match="others may read it"):
        token_of(path)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(DaemonError, match="characters"):
        token_of(path)
    with pytest.raises(DaemonError, match="cannot read the token"):
        token_of(tmp_path / "missing" / "http.token")


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: files of other users can be made by root only")
def test_a_token_that_another_user_put_there_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "http.token"
    path.write_text("x" * 43)
    path.chmod(0o600)
    os.chown(path, 65501, 65501)
    with pytest.raises(DaemonError, match="it belongs to user 65501, who knows it"):
        token_of(path)


def test_an_address_that_others_reach_needs_tls_or_a_word() -> None:
    refuse_open_address("127.0.0.1", tls=False, insecure=False)
    refuse_open_address("::1", tls=False, insecure=False)
    refuse_open_address("0.0.0.0", tls=True, insecure=False)
    refuse_open_address("10.0.0.1", tls=False, insecure=True)
    for host in ("0.0.0.0", "10.0.0.1", "shop.example"):
        with pytest.raises(DaemonError, match="http_tls"):
            refuse_open_address(host, tls=False, insecure=False)


async def over_tcp(wire: Any, method: str, target: str, **headers: str) -> Any:
    async with await anyio.connect_tcp("127.0.0.1", wire.tcp_port) as stream:
        given = {"host": f"127.0.0.1:{wire.tcp_port}", **{key.replace("_", "-"): value for key, value in headers.items()}}
        return await ask(stream, method, target, headers=given)


@pytest.mark.anyio
async def test_tcp_wants_the_token_whatever_is_asked(serving: Callable[..., Any], tmp_path: Path) -> None:
    async with serving(swift("web"), settings={"http": ("127.0.0.1", 0)}) as wire:
        token = (tmp_path / "http.token").read_text().strip()
        for target in ("/v1/processes", "/v1/health", "/metrics", "/", "/v1/nothing", f"/v1/processes?token={token}"):
            denied = await over_tcp(wire, "GET", target)
            denied.problem(401, "unauthorized")
            assert denied.headers["www-authenticate"].startswith("Bearer")
        for wrong in ("Bearer ", "Bearer nope", f"Basic {token}", token, f"Bearer {token}x"):
            (await over_tcp(wire, "GET", "/v1/health", authorization=wrong)).problem(401, "unauthorized")
        assert (await over_tcp(wire, "GET", "/v1/health", authorization=f"Bearer {token}")).status == 200
        assert (await over_tcp(wire, "POST", "/v1/processes/web/restart", authorization=f"bearer {token}")).status == 200
        assert (await wire.ask("GET", "/v1/web")).json["url"] == f"http://127.0.0.1:{wire.tcp_port}/?token={token}"


@pytest.mark.anyio
async def test_tcp_refuses_whoever_names_no_host(serving: Callable[..., Any], tmp_path: Path) -> None:
    async with serving(swift("web"), settings={"http": ("127.0.0.1", 0)}) as wire:
        token = (tmp_path / "http.token").read_text().strip()
        async with await anyio.connect_tcp("127.0.0.1", wire.tcp_port) as stream:  # HTTP/1.0 has no Host
            await stream.send(f"GET /v1/health HTTP/1.0\r\nauthorization: Bearer {token}\r\n\r\n".encode())
            assert b" 403 " in (await stream.receive()).partition(b"\r\n")[0]


@pytest.mark.anyio
async def test_tcp_refuses_foreign_hosts_and_origins_even_with_the_token(serving: Callable[..., Any], tmp_path: Path) -> None:
    async with serving(swift("web"), settings={"http": ("127.0.0.1", 0)}) as wire:
        bearer = "Bearer " + (tmp_path / "http.token").read_text().strip()
        own = f"http://127.0.0.1:{wire.tcp_port}"
        for bad in (
            {"host": "evil.example"},
            {"host": f"evil.example:{wire.tcp_port}"},
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": "http://127.0.0.1:1"},
            {"origin": own.replace("http", "https")},
            {"sec_fetch_site": "cross-site"},
        ):
            (await over_tcp(wire, "POST", "/v1/processes/web/stop", authorization=bearer, **bad)).problem(403, "not_allowed")
        assert wire.scene.snapshot("web").run == 1
        assert (await over_tcp(wire, "POST", "/v1/processes/web/restart", authorization=bearer, origin=own)).status == 200


@pytest.mark.anyio
async def test_the_pages_address_turns_the_token_into_a_strict_cookie_once(serving: Callable[..., Any], tmp_path: Path) -> None:
    async with serving(swift("web"), settings={"http": ("127.0.0.1", 0)}) as wire:
        token = (tmp_path / "http.token").read_text().strip()
        answer = await over_tcp(wire, "GET", f"/?token={token}")
        assert (answer.status, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        ours = cookie.split(";")[0]
        others = 'settings={"theme": "dark"}; a/b=1'  # of other programs that browsers reach under the same name
        for sent in (ours, f"{others}; {ours}; [x]", f"asup_token_1=other; {ours}"):
            assert (await over_tcp(wire, "GET", "/v1/health", cookie=sent)).status == 200
        (await over_tcp(wire, "GET", "/v1/health", cookie="asup_token=wrong")).problem(401, "unauthorized")
        (await over_tcp(wire, "GET", "/?token=wrong")).problem(401, "unauthorized")


@pytest.mark.anyio
async def test_a_host_that_can_be_none_costs_tcp_alone(serving: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    async with serving(swift("web"), settings={"http": ("\N{SNOWMAN}.invalid", 1), "http_insecure": True}) as wire:
        assert (await wire.ask("GET", "/v1/health")).status == 200
    assert any("degraded: no HTTP over TCP" in record.message for record in caplog.records)


@pytest.mark.anyio
async def test_a_port_in_use_costs_tcp_alone_and_is_said(serving: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)  # held from here on: nobody else can have it
    taken = listener.extra(SocketAttribute.local_port)
    async with serving(swift("web"), settings={"http": ("127.0.0.1", taken)}) as wire:
        assert (await wire.ask("GET", "/v1/health")).status == 200
        why = f"cannot bind 127.0.0.1:{taken}: Address already in use"
        assert (await wire.ask("GET", "/v1/health")).json["http_trouble"] == why
        refused = (await wire.ask("GET", "/v1/web")).problem(409, "failed")
        assert refused["detail"] == f"there is no page: {why}; fix that, then `asupctl reexec`"
    assert any("degraded: no HTTP over TCP" in record.message for record in caplog.records)
    await listener.aclose()


@pytest.mark.anyio
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask as somebody else")
async def test_another_user_is_turned_away_by_the_kernels_word(serving: Callable[..., Any], tmp_path: Path) -> None:
    async with serving(swift("web"), settings={"socket_mode": 0o666}):
        tmp_path.chmod(0o711)
        code = (
            "import os, socket; os.setgroups([]); os.setgid(65534); os.setuid(65534);"
            "s = socket.socket(socket.AF_UNIX); s.connect('asupd.sock');"
            "s.sendall(b'GET /v1/health HTTP/1.1\\r\\nhost: a\\r\\nconnection: close\\r\\n\\r\\n');"
            "print(s.makefile('rb').read(600).decode())"
        )
        done = await anyio.run_process([sys.executable, "-I", "-c", code], cwd=tmp_path, stderr=subprocess.STDOUT, check=False)
        assert b"HTTP/1.1 403" in done.stdout, done.stdout
        assert b"neither root nor the user of this daemon" in done.stdout


@pytest.mark.anyio
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a socket away, and ask as somebody else")
async def test_the_socket_is_its_groups_also_when_it_was_made_anew(serving: Callable[..., Any], tmp_path: Path) -> None:
    group = grp.getgrgid(pwd.getpwnam("nobody").pw_gid)
    code = (
        f"import os, socket; os.setgroups([]); os.setgid({group.gr_gid}); os.setuid(65534);"
        "s = socket.socket(socket.AF_UNIX); s.connect('asupd.sock');"
        "s.sendall(b'GET /v1/health HTTP/1.1\\r\\nhost: a\\r\\nconnection: close\\r\\n\\r\\n');"
        "print(s.makefile('rb').read(600).decode())"
    )
    tmp_path.chmod(0o711)
    async with serving(swift("web"), settings={"socket_mode": 0o660, "socket_group": group.gr_name}) as wire:
        for _ in range(2):
            found = (tmp_path / "asupd.sock").stat()
            assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, group.gr_gid)
            done = await anyio.run_process([sys.executable, "-I", "-c", code], cwd=tmp_path, stderr=subprocess.STDOUT, check=False)
            assert b"HTTP/1.1 200" in done.stdout, done.stdout
            (tmp_path / "asupd.sock").unlink()
            assert await wire.listeners.renew()


@pytest.mark.anyio
async def test_the_token_is_that_of_the_file_and_an_open_address_needs_its_word(
    serving: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mine").write_text("my own token, it is".replace(" ", "-"))
    (tmp_path / "mine").chmod(0o600)
    settings = {"http": ("0.0.0.0", 0), "http_token_file": str(tmp_path / "mine")}
    async with serving(swift("web"), settings=settings) as wire:
        assert wire.tcp_port is None
        assert "set daemon.http_tls, or http_insecure: true" in caplog.text
    async with serving(swift("web"), settings={**settings, "http_insecure": True}) as wire:
        headers = {"host": f"127.0.0.1:{wire.tcp_port}", "authorization": "Bearer my-own-token,-it-is"}
        async with await anyio.connect_tcp("127.0.0.1", wire.tcp_port) as stream:
            assert (await ask(stream, "GET", "/v1/health", headers=headers)).status == 200
        assert not (tmp_path / "http.token").exists()


async def _make_certificate(folder: Path) -> HttpTls:
    """A new key and certificate for 127.0.0.1 in ``folder``, each moved to its place as a whole."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    made = {name: folder / f"{name}.pem" for name in ("key", "cert")}
    how = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
    how += " -addext subjectAltName=IP:127.0.0.1"
    await anyio.run_process(["openssl", *how.split(), "-keyout", f"{made['key']}.new", "-out", f"{made['cert']}.new"])
    for path in made.values():
        Path(f"{path}.new").rename(path)
    return HttpTls(certificate=str(made["cert"]), key=str(made["key"]))


async def _ask_by_tls(wire: Any, tls: HttpTls, folder: Path) -> Any:
    """An answer to who trusts the certificate that is in the file now; raises ssl.SSLError where another one is used."""
    context = ssl.create_default_context(cafile=tls.certificate)
    token = (folder / "http.token").read_text().strip()
    async with await anyio.connect_tcp("127.0.0.1", wire.tcp_port, tls=True, ssl_context=context, tls_standard_compatible=False) as stream:
        headers = {"host": f"127.0.0.1:{wire.tcp_port}", "authorization": f"Bearer {token}"}
        return await ask(stream, "GET", "/v1/health", headers=headers)


@pytest.mark.anyio
async def test_tls_serves_tcp_and_leaves_the_unix_socket_plain(serving: Callable[..., Any], tmp_path: Path) -> None:
    tls = await _make_certificate(tmp_path)
    async with serving(swift("web"), settings={"http": ("127.0.0.1", 0), "http_tls": tls}) as wire:
        assert (await wire.ask("GET", "/v1/health")).status == 200
        assert (await _ask_by_tls(wire, tls, tmp_path)).status == 200


@pytest.mark.anyio
async def test_a_certificate_that_was_renewed_is_served_without_a_new_daemon(
    serving: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tls = await _make_certificate(tmp_path)
    async with serving(swift("web"), settings={"http": ("127.0.0.1", 0), "http_tls": tls}) as wire:
        await _make_certificate(tmp_path)
        with pytest.raises(ssl.SSLError):
            await _ask_by_tls(wire, tls, tmp_path)
        await wire.listeners.renew()
        assert (await _ask_by_tls(wire, tls, tmp_path)).status == 200
        Path(tls.key).rename(tmp_path / "key.away")
        for _ in range(2):
            await wire.listeners.renew()
        assert (await _ask_by_tls(wire, tls, tmp_path)).status == 200, "the one before stays in use"
        assert caplog.text.count("cannot use the certificate") == 1
        await wire.listeners.pause()
        await wire.listeners.resume()
        (tmp_path / "key.away").rename(tls.key)
        await _make_certificate(tmp_path)
        await wire.listeners.renew()
        assert (await _ask_by_tls(wire, tls, tmp_path)).status == 200
