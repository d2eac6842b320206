"""Makes file names UTF-8 whatever the locale: those in a configuration are, and daemon and commands must mean the same file.

The locale itself is passed on to programs as it was given.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

#: The variable that Python sets for itself and its children, and the values that it may give it.
COERCED = "LC_CTYPE"
COERCED_TO = ("C.UTF-8", "C.utf8", "UTF-8")


def mean_utf8() -> None:
    """File names are UTF-8 in this process; if the locale says otherwise, Python is executed again with ``-X utf8``.

    To be called before anything else. It uses an option because programs would inherit PYTHONUTF8.
    """
    if sys.getfilesystemencoding() == "utf-8":
        return
    with suppress(OSError):  # Python cannot be executed again: names in the locale's own encoding still work
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606  ourselves


def forget_coerced_locale() -> None:
    """``LC_CTYPE`` is in our environment only if it was given: in the C locale Python sets it to C.UTF-8, which programs would inherit.

    See https://peps.python.org/pep-0538/. If the kernel does not show the original environment, it stays as Python set it.
    """
    if os.environ.get(COERCED) not in COERCED_TO:
        return
    with suppress(OSError), open("/proc/self/environ", "rb") as file:
        given = dict(pair.split("=", 1) for pair in os.fsdecode(file.read()).split("\0") if "=" in pair)
        if COERCED in given:
            os.environ[COERCED] = given[COERCED]
        else:
            del os.environ[COERCED]


def show_what_can_be_shown() -> None:
    """Standard output and error accept any text: characters that the locale's encoding lacks are spelt out."""
    encoding = None
    if "utf8" in sys._xoptions and "PYTHONIOENCODING" not in os.environ:  # noqa: SLF001  our own option: the terminal has the locale's
        import locale

        encoding = locale.getencoding()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding=encoding, errors="backslashreplace")
