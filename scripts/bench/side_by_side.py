"""Side by side: the same workloads on asupd and on its peers, alternating, in one run. Prints a table with ratios, writes JSON.

Absolute figures belong to the machine and its load; only ratios between contestants of the same run mean anything.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import processes
from contestants import ALL, Contestant
from peers import Tools, prepare
from workloads import SHORT, Figures, IncompleteError, Sizes, workloads

ROOT = Path(__file__).resolve().parents[2]
LIMITS = ("bare", "child > file", "child | cat > file")
PEERS = ("supervisord", "daemontools", "s6", "runit", "circus", "pm2", "honcho")
#: A peer that cannot be had, or has no such thing.
NONE = "–"


def main() -> int:
    arguments = _arguments()
    sizes = SHORT if arguments.short else Sizes(fleets=(1, 100, 1000)) if not arguments.growth else Sizes(fleets=(10, 100, 1000, 3000))
    rounds = arguments.rounds or (1 if arguments.short else 5)
    asked = [name for name in arguments.peers.split(",") if name] if arguments.peers is not None else list(PEERS)
    unknown = set(asked) - set(PEERS)
    if unknown:
        print(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}", file=sys.stderr)
        return 2
    _raise_limit()
    processes.become_subreaper()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended
    tools = prepare(set(asked))
    for name, why in tools.missing.items():
        print(f"{name} cannot be had: {why}", file=sys.stderr)
    names = ["asupd", *LIMITS, *[name for name in asked if name in tools.versions]]
    chosen = {key: work for key, work in workloads(sizes).items() if not arguments.only or key.startswith(tuple(arguments.only.split(",")))}
    if not chosen:
        print(f"no such workload; there are {', '.join(workloads(sizes))}", file=sys.stderr)
        return 2
    results: dict[str, dict[str, list[float]]] = {}
    failures: dict[str, str] = {}
    for workload, work in chosen.items():
        contestants = [name for name in names if _takes_part(name, workload)]
        for number in range(rounds):
            for name in _rotated(contestants, number):  # no one is always first, or always after the same one
                figures = _one(ALL[name], tools, workload, work, failures)
                for figure, value in figures.items():
                    results.setdefault(figure, {}).setdefault(name, []).append(value)
    medians = {figure: {name: statistics.median(values) for name, values in by_name.items()} for figure, by_name in results.items()}
    table = _table(medians, names)
    print(table)
    print("\n".join(f"{name}: {ALL[name].settings}" for name in names if ALL[name].settings))
    for what, why in failures.items():
        print(f"{what}: {why}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(_document(tools, medians, results, failures, rounds), indent=1) + "\n")
    return 1 if any(what.startswith("asupd") for what in failures) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench/run", description=__doc__)
    parser.add_argument("--short", action="store_true", help="small sizes, one round: does the benchmark work?")
    parser.add_argument("--growth", action="store_true", help="10, 100, 1,000 and 3,000 programs instead of 1, 100 and 1,000")
    parser.add_argument("--only", metavar="WORKLOADS", help="names or beginnings, by commas: fleet-1000, fleet, respawn, crowd, log, fanin")
    parser.add_argument("--peers", metavar="NAMES", help=f"by commas, of {', '.join(PEERS)}; default all; '' none")
    parser.add_argument("--rounds", type=int, metavar="N", help="medians of so many; default 5, with --short 1")
    parser.add_argument("--json", metavar="FILE", help="write the figures, the machine and the versions there")
    return parser.parse_args()


def _takes_part(name: str, workload: str) -> bool:
    kind = ALL[name]
    if name in ("child > file", "child | cat > file"):
        return workload in ("log", "fanin")
    if workload.startswith("fleet-") and int(workload.partition("-")[2]) > kind.most:
        return False
    return workload not in kind.lacks


def _rotated(names: list[str], number: int) -> list[str]:
    turn = number % len(names) if names else 0
    return names[turn:] + names[:turn]


def _one(kind: type[Contestant], tools: Tools, workload: str, work: Any, failures: dict[str, str]) -> Figures:
    print(f"{workload}: {kind.name}", end=" … ", file=sys.stderr, flush=True)
    begin = time.monotonic()
    try:
        figures: Figures = work(kind, tools)
    except (IncompleteError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        failures[f"{kind.name}, {workload}"] = str(error)
        print(f"FAILED: {error}", file=sys.stderr)
        return {}
    print(f"{time.monotonic() - begin:.1f} s", file=sys.stderr)
    return figures


def _table(medians: dict[str, dict[str, float]], names: list[str]) -> str:
    """Markdown: a row for each figure, each peer's figure with its ratio to ours."""
    used = [name for name in names if any(name in by_name for by_name in medians.values())]
    rows = [["", *[name.replace("|", "\\|") for name in used]]]
    for figure, by_name in medians.items():
        ours = by_name.get("asupd")
        rows.append([figure, *[_cell(name, by_name.get(name), ours) for name in used]])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def _cell(name: str, value: float | None, ours: float | None) -> str:
    if value is None:
        return NONE
    text = f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
    return text if name == "asupd" or not ours else f"{text} (×{value / ours:.2g})"


def _document(
    tools: Tools, medians: dict[str, dict[str, float]], results: dict[str, dict[str, list[float]]], failures: dict[str, str], rounds: int
) -> dict[str, Any]:
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    cpu = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "?"
    )
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit,
        "machine": {
            "cpu": cpu,
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "load": os.getloadavg(),
        },
        "versions": tools.versions,
        "missing": tools.missing,
        "rounds": rounds,
        "settings": {name: kind.settings for name, kind in ALL.items()},
        "medians": medians,
        "all": results,
        "failures": failures,
    }


def _raise_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
