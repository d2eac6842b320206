"""Formats are pure, and their output is what JSON and terminals may have."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_async.logs.formats import LINE_BYTES, render, stamp, whole_lines


@given(st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"")), min_size=1), st.booleans())
def test_json_of_any_bytes_is_an_object_a_line_without_controls(lines: list[bytes], ended: bool) -> None:
    data = b"\n".join(lines) + (b"\n" if ended else b"x")
    text = render(data, "json", at_ms=1_700_000_000_123, name='we"b', stream="stderr", run=2)
    found = [json.loads(line) for line in text.splitlines()]
    should = (data[:-1] if ended else data).split(b"\n")
    assert [one["line"] for one in found] == [line.decode("utf-8", "replace") for line in should]
    assert [one.get("partial", False) for one in found] == [False] * (len(found) - 1) + [not ended]
    assert all((one["at"], one["name"], one["run"]) == ("2023-11-14T22:13:20.123Z", 'we"b', 2) for one in found)
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text.decode().replace("\n", ""))


def test_a_stamp_is_utc_with_milliseconds() -> None:
    assert stamp(7) == "1970-01-01T00:00:00.007Z"


def test_lines_without_end_wait_up_to_a_bound() -> None:
    assert whole_lines(b"a\nb") == 2
    assert whole_lines(b"b" * (LINE_BYTES - 1)) == 0
    assert whole_lines(b"a\n" + b"b" * (LINE_BYTES + 5)) == 2 + LINE_BYTES


@pytest.mark.parametrize("character", ["x", "é", "€", "😀"])
@pytest.mark.parametrize("shift", range(5))
def test_a_line_that_is_too_long_is_parted_between_characters(character: str, shift: int) -> None:
    said = "y" * shift + character * (5 * LINE_BYTES // len(character.encode()))
    rest, parts = f"{said}\n".encode(), []
    while rest:
        count = whole_lines(rest[: 2 * LINE_BYTES])
        text = render(rest[:count], "json", at_ms=1, name="web", stream="stdout", run=1)
        parts += [json.loads(line) for line in text.splitlines()]
        rest = rest[count:]
    assert "".join(one["line"] for one in parts) == said
    assert [one.get("partial", False) for one in parts] == [True] * (len(parts) - 1) + [False] and len(parts) > 2


@pytest.mark.parametrize("end", [b"\xff" * 4, b"\x80" * 4, b"\xf0\x9f\x98"])
def test_what_is_no_text_is_parted_all_the_same(end: bytes) -> None:
    assert LINE_BYTES - 3 <= whole_lines(b"x" * (LINE_BYTES - len(end)) + end) <= LINE_BYTES
