"""Draws bars of some figures from the JSON of a run: ``plots.py FIGURES.json OUT.svg``. Plain SVG, no library."""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path

SHOWN = (
    "start 1000 [s]",
    "500 deaths at once [s]",
    "respawn, median [ms]",
    "memory 1000 [MiB]",
    "status API 1000 [ms]",
    "log throughput [MB/s]",
)
ROW, LABEL, BAR, GAP = 18, 130, 420, 34


def main() -> None:
    medians: dict[str, dict[str, float]] = json.loads(Path(sys.argv[1]).read_text())["medians"]
    parts: list[str] = []
    top = GAP
    for figure in (name for name in SHOWN if name in medians):
        parts.append(f'<text x="0" y="{top - 8}" font-weight="bold">{escape(figure)}</text>')
        most = max(medians[figure].values())
        for name, value in sorted(medians[figure].items(), key=lambda item: item[1]):
            colour = "#2563eb" if name == "asupd" else "#9ca3af"
            parts.append(
                f'<text x="{LABEL - 8}" y="{top + 13}" text-anchor="end">{escape(name)}</text>'
                f'<rect x="{LABEL}" y="{top + 2}" width="{max(1.0, BAR * value / most):.1f}" height="{ROW - 4}" fill="{colour}"/>'
                f'<text x="{LABEL + BAR * value / most + 6:.1f}" y="{top + 13}">{value:.3g}</text>'
            )
            top += ROW
        top += GAP
    size = f'width="{LABEL + BAR + 70}" height="{top}"'
    style = 'font-family="sans-serif" font-size="12"'
    background = '<rect width="100%" height="100%" fill="white"/>'
    Path(sys.argv[2]).write_text(f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{background}\n' + "\n".join(parts) + "\n</svg>\n")


if __name__ == "__main__":
    main()
