"""What tests of several rooms need."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder to be watched, with ``app.py`` in it."""
    source = tmp_path / "app" / "src"
    source.mkdir(parents=True)
    (source / "app.py").write_text("1")
    return source
