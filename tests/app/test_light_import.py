"""The application library is light: what it loads is told by a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from supervisord_async import app
from tests.app.conftest import ROOT

HEAVY = {"uvloop", "yaml", "msgspec", "watchfiles", "anyio", "aiofiles", "uvicorn", "h11", "psutil", "jsonschema", "click", "rich"}
DAEMON = ("core", "config", "system", "logs", "supervise", "control", "cli", "client")


def loaded_by(statement: str) -> set[str]:
    program = f"{statement}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(result.stdout))


def daemon_parts(modules: set[str]) -> set[str]:
    return {name for name in modules if name.startswith(tuple(f"supervisord_async.{part}" for part in DAEMON))}


def test_importing_the_library_loads_nothing_heavy() -> None:
    modules = loaded_by("import supervisord_async.app")
    assert not modules & HEAVY
    assert not daemon_parts(modules)
    assert "asyncio" not in modules


def test_naming_everything_loads_neither_the_daemon_nor_third_party_packages() -> None:
    modules = loaded_by("from supervisord_async.app import *")
    assert not modules & HEAVY
    assert not daemon_parts(modules)
    assert "asyncio" not in modules


def test_every_name_of_the_library_can_be_had_and_others_cannot() -> None:
    assert all(getattr(app, name) is not None for name in app.__all__)
    assert set(app.__all__) <= set(dir(app))
    with pytest.raises(AttributeError, match="no attribute 'Hearbeat'"):
        _ = app.Hearbeat
