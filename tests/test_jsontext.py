"""JSON of text that is no text, and times in JSON."""

from __future__ import annotations

import json

import pytest

from supervisord_async.jsontext import iso, json_bytes, json_value, spelt


@pytest.mark.parametrize("value", [{"path": "/ü"}, {"path": "/\udcff", "ü": [1, None, "a\udc80b"]}, "\udcff", []])
def test_what_is_written_is_read(value: object) -> None:
    content = json_bytes(value)
    assert json_value(content) == value
    assert json.loads(content) == value
    assert b", " not in content


def test_what_is_no_json_is_a_value_error() -> None:
    with pytest.raises(ValueError):
        json_value(b"{")


def test_words_for_people_can_be_encoded() -> None:
    assert spelt("plain ü") == "plain ü"
    assert spelt("/a\udcffü") == "/a\\xffü"


@pytest.mark.parametrize(
    ("at", "text"),
    [(0.0, "1970-01-01T00:00:00.000Z"), (1763726400.123, "2025-11-21T12:00:00.123Z"), (1763726400.9996, "2025-11-21T12:00:00.999Z")],
)
def test_a_time_is_told_to_the_millisecond_in_which_it_is(at: float, text: str) -> None:
    assert iso(at) == text
