"""File names are UTF-8 whatever the locale says: those in a configuration are, and daemon and commands must mean the same file.

What programs are told of the locale is not ours to change.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

#: The variable that Python changes for itself and its children, and what it makes of it.
COERCED = "LC_CTYPE"
COERCED_TO = ("C.UTF-8", "C.utf8", "UTF-8")


def mean_utf8() -> None:
    """File names are UTF-8 in this process; where the locale says otherwise Python is executed again with ``-X utf8``.

    To be called first of all. By an option and not by PYTHONUTF8, which programs would inherit.
    """
    if sys.getfilesystemencoding() == "utf-8":
        return
    with suppress(OSError):  # a Python that cannot be run again: names that the locale has letters for work all the same
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606  ourselves


def forget_coerced_locale() -> None:
    """``LC_CTYPE`` in the environment is as it was given to us: under the locale C Python sets it to C.UTF-8, which programs would inherit.

    See https://peps.python.org/pep-0538/. Where the kernel does not show what was given it stays as Python has it.
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
    """Standard output and error take any text: what the terminal of this locale has no letters for is spelt out."""
    encoding = None
    if "utf8" in sys._xoptions and "PYTHONIOENCODING" not in os.environ:  # noqa: SLF001  by us: the locale still speaks for the terminal
        import locale

        encoding = locale.getencoding()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding=encoding, errors="backslashreplace")
