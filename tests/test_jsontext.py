"""JSON of text that is no text."""

from __future__ import annotations

import json

import pytest

from supervisord_async.jsontext import json_bytes, json_value, spelt


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
