"""docs/state-machine.md says what the machine does: its generated sections are those of the table."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from supervisord_async.core.machine import INPUTS
from supervisord_async.core.state import State

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "scripts" / "generate_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_state_machine_page_is_up_to_date(generator: ModuleType) -> None:
    page = (ROOT / "docs" / "state-machine.md").read_text(encoding="utf-8")
    assert generator.regenerate(page) == page, "run scripts/generate_docs.py"


def test_state_machine_page_names_every_state_and_input() -> None:
    page = (ROOT / "docs" / "state-machine.md").read_text(encoding="utf-8")
    for state in State:
        assert f"### {state}\n" in page
    for kind in INPUTS:
        assert f"`{kind.__name__}`" in page


def test_page_without_its_marks_is_refused(generator: ModuleType) -> None:
    with pytest.raises(ValueError, match="no section 'counts'"):
        generator.regenerate("# The state machine\n")
