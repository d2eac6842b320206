"""docs/http-api.md names every type of event that there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from supervisord_async.core.record import RecordType

PAGE = Path(__file__).resolve().parents[2] / "docs" / "http-api.md"


def test_page_names_the_types_of_events() -> None:
    (named,) = re.findall(r"^Types: ([^.]*)\.", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", named)) == set(get_args(RecordType))
