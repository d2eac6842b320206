"""What tests of several rooms need."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder to be watched, with ``app.py`` in it."""
    source = tmp_path / "app" / "src"
    source.mkdir(parents=True)
    (source / "app.py").write_text("1")
    return source


@pytest.fixture
def no_collections() -> Iterator[None]:
    """Python by itself collects no garbage, as for years in a daemon at rest: what nothing refers to goes at once, or not at all."""
    gc.disable()
    yield
    gc.enable()
