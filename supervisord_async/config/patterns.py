"""Patterns of log probes: RE2's, which searches in a time that grows with the text alone, whatever the pattern.

It knows neither lookaround nor backreferences, so a file is checked by it and not by Python's ``re``.
"""

from __future__ import annotations

from typing import Any


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
