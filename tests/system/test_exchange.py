"""Exchanging the names of two files."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from supervisord_async.system.exchange import exchange


def test_names_are_exchanged_or_nothing_has_changed(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    with pytest.raises(FileNotFoundError):
        exchange(str(one), str(other))
    other.write_text("2")
    exchange(str(one), str(other))
    assert (one.read_text(), other.read_text()) == ("2", "1")


def test_nothing_is_left_for_a_collection_of_garbage(tmp_path: Path) -> None:
    """The state is saved up to twenty times a second, for years."""
    one, other = (tmp_path / name for name in ("one", "other"))
    one.touch()
    other.touch()
    exchange(str(one), str(other))
    gc.collect()
    gc.disable()
    try:
        for _ in range(50):
            exchange(str(one), str(other))
        assert gc.collect() == 0
    finally:
        gc.enable()
