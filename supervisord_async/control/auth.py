"""Who may use the API: on a unix socket the kernel tells the peer's user; TCP needs the token and the right origin.

A browser is a confused deputy: any page can make it send requests to a local port, with its cookies, and a name that
resolves to 127.0.0.1 makes them look like the page's own. So Host has to be one of our names, and Origin, if it is given,
our own page, before the token is even looked at.
"""

from __future__ import annotations

import grp
import hmac
import ipaddress
import os
import pwd
import secrets
import socket
import stat
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import msgspec

from supervisord_async.control.message import Headers, Peer, Request, Response
from supervisord_async.control.problems import RequestError
from supervisord_async.errors import DaemonError, NotAllowedError, UnavailableError
from supervisord_async.system.threads import DaemonThreads

#: The port is appended: browsers share a host's cookies among its ports, but each daemon has a token of its own.
COOKIE = "asup_token"
#: The least and most characters of a token.
MIN_TOKEN_CHARACTERS, MAX_TOKEN_CHARACTERS = 16, 1024
#: How many peers are looked up in ``daemon.socket_group`` at a time, and how long that may take: a directory service may hang.
GROUP_THREADS, GROUP_SECONDS = 4, 5.0
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  not bound, but replaced


class TcpAccess(msgspec.Struct, frozen=True):
    """The TCP address, and the token that requests need there."""

    host: str  #: the address to listen on
    port: int
    token: str
    tls: bool = False

    @property
    def cookie(self) -> str:
        """The name of the cookie that carries the token."""
        return f"{COOKIE}_{self.port}"

    @property
    def url(self) -> str:
        """The page's address, with the token."""
        host = _REACHABLE.get(self.host, self.host)
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.tls else 'http'}://{shown}:{self.port}/?token={self.token}"


class Authorizer:
    """Admits or refuses each request before anything else sees it."""

    def __init__(self, *, group: str | None = None, tcp: TcpAccess | None = None) -> None:
        self.tcp = tcp
        self._uids = frozenset({0, os.geteuid()})
        self._group = group
        self._threads = DaemonThreads(GROUP_THREADS, "group")

    async def check(self, request: Request) -> Response | None:
        """None if the request is admitted; else a response to send instead. Raises NotAllowedError, UnavailableError, RequestError."""
        if request.peer is not None:
            await self._check_peer(request.peer)
            return None
        if self.tcp is None:
            raise NotAllowedError("not allowed: the peer's user is unknown")
        self._check_place(self.tcp, request.headers)
        return self._check_token(self.tcp, request)

    async def _check_peer(self, peer: Peer) -> None:
        if peer.uid in self._uids or (self._group is not None and await self._has_member(peer, self._group)):
            return
        advice = f" or a member of {self._group}" if self._group else " (daemon.socket_group opens it to a group)"
        raise NotAllowedError(f"not allowed: user {peer.uid} is neither root nor the user of this daemon{advice}")

    async def _has_member(self, peer: Peer, group: str) -> bool:
        try:
            with anyio.fail_after(GROUP_SECONDS):
                return await self._threads.run(is_member, peer, group)
        except TimeoutError:
            words = f"looking them up has taken {GROUP_SECONDS:g} s (does a directory service hang?)"
            raise UnavailableError(f"cannot tell whether user {peer.uid} is in the group {group}: {words}") from None

    def _check_place(self, tcp: TcpAccess, headers: Headers) -> None:
        host = headers.one("host")
        if host is None or not is_our_host(host, tcp):
            raise NotAllowedError(f"not allowed: this daemon does not answer to the Host {host!r}")
        origin = headers.one("origin")
        if origin is not None and not is_our_origin(origin, host, tcp):
            raise NotAllowedError(f"not allowed: a request from the Origin {origin!r}")
        if origin is None and headers.one("sec-fetch-site") in ("cross-site", "same-site"):
            raise NotAllowedError("not allowed: a request from another site's page")

    def _check_token(self, tcp: TcpAccess, request: Request) -> Response | None:
        scheme, _, bearer = (request.headers.one("authorization") or "").partition(" ")
        if scheme.lower() == "bearer" and same(bearer.strip(), tcp.token):
            return None
        if request.method == "GET" and request.path == "/" and same(request.query().get("token", ""), tcp.token):
            headers = {"location": "/", "set-cookie": _cookie_of(tcp), "cache-control": "no-store", "referrer-policy": "no-referrer"}
            return Response(status=303, headers=headers)
        if same(_cookie(request.headers, tcp.cookie), tcp.token):
            return None
        raise RequestError(
            401,
            "unauthorized",
            "not allowed without the token: Authorization: Bearer TOKEN (it is in run_dir/http.token, or use the unix socket); "
            "a browser gets in by the address that `asupctl web` prints",
            exit_code=5,
            headers={"www-authenticate": 'Bearer realm="asupd"'},
        )


def same(given: str, token: str) -> bool:
    """Whether both are equal, compared in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def is_our_host(host: str, tcp: TcpAccess) -> bool:
    """Whether ``host``, a Host header, names the address that we listen on."""
    name, port = _split(host)
    if name is None or (port is not None and port != tcp.port):
        return False
    listening = _address(tcp.host)
    if tcp.host == "localhost" or (listening is not None and listening.is_loopback):
        return name in _LOOPBACK_NAMES or name == tcp.host
    own = (tcp.host.lower(), socket.gethostname().lower())
    if listening is not None and listening.is_unspecified:  # any address is ours; but a foreign name may be DNS rebinding
        return _address(name) is not None or name in _LOOPBACK_NAMES or name in own
    return name in own


def is_our_origin(origin: str, host: str, tcp: TcpAccess) -> bool:
    """Whether ``origin`` is a page that we served ourselves, under the name ``host``."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme == ("https" if tcp.tls else "http") and parts.netloc.lower() == host.lower()


def is_member(peer: Peer, group: str) -> bool:
    """Whether ``group`` is one of the peer's groups: the primary one, or a supplementary one of its user. Blocks on look-ups."""
    try:
        entry = grp.getgrgid(int(group)) if group.isdigit() else grp.getgrnam(group)
    except KeyError:
        return False
    if entry.gr_gid == peer.gid:
        return True
    try:
        user = pwd.getpwuid(peer.uid)
    except KeyError:
        return False
    return entry.gr_gid in os.getgrouplist(user.pw_name, user.pw_gid)


def token_of(path: str | Path) -> str:
    """The token in the file at ``path``; if there is no file, it is created with a new token, mode 0600.

    Raises DaemonError if it cannot be read or created, belongs to another user, if others may read it, or if its content is not a
    valid token.
    """
    path = Path(path)
    try:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return _make_token(path)
        with os.fdopen(fd, encoding="ascii") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DaemonError(f"cannot use the token in {path}: it is not a regular file")
            if status.st_uid not in (0, os.geteuid()):
                raise DaemonError(f"cannot use the token in {path}: it belongs to user {status.st_uid}, who knows it (chown it)")
            if status.st_mode & 0o077:
                raise DaemonError(f"cannot use the token in {path}: others may read it (chmod 600 {path})")
            token = file.read(MAX_TOKEN_CHARACTERS + 2).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DaemonError(f"cannot read the token in {path}: {getattr(error, 'strerror', None) or error}") from error
    if not MIN_TOKEN_CHARACTERS <= len(token) <= MAX_TOKEN_CHARACTERS or any(sign.isspace() or not sign.isprintable() for sign in token):
        raise DaemonError(
            f"cannot use the token in {path}: expected {MIN_TOKEN_CHARACTERS} to {MAX_TOKEN_CHARACTERS} characters without spaces"
        )
    return token


def _make_token(path: Path) -> str:
    """The token in ``path``, which is now complete; if another daemon created it at the same time, that one's token."""
    token = secrets.token_urlsafe(32)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(token + chr(10))
        try:
            os.link(draft, path)
        except FileExistsError:
            return token_of(path)
    finally:
        os.unlink(draft)
    return token


def refuse_open_address(host: str, *, tls: bool, insecure: bool) -> None:
    """Raises DaemonError for an address that others can reach, unless it has TLS or ``insecure`` is explicit."""
    from supervisord_async.config.units import is_loopback  # late, as a re-exec without HTTP does not need it

    if not is_loopback(host) and not tls and not insecure:
        raise DaemonError(f"cannot answer on {host}: others would reach it unencrypted (set daemon.http_tls, or http_insecure: true)")


def _cookie_of(tcp: TcpAccess) -> str:
    """A Set-Cookie header with the token, which a browser sends only to us."""
    from http.cookies import SimpleCookie

    cookie: SimpleCookie = SimpleCookie({tcp.cookie: tcp.token})
    for attribute, value in {"httponly": True, "samesite": "strict", "secure": tcp.tls, "path": "/"}.items():
        cookie[tcp.cookie][attribute] = value
    return cookie.output(header="").strip()


def _cookie(headers: Headers, name: str) -> str:
    """The value of our cookie; "" if there is none. Others, of any program on this host, need not be what the standard library accepts."""
    from http.cookies import SimpleCookie

    ours = next((one for one in (headers.one("cookie") or "").split(";") if one.strip().partition("=")[0] == name), "")
    morsel = SimpleCookie(ours).get(name)
    return morsel.value if morsel is not None else ""


def _split(host: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port
    except ValueError:
        return None, None
    plain = parts.netloc == host and "@" not in host
    return (parts.hostname, port) if plain else (None, None)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
