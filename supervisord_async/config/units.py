"""The small languages inside values: durations, sizes, signals, octal modes, addresses.

Each ``parse_*`` returns the value in its base unit (seconds, bytes, a number) or raises ValueError with a message that
says what was expected; ``format_*`` writes a value the way people write it. Nothing here knows about files or keys.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from functools import lru_cache

_NUMBER = r"[0-9]{1,18}(?:\.[0-9]{1,9})?"
DURATION_PATTERN = rf"^(?=[0-9])(?:{_NUMBER}|(?:{_NUMBER}d ?)?(?:{_NUMBER}h ?)?(?:{_NUMBER}m ?)?(?:{_NUMBER}s ?)?(?:{_NUMBER}ms)?)$"
SIZE_PATTERN = rf"^{_NUMBER} ?(?:[kKMGT]i?B|B)?$"
OCTAL_PATTERN = r"^(?:0o)?[0-7]{1,5}$"
SIGNAL_PATTERN = r"^[A-Za-z]+[0-9]*(?:[+-][0-9]+)?$|^[0-9]+$"

DURATION_EXPECTED = "a duration such as 5s, 500ms or 1m30s"
SIZE_EXPECTED = "a size such as 50MiB, 10MB or a number of bytes"
SIGNAL_EXPECTED = "a signal such as TERM, HUP or 15"

_DURATION_UNITS = (("d", 86400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 0.001))
_DURATION = re.compile(DURATION_PATTERN)
_DURATION_PART = re.compile(rf"({_NUMBER})(d|h|ms|m|s)")
_WORDY_DURATION = re.compile(
    rf"({_NUMBER})\s*(milliseconds?|msecs?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)(?![a-z])\s*"
)
_PLAIN_NUMBER = re.compile(rf"^{_NUMBER}$")
_SIZE = re.compile(rf"^({_NUMBER}) ?([kKMGT]i?B|B)?$")
_SIZE_UNITS: dict[str, int] = {"": 1, "B": 1} | {
    f"{letter}{infix}B": base**power
    for infix, base in (("", 1000), ("i", 1024))
    for power, letters in ((1, "kK"), (2, "M"), (3, "G"), (4, "T"))
    for letter in letters
}
#: Longer than any machine lives; keeps sums of durations finite.
LONGEST_SECONDS = 1e9
LARGEST_BYTES = 2**62
#: A file of a thousand programs repeats the same few values.
REMEMBERED = 512


@lru_cache(maxsize=REMEMBERED)
def parse_duration(value: float | str) -> float:
    """Seconds, from 0 to :data:`LONGEST_SECONDS`; ValueError for anything else."""
    if isinstance(value, str):
        if not _DURATION.match(value):
            near = near_duration(value)
            raise ValueError(f"expected {DURATION_EXPECTED}" + (f"; did you mean '{near}'?" if near else ""))
        if _PLAIN_NUMBER.match(value):
            seconds = float(value)
        else:
            units = dict(_DURATION_UNITS)
            seconds = sum(float(number) * units[unit] for number, unit in _DURATION_PART.findall(value))
    else:
        seconds = float(value)
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise ValueError(f"expected {DURATION_EXPECTED}, at most {format_duration(LONGEST_SECONDS)}")
    return round(seconds, 9)


def format_duration(seconds: float) -> str:
    """The shortest usual spelling: ``1m30s``, ``500ms``, ``0s``; :func:`parse_duration` reads it back exactly."""
    milliseconds = seconds * 1000
    if abs(milliseconds - round(milliseconds)) > 1e-9:
        return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
    rest = round(milliseconds)
    parts = []
    for unit, size in (("d", 86400000), ("h", 3600000), ("m", 60000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


@lru_cache(maxsize=REMEMBERED)
def parse_size(value: int | str) -> int:
    """Bytes, from 0 to :data:`LARGEST_BYTES`; ValueError for anything else. MB is 10**6, MiB 2**20."""
    if isinstance(value, str):
        match = _SIZE.match(value)
        if not match:
            raise ValueError(f"expected {SIZE_EXPECTED}")
        number, unit = match.groups()
        factor = _SIZE_UNITS[unit or ""]
        size = round(float(number) * factor) if "." in number else int(number) * factor
    else:
        size = value
    if not 0 <= size <= LARGEST_BYTES:
        raise ValueError(f"expected {SIZE_EXPECTED}, at most 4EiB")
    return size


def format_size(size: int) -> int | str:
    """``50MiB`` where it is exact, else the number of bytes."""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return size


def signal_names() -> tuple[str, ...]:
    """The names of this system's signals, without SIG."""
    return tuple(sorted(item.name.removeprefix("SIG") for item in signal.Signals))


@lru_cache(maxsize=REMEMBERED)
def parse_signal(value: int | str) -> int:
    """The number of a signal given as ``TERM``, ``SIGTERM``, ``term``, ``RTMIN+1`` or ``15``; ValueError for no signal."""
    if isinstance(value, int) or (value.isascii() and value.isdigit()):
        number = int(value) if len(str(value)) < 4 else 0
        if number in signal.valid_signals():
            return number
        raise ValueError(f"expected {SIGNAL_EXPECTED}")
    match = re.match(r"^(?:SIG)?([A-Z]+[0-9]*)(?:([+-])([0-9]{1,2}))?$", value.upper())
    name, sign, offset = match.groups() if match else ("", None, None)
    base = getattr(signal.Signals, f"SIG{name}", None)
    if base is None or (sign and name not in ("RTMIN", "RTMAX")):
        raise ValueError(f"expected {SIGNAL_EXPECTED}{suggestion(name, signal_names())}")
    number = int(base) + int(f"{sign or '+'}{offset or 0}")
    if not (signal.SIGRTMIN <= number <= signal.SIGRTMAX) and sign:
        raise ValueError(f"expected {SIGNAL_EXPECTED}")
    return number


def format_signal(number: int) -> str:
    """``TERM`` for 15, ``RTMIN+1`` for a real-time signal."""
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return f"RTMIN+{number - signal.SIGRTMIN}"


def parse_octal(value: int | str) -> int:
    """The bits of ``022``, ``"0600"`` or ``0o600``: digits are octal whether quoted or not; ValueError beyond 0o7777."""
    text = str(value)
    if not re.match(OCTAL_PATTERN, text) or int(text.removeprefix("0o"), 8) > 0o7777:
        raise ValueError('expected octal digits such as "022"')
    return int(text.removeprefix("0o"), 8)


def parse_address(value: int | str) -> tuple[str, int]:
    """Host (default: 127.0.0.1) and port of ``127.0.0.1:80``, ``[::1]:80``, ``:80`` or ``80``; ValueError for others. Port 0: any."""
    text = str(value)
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if (":" in host and not bracketed) or not re.match(r"^[0-9]{1,5}$", port) or int(port) > 65535 or re.search(r"[\s/@]", host):
        raise ValueError("expected HOST:PORT such as 127.0.0.1:8080, with a port from 0 to 65535")
    return (host.strip("[]") or "127.0.0.1", int(port))


def format_address(host: str, port: int) -> str:
    """``127.0.0.1:80`` or ``[::1]:80``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """True for an address that only this machine can reach, and for ``localhost``; False for any other name."""
    import ipaddress

    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that is most similar to ``word``; None if none is similar."""
    by_lower = {name.lower(): name for name in known}
    import difflib

    near = difflib.get_close_matches(word.lower()[:100], by_lower, n=1, cutoff=0.6)
    return by_lower[near[0]] if near else None


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'backoff'?`` if one of ``known`` is similar to ``word``, else nothing."""
    near = nearest(word, known)
    return f"; did you mean '{near}'?" if near else ""


def near_duration(text: str) -> str | None:
    """Our spelling of a duration in systemd's or plain words, such as ``10 s``, ``5min`` or ``1 hour``; None if ``text`` is no such one."""
    parts = _WORDY_DURATION.findall(text.lower())
    if not parts or _WORDY_DURATION.sub("", text.lower()):
        return None
    return "".join(number + ("ms" if unit.startswith(("ms", "milli")) else unit[0]) for number, unit in parts)


def near_size(text: str) -> str | None:
    """Our spelling of a size in another format, such as ``1G``, ``512m`` or ``10mb``; None if ``text`` is no such size."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgt])(i?b?)", text, re.IGNORECASE)
    return f"{match[1]}{match[2].upper()}{'B' if match[3].lower() == 'b' else 'iB'}" if match else None
