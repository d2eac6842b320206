"""The page's files, from memory. Nothing is read before the first request for them.

Every file but the page itself has the version of all in its address, so that a browser may keep it for ever, and files of two
versions never meet in one page.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(__file__).with_name("static")
#: What may be served; licences and notes of the folder are not.
MEDIA = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
PAGE = "index.html"
PLACEHOLDER = b"@VERSION@"

#: The page loads nothing from elsewhere, runs no script that is not a file of ours, is nobody's frame, and makes no text markup.
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
    """One file as it is sent."""

    body: bytes
    media_type: str
    etag: str


class Assets(msgspec.Struct, frozen=True):
    """All files by name, e.g. ``vendor/preact.js``."""

    version: str  #: changes with any of them
    files: dict[str, Asset]


def load(folder: Path = FOLDER) -> Assets:
    """The files of ``folder`` that may be served, the page with the version in it. Blocking. Raises OSError: one cannot be read."""
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
    """The routes of the page, and what was read for them."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.loaded: Assets | None = None
        self._folder = folder
        self._lock = anyio.Lock()

    def routes(self) -> list[Route]:
        """``/`` and ``/assets/VERSION/NAME``."""
        return [Route("/", self.page, methods=["GET"]), Route("/assets/{version}/{name:path}", self.asset, methods=["GET"])]

    async def page(self, request: Request) -> Response:
        """The page; asked again each time, which costs a 304."""
        assets = await self._assets()
        return _answer(request, assets.files[PAGE], "no-cache")

    async def asset(self, request: Request) -> Response:
        """A file of the present version, for ever; 404 for any other."""
        assets = await self._assets()
        name = request.path_params["name"]
        found = assets.files.get(name) if name != PAGE and request.path_params["version"] == assets.version else None
        if found is None:
            raise HTTPException(404)
        return _answer(request, found, "private, max-age=31536000, immutable")

    async def _assets(self) -> Assets:
        """Read once; raises HTTPException 503 while they cannot be."""
        async with self._lock:
            if self.loaded is None:
                try:
                    self.loaded = await anyio.to_thread.run_sync(load, self._folder)
                except OSError as error:
                    raise HTTPException(503, f"cannot read the page's files: {error.strerror}") from error
            return self.loaded


def _answer(request: Request, asset: Asset, keep: str) -> Response:
    headers = {"etag": asset.etag, "cache-control": keep, **_SAFE}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if asset.etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(asset.body, headers=headers, media_type=asset.media_type)
