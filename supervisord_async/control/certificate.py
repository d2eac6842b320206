"""The TLS certificate of HTTP over TCP, which is loaded again when its files are renewed."""

from __future__ import annotations

import os
import ssl

from supervisord_async.config.model import HttpTls
from supervisord_async.errors import DaemonError


class Certificate:
    """A certificate and its key; :attr:`context` is for new connections. All calls block on the files' disk."""

    def __init__(self, files: HttpTls) -> None:
        """Loads the files. Raises DaemonError if they cannot be used."""
        self._files = files
        self._seen = self._identities()
        self.context = self._load()

    def renew(self) -> None:
        """:attr:`context` has the present content of the files. Raises DaemonError if that cannot be used; then it is unchanged."""
        identities = self._identities()
        if identities != self._seen:
            self.context = self._load()
            self._seen = identities

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._files.certificate, self._files.key)
        except (OSError, ssl.SSLError) as error:
            raise DaemonError(f"cannot use the certificate {self._files.certificate}: {error}") from error
        return context

    def _identities(self) -> list[tuple[int, ...] | None]:
        return [_identity(path) for path in (self._files.certificate, self._files.key)]


def _identity(path: str) -> tuple[int, ...] | None:
    """Differs if ``path`` was replaced or its content changed; None if it does not exist."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
