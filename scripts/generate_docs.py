#!/usr/bin/env python3
"""Write what documentation is generated: the diagram and the table of docs/state-machine.md, from the machine itself.

``scripts/generate_docs.py`` rewrites the marked sections; ``--check`` writes nothing and ends with 1 where they are out
of date. A section is what stands between ``<!-- generated: NAME -->`` and ``<!-- end: NAME -->``.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this checkout, installed or not

from supervisord_async.core.inputs import Input  # noqa: E402
from supervisord_async.core.machine import INPUTS, TABLE, ignored  # noqa: E402
from supervisord_async.core.state import State  # noqa: E402

PAGE = ROOT / "docs" / "state-machine.md"


def words(name: str) -> str:
    """``StopRequested`` as ``stop requested``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def diagram() -> str:
    """A Mermaid state diagram: an arrow per pair of states, with the inputs that lead along it."""
    arrows: dict[tuple[State, State], list[type[Input]]] = {}
    for (state, kind), cell in TABLE.items():
        for target in cell.targets - {state}:
            arrows.setdefault((state, target), []).append(kind)
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> STOPPED"]
    for source in State:
        for target in State:
            kinds = arrows.get((source, target))
            # Any state can break, so those arrows would only hide the others.
            if kinds and target is not State.UNKNOWN:
                lines.append(f"    {source} --> {target}: {', '.join(words(kind.__name__) for kind in INPUTS if kind in kinds)}")
    lines += ["    note right of UNKNOWN: from any state, when supervision of the process broke", "```"]
    return "\n".join(lines)


def sentence(text: str | None) -> str:
    """A docstring's first paragraph on one line."""
    return " ".join((text or "").strip().split("\n\n")[0].split()).replace("|", "\\|")


def table() -> str:
    """One table per state: each input that does something, its rule's sentence, and where it may lead."""
    parts: list[str] = []
    for state in State:
        rows, idle = [], []
        for kind in INPUTS:
            cell = TABLE[state, kind]
            if cell.rule is ignored:
                idle.append(f"`{kind.__name__}`")
                continue
            targets = ", ".join(str(target) for target in State if target in cell.targets)
            rows.append(f"| `{kind.__name__}` | `{cell.rule.__name__}`: {sentence(cell.rule.__doc__)} | {targets} |")
        parts += [
            f"### {state}",
            "",
            "| input | rule | may lead to |",
            "| --- | --- | --- |",
            *rows,
            "",
            f"Ignored: {', '.join(idle)}.",
            "",
        ]
    return "\n".join(parts).rstrip()


def counts() -> str:
    """How large the machine is."""
    deciding = sum(cell.rule is not ignored for cell in TABLE.values())
    rules = len({cell.rule.__name__ for cell in TABLE.values()})
    return f"{len(State)} states × {len(INPUTS)} inputs = {len(TABLE)} cells; {deciding} decide, by {rules - 1} rules; the rest ignore."


SECTIONS: dict[str, Callable[[], str]] = {"counts": counts, "diagram": diagram, "table": table}


def regenerate(text: str) -> str:
    """The page with every section generated; raises ValueError where a section's marks are missing."""
    for name, make in SECTIONS.items():
        begin, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"no section {name!r} between {begin} and {end}")
        text = f"{before}{begin}\n{make()}\n{end}{after}"
    return text


def main() -> int:
    """0: up to date, or written; 1: ``--check`` found it out of date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 where a section is out of date")
    arguments = parser.parse_args()
    old = PAGE.read_text(encoding="utf-8")
    new = regenerate(old)
    if new == old:
        return 0
    if arguments.check:
        print(f"{PAGE.relative_to(ROOT)} is out of date: run scripts/generate_docs.py", file=sys.stderr)
        return 1
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
