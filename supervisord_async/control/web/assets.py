"""The page's files, from memory. Nothing is read before the first request for them.

Every file except the page itself has the common version in its address, so that browsers may cache it for ever, and one page
never mixes files of two versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import msgspec

from supervisord_async.control.message import Request, Response
from supervisord_async.control.problems import of_status
from supervisord_async.system.threads import in_thread

FOLDER = Path(__file__).with_name("static")
#: What is served; licences and notes in the folder are not.
MEDIA = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
PAGE = "index.html"
PLACEHOLDER = b"@VERSION@"

#: The page loads nothing from elsewhere, runs only our own script files, cannot be framed, and cannot turn text into markup.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_SAFE = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
}


class Asset(msgspec.Struct, frozen=True):
    """One file, as it is sent."""

    body: bytes
    media_type: str
    etag: str


class Assets(msgspec.Struct, frozen=True):
    """All files by name, e.g. ``vendor/preact.js``."""

    version: str  #: changes with any of them
    files: dict[str, Asset]


def load(folder: Path = FOLDER) -> Assets:
    """The files in ``folder`` that are served, the page with the version filled in. Blocking. Raises OSError."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in MEDIA and path.is_file())
    bodies = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    digest = hashlib.sha256()
    for name, body in bodies.items():
        digest.update(b"%s %d\n%s" % (name.encode(), len(body), body))
    version = digest.hexdigest()[:16]
    files = {}
    for name, body in bodies.items():
        sent = body.replace(PLACEHOLDER, version.encode()) if name == PAGE else body
        files[name] = Asset(sent, MEDIA[Path(name).suffix], f'"{hashlib.sha256(sent).hexdigest()[:32]}"')
    return Assets(version, files)


class Pages:
    """The endpoints of the page, and its files once they have been read."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.loaded: Assets | None = None
        self._folder = folder
        self._lock = anyio.Lock()

    def endpoints(self) -> dict[str, Callable[[Request, dict[str, str]], Awaitable[Response]]]:
        """The endpoints for ``/`` and ``/assets/VERSION/NAME``."""
        return {"/": self.page, "/assets/{version}/{name:path}": self.asset}

    async def page(self, request: Request, _path_parameters: dict[str, str]) -> Response:
        """The page; the browser revalidates it each time, which costs a 304."""
        assets = await self._assets()
        return _answer(request, assets.files[PAGE], "no-cache")

    async def asset(self, request: Request, path_parameters: dict[str, str]) -> Response:
        """A file of the present version, cacheable for ever; 404 for any other version or name."""
        assets = await self._assets()
        name = path_parameters["name"]
        found = assets.files.get(name) if name != PAGE and path_parameters["version"] == assets.version else None
        if found is None:
            raise of_status(404, f"there is nothing at {request.path!r}")
        return _answer(request, found, "private, max-age=31536000, immutable")

    async def _assets(self) -> Assets:
        """The files, read once. Raises RequestError 503 while they cannot be read."""
        async with self._lock:
            if self.loaded is None:
                try:
                    self.loaded = await in_thread(load, self._folder)
                except OSError as error:
                    raise of_status(503, f"cannot read the page's files: {error.strerror}") from error
            return self.loaded


def _answer(request: Request, asset: Asset, keep: str) -> Response:
    headers = {"etag": asset.etag, "cache-control": keep, **_SAFE}
    known = [tag.strip().removeprefix("W/") for tag in ",".join(request.headers.all("if-none-match")).split(",")]
    if asset.etag in known or "*" in known:
        return Response(status=304, headers=headers)
    return Response(asset.body, media=asset.media_type, headers=headers)
