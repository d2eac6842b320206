"""The programs in docs/application-library.md run as they stand."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.app.conftest import ROOT, Launch

PAGE = (ROOT / "docs" / "application-library.md").read_text()
RUN = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SHOWN = re.findall(r"^```python no-run\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.real
@pytest.mark.parametrize("program", RUN, ids=range(len(RUN)))
def test_programs_of_the_page_run(tmp_path: Path, launch: Launch, output: Callable[[], str], program: str) -> None:
    (tmp_path / "program.py").write_text(program)
    assert launch("-W", "error", "program.py").wait(60) == 0, output()


def test_programs_that_would_not_end_are_sound_all_the_same() -> None:
    assert len(RUN) >= 7
    assert len(SHOWN) == 1
    compile(SHOWN[0], "page", "exec")
