"""docs/index.md leads to every page, and README.md to it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def linked(page: Path) -> set[Path]:
    """The files that a page links to or shows."""
    return {(page.parent / target).resolve() for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text(encoding="utf-8"))}


def reachable(start: Path) -> set[Path]:
    """The pages and pictures that links lead to, one after another, without leaving docs/."""
    seen, waiting = {start}, [start]
    while waiting:
        for target in linked(waiting.pop()) - seen:
            seen.add(target)
            if target.suffix == ".md" and target.parent == DOCS and target.exists():
                waiting.append(target)
    return seen


def test_index_names_every_page() -> None:
    pages = set(DOCS.glob("*.md")) - {DOCS / "index.md"}
    assert sorted(page.name for page in pages - linked(DOCS / "index.md")) == []


def test_every_file_of_docs_is_reachable_from_the_index() -> None:
    found = reachable(DOCS / "index.md")
    assert sorted(path.name for path in DOCS.rglob("*") if path.is_file() and path not in found) == []


def test_readme_leads_to_the_index() -> None:
    assert DOCS / "index.md" in linked(ROOT / "README.md")
