"""Which files below a watched path are ignored: the usual junk, the program's gitignore patterns, the daemon's own files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from supervisord_async.config.patterns import compile_ignored

#: What tools and editors leave among sources. A program's pattern beginning with ``!`` has such files watched again.
JUNK_DIRECTORIES = frozenset({
    ".git", ".hg", ".svn", ".asupd", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis",
    ".tox", ".nox", ".venv", ".idea", "node_modules",
})  # fmt: skip
#: Byte code, swap, backup and lock files, and 4913, the file by which vim finds out whether it may write.
JUNK_FILES = re.compile(r".*\.py[co]|\.?.*\.sw[a-z]|.*~|\.#.*|#.*#|4913|\.DS_Store|.*___jb_(tmp|old)___|\.goutputstream-.*", re.DOTALL)


class IgnoreRules:
    """The rules for paths below ``root``.

    ``patterns`` are gitignore lines relative to the root. ``paths`` are absolute: each is ignored with everything below
    it, and with every path that continues it after a dot, so that ``x.log`` covers its backups ``x.log.1.gz``.
    """

    def __init__(self, root: str, patterns: Sequence[str], paths: Iterable[str]) -> None:
        self._root = root
        self._spec = compile_ignored(tuple(patterns)) if patterns else None
        self._paths = tuple(paths)

    def ignores(self, path: str, *, directory: bool) -> bool:
        """True if changes of ``path``, which lies below the root, are to be ignored."""
        if any(path == own or path.startswith((own + "/", own + ".")) for own in self._paths):
            return True
        if self._spec is not None:
            relative = os.path.relpath(path, self._root) + ("/" if directory else "")
            verdict = self._spec.check_file(relative.encode(errors="replace").decode()).include  # patterns are UTF-8, names may be anything
            if verdict is not None:
                return verdict
        name = os.path.basename(path)
        return name in JUNK_DIRECTORIES if directory else JUNK_FILES.fullmatch(name) is not None
