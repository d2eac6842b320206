"""Real daemons on real files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.daemons import LiveDaemon
from tests.liar import Liar


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., LiveDaemon]]:
    """``daemon(yaml)`` is a running daemon on that file; ``start=False`` leaves it down."""
    with ExitStack() as stack:

        def make(programs: str, *, start: bool = True, **settings: Any) -> LiveDaemon:
            live = LiveDaemon(tmp_path, programs, **settings)
            if start:
                live.start()
            stack.push(live.__exit__)
            return live

        yield make


@pytest.fixture
def liar(tmp_path: Path) -> Iterator[Liar]:
    """Tells lies to what is started with its environment."""
    (tmp_path / "liar").mkdir()
    made = Liar(tmp_path / "liar")
    yield made
    made.close()
