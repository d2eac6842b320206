"""Formats are pure, and their output is what JSON and terminals may have."""

from __future__ import annotations

import json

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
    assert all((one["at"], one["name"], one["run"]) == ("2023-11-14T22:13:20.123Z", 'we"b', 2) for one in found)
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text.decode().replace("\n", ""))


def test_a_stamp_is_utc_with_milliseconds() -> None:
    assert stamp(7) == "1970-01-01T00:00:00.007Z"


def test_lines_without_end_wait_up_to_a_bound() -> None:
    assert whole_lines(b"a\nb") == 2
    assert whole_lines(b"b" * (LINE_BYTES - 1)) == 0
    assert whole_lines(b"a\n" + b"b" * (LINE_BYTES + 5)) == 2 + LINE_BYTES
