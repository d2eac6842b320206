"""Bars of some figures of a run, as plain SVG without a library. ``report.py`` writes them beside the page."""

from __future__ import annotations

from html import escape

SHOWN = (
    "start 1000 [s]",
    "500 deaths at once [s]",
    "respawn, median [ms]",
    "memory 1000 [MiB]",
    "status API 1000 [ms]",
    "log throughput [MB/s]",
)
ROW, LABEL, BAR, GAP = 18, 130, 420, 34


def bars(medians: dict[str, dict[str, float]]) -> str:
    """The whole file: a bar for each contestant, under each figure that is shown and was measured."""
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
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{background}\n' + "\n".join(parts) + "\n</svg>\n"
