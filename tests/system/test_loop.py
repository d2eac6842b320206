"""What callbacks of the daemon's loop may rely on."""

from __future__ import annotations

import asyncio
import sys
from contextvars import ContextVar
from types import SimpleNamespace

import pytest

from supervisord_async.system import loop


@pytest.mark.parametrize("kind", ["uvloop", "asyncio"])
def test_callbacks_know_which_loop_runs_where_sniffio_is_asked(kind: loop.LoopKind, monkeypatch: pytest.MonkeyPatch) -> None:
    library: ContextVar[str | None] = ContextVar("library", default=None)
    monkeypatch.setitem(sys.modules, "sniffio", SimpleNamespace(current_async_library_cvar=library))
    seen: list[str | None] = []

    async def main() -> None:
        over = asyncio.Event()

        def callback() -> None:
            seen.append(library.get())
            over.set()

        asyncio.get_running_loop().call_later(0.001, callback)
        await over.wait()

    loop.run(main, kind=kind)
    assert seen == ["asyncio"]
    assert library.get() is None
