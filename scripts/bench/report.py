#!/usr/bin/env python3
"""Tables of a run's figures: on the screen, and with ``report.py FIGURES.json`` in docs/benchmarks.md, with its bars beside it.

Only what stands between the markers in the page is replaced.
"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import plots

DOCS = Path(__file__).resolve().parents[2] / "docs"
#: A peer that cannot be had, or has no such thing.
NONE = "–"
#: A marker's name and what stands between it and its end.
_SECTION = r"(<!-- {0} -->\n).*?(\n<!-- end of {0} -->)"
_SIZED = re.compile(r"(?P<what>.+) (?P<count>\d+) (?P<unit>\[.+\])")

Medians = dict[str, dict[str, float]]


def table(medians: Medians, names: list[str]) -> str:
    """Markdown: a row for each figure, each peer's figure with its ratio to ours."""
    used = [name for name in names if any(name in by_name for by_name in medians.values())]
    rows = [["", *[name.replace("|", "\\|") for name in used]]]
    for figure, by_name in medians.items():
        ours = by_name.get("asupd")
        rows.append([figure, *[_cell(name, by_name.get(name), ours) for name in used]])
    return _markdown(rows)


def exponent(values: dict[int, float]) -> float:
    """The slope of a straight line through the logarithms: 1 means twice the programs, twice the figure."""
    points = [(math.log(count), math.log(value)) for count, value in values.items() if value > 0]
    mean_x, mean_y = (sum(column) / len(points) for column in zip(*points, strict=True))
    square = sum((x - mean_x) ** 2 for x, _ in points)
    return float(sum((x - mean_x) * (y - mean_y) for x, y in points) / square)


def growth(medians: Medians, names: list[str]) -> str:
    """Markdown: what was measured with two numbers of programs or more, and the exponent."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for figure, by_name in medians.items():
        if (match := _SIZED.fullmatch(figure)) is not None:
            for name, value in by_name.items():
                found.setdefault((f"{match['what']} {match['unit']}", name), {})[int(match["count"])] = value
    found = {key: values for key, values in found.items() if key[1] in names and len(_grown(values)) >= 2}
    counts = sorted({count for values in found.values() for count in values})
    rows = [["", "", *[f"{count:,}" for count in counts], "exponent"]]
    for (what, name), values in sorted(found.items(), key=lambda item: (item[0][0], names.index(item[0][1]))):
        cells = [_number(values[count]) if count in values else NONE for count in counts]
        rows.append([what, name.replace("|", "\\|"), *cells, f"{exponent(_grown(values)):.2f}"])
    return _markdown(rows) if len(rows) > 1 else ""


def _grown(values: dict[int, float]) -> dict[int, float]:
    """Those that tell of growth: with less than ten programs it is the daemon alone, and what is not there has no logarithm."""
    return {count: value for count, value in values.items() if count >= 10 and value > 0}


def describe(document: dict[str, Any]) -> str:
    """Where, when and with what, in one paragraph."""
    machine, versions = document["machine"], document["versions"]
    peers = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()) if name != "bare")
    counts = [len(values) for by_name in document["all"].values() for values in by_name.values()]
    changed = " (with changes)" if document["changed_since"] else ""
    rounds = f"medians of {min(counts, default=0)} to {max(counts, default=0)} rounds"
    return (
        f"{document['at']}, commit {document['commit'][:12]}{changed}: {rounds}; "
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory']} of memory, load {machine['load'][0]:.1f} at the start; "
        f"Linux {machine['kernel']}, {machine['system']}, Python {machine['python']}; {peers or 'no peers'}."
    )


def update_docs(document: dict[str, Any], docs: Path = DOCS) -> None:
    """The page has these figures and no others, and the bars are drawn anew."""
    page = docs / "benchmarks.md"
    text = page.read_text()
    medians = document["medians"]
    names = _order(medians, document["settings"])
    failures = "".join(f"\n- {what}: {' '.join(why.split())}" for what, why in document["failures"].items())
    most = max(map(len, document["seconds"].values()), default=0)
    fewer = ", ".join(f"{pair} {len(times)}" for pair, times in document["seconds"].items() if len(times) < most)
    rounds = f"\nFewer than {most} rounds, since they take long: {fewer}.\n" if fewer else ""
    sections = {
        "figures": f"\n{describe(document)}\n\n{table(medians, names)}\n{rounds}{failures}",
        "growth": f"\n{growth(medians, names)}\n",
        "settings": "\n" + "\n".join(f"- {name}: {document['settings'][name]}" for name in names if document["settings"].get(name)) + "\n",
    }
    for name, content in sections.items():
        text, replaced = re.subn(_SECTION.format(name), lambda match, new=content: match[1] + new + match[2], text, flags=re.DOTALL)  # type: ignore[misc]
        if not replaced:
            raise SystemExit(f"{page} has no place for {name}: <!-- {name} --> and <!-- end of {name} --> are missing")
    page.write_text(text)
    (docs / "benchmarks.svg").write_text(plots.bars(medians))


def _order(medians: Medians, settings: dict[str, str]) -> list[str]:
    """Limits first, then ours, then the peers in the order of their table."""
    used = {name for by_name in medians.values() for name in by_name}
    limits = [name for name in ("bare", "child > file", "child | cat > file") if name in used]
    peers = used - {*limits, "asupd"}
    known = [name for name in settings if name in peers]
    return [*limits, "asupd", *known, *sorted(peers - set(known))]


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _cell(name: str, value: float | None, ours: float | None) -> str:
    if value is None:
        return NONE
    return _number(value) if name == "asupd" or not ours else f"{_number(value)} (×{value / ours:.2g})"


def _markdown(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    update_docs(json.loads(Path(sys.argv[1]).read_text()))
