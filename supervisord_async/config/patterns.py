"""The patterns of a configuration, compiled as for their use: a file is checked by the very thing that runs later.

Log probes have RE2's, which searches in a time that grows with the text alone, whatever the pattern, and knows neither lookaround
nor backreferences. ``watch.ignore`` has those of .gitignore.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pathspec

#: Of a thousand programs most ignore the same.
REMEMBERED = 64


def compile_pattern(pattern: str) -> Any:
    """``pattern`` as RE2 knows it; raises ValueError, in words, where it is none."""
    import re2  # type: ignore[import-untyped]  # for a program that has such a probe

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern.encode(), options)
    except re2.error as error:
        words = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(words) from error


@lru_cache(maxsize=REMEMBERED)
def compile_ignored(patterns: tuple[str, ...]) -> pathspec.GitIgnoreSpec:
    """``patterns`` as one rule; raises ValueError where one of them is none."""
    import pathspec  # for a program that has some

    return pathspec.GitIgnoreSpec.from_lines(patterns)
