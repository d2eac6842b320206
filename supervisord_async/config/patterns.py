"""Compiles the patterns in a configuration, both to check a file and to use them later, so that the two cannot differ.

Log probes use RE2, whose search time grows only linearly with the text, whatever the pattern; it has neither lookaround nor
backreferences. ``watch.ignore`` uses the patterns of .gitignore.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pathspec

#: Most of a thousand programs ignore the same files.
REMEMBERED = 64


def compile_pattern(pattern: str) -> Any:
    """``pattern`` compiled by RE2. Raises ValueError, saying why, if it is not valid."""
    import re2  # type: ignore[import-untyped]  # loaded only if a program has a log probe

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern.encode(), options)
    except re2.error as error:
        words = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(words) from error


@lru_cache(maxsize=REMEMBERED)
def compile_ignored(patterns: tuple[str, ...]) -> pathspec.GitIgnoreSpec:
    """``patterns`` compiled into one matcher. Raises ValueError if one of them is not valid."""
    import pathspec  # loaded only if a program has such patterns

    return pathspec.GitIgnoreSpec.from_lines(patterns)
