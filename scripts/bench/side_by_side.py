"""Side by side: the same workloads on asupd and on its peers, alternating, in one run. Prints tables with ratios, writes JSON.

Absolute figures belong to the machine and its load; only ratios between contestants of the same run mean anything.
"""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import processes
import report
from contestants import ALL, Contestant
from peers import Tools, prepare
from results import Results, about
from workloads import SHORT, SWIFT, Figures, IncompleteError, Sizes, workloads

LIMITS = ("bare", "child > file", "child | cat > file")
PEERS = ("supervisord", "daemontools", "s6", "runit", "circus", "pm2", "monit", "honcho")
ROUNDS = 5
#: About how long a workload takes one contestant (seconds) where nothing is known yet; slow ones take longer.
EXPECTED = {"fleet-1": 5, "fleet-10": 5, "fleet-20": 3, "fleet-100": 6, "fleet-1000": 15, "fleet-3000": 22}
EXPECTED |= {"respawn": 9, "crowd": 16, "log": 7, "fanin": 7}

Pair = tuple[str, str]  #: a workload and a contestant


def main() -> int:
    arguments = _arguments()
    asked = [name for name in arguments.peers.split(",") if name] if arguments.peers is not None else list(PEERS)
    unknown = set(asked) - set(PEERS)
    if unknown:
        print(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}", file=sys.stderr)
        return 2
    possible = workloads(_sizes(arguments))
    chosen = {key: work for key, work in possible.items() if not arguments.only or key.startswith(tuple(arguments.only.split(",")))}
    if not chosen:
        print(f"no such workload; there are {', '.join(possible)}", file=sys.stderr)
        return 2
    _raise_limit()
    processes.become_subreaper()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended
    tools = prepare(set(asked))
    for name, why in tools.missing.items():
        print(f"{name} cannot be had: {why}", file=sys.stderr)
    names = ["asupd", "asupd main", *LIMITS, *[name for name in asked if name in tools.versions]]
    pairs = [(workload, name) for workload in chosen for name in names if _takes_part(name, workload, alone=bool(arguments.minutes))]
    settings = {name: kind.settings for name, kind in ALL.items() if kind.settings}
    results = Results(about(tools, settings, " ".join(sys.argv[1:])), Path(arguments.json) if arguments.json else None)
    try:
        _measure(pairs, chosen, tools, results, arguments)
    except KeyboardInterrupt:
        print("ended early; what was measured is kept", file=sys.stderr)
    _tell(results, names)
    return 1 if any(what.startswith("asupd") for what in results.failures) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench/run", description=__doc__)
    parser.add_argument("--short", action="store_true", help="small sizes, one round: does the benchmark work?")
    parser.add_argument("--growth", action="store_true", help="10, 100, 1,000 and 3,000 programs instead of 1, 100 and 1,000")
    parser.add_argument("--minutes", type=float, metavar="N", help="all, and our growth, in so much time: five rounds, fewer of the slow")
    parser.add_argument("--only", metavar="WORKLOADS", help="names or beginnings, by commas: fleet-1000, fleet, respawn, crowd, log, fanin")
    parser.add_argument("--peers", metavar="NAMES", help=f"by commas, of {', '.join(PEERS)}; default all; '' none")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"medians of so many; default {ROUNDS}, with --short 1")
    parser.add_argument("--json", metavar="FILE", help="keep the figures, the machine and the versions there, from the first figure on")
    return parser.parse_args()


def _sizes(arguments: argparse.Namespace) -> Sizes:
    if arguments.short:
        return SHORT
    if arguments.minutes:
        return SWIFT
    return Sizes(fleets=(10, 100, 1000, 3000)) if arguments.growth else Sizes()


def _takes_part(name: str, workload: str, *, alone: bool) -> bool:
    kind = ALL[name]
    if name in ("child > file", "child | cat > file"):
        return workload in ("log", "fanin")
    if alone and workload in ("fleet-10", "fleet-3000"):  # only to see ours grow
        return name == "asupd"
    if workload.startswith("fleet-") and int(workload.partition("-")[2]) > kind.most:
        return False
    return workload not in kind.lacks


def _measure(pairs: list[Pair], works: dict[str, Any], tools: Tools, results: Results, arguments: argparse.Namespace) -> None:
    """Round after round, each of everything: an abort leaves whole ones."""
    rounds = arguments.rounds or (1 if arguments.short else ROUNDS)
    begin = time.monotonic()
    expected = sum(EXPECTED.get(workload, 3) for workload, _ in pairs) * rounds / 60
    limit = f", but no more than {arguments.minutes:g}" if arguments.minutes else ""
    print(f"{len(pairs)} pairs of a workload and a contestant, {rounds} rounds: about {expected:.0f} minutes{limit}", file=sys.stderr)
    shares = dict.fromkeys(pairs, rounds)
    for number in range(rounds):
        for workload, name in _rotated(pairs, number):
            late = arguments.minutes and time.monotonic() - begin > arguments.minutes * 60
            if number < shares[workload, name] and not late:
                _one(ALL[name], tools, workload, works[workload], results)
        results.rounds = number + 1
        results.save()
        if number == 0 and arguments.minutes:
            costs = {pair: results.seconds.get(f"{pair[0]} {pair[1]}", [0.0])[0] for pair in pairs}
            shares = share(costs, rounds, arguments.minutes * 60 - (time.monotonic() - begin))
            left = sum(costs[pair] * (count - 1) for pair, count in shares.items()) / 60
            print(f"round 1 took {(time.monotonic() - begin) / 60:.1f} minutes; the others will take about {left:.0f}", file=sys.stderr)


def share(costs: dict[Pair, float], rounds: int, seconds: float) -> dict[Pair, int]:
    """How many rounds each pair has so that all rounds but the first fit into ``seconds``: what costs most has fewer.

    asupd and the limits have all of them, whatever they cost.
    """
    shares = dict.fromkeys(costs, rounds)
    total = sum(cost * (rounds - 1) for cost in costs.values())
    while total > seconds:
        thinned = [pair for pair, count in shares.items() if count > 1 and pair[1] not in ("asupd", *LIMITS)]
        if not thinned:
            break
        most = max(thinned, key=lambda pair: costs[pair] * (shares[pair] - 1))
        shares[most] -= 1
        total -= costs[most]
    return shares


def _rotated(pairs: list[Pair], number: int) -> list[Pair]:
    """No one is always first, or always after the same one."""
    found: list[Pair] = []
    for workload in dict.fromkeys(workload for workload, _ in pairs):
        names = [name for work, name in pairs if work == workload]
        turn = number % len(names)
        found += [(workload, name) for name in names[turn:] + names[:turn]]
    return found


def _one(kind: type[Contestant], tools: Tools, workload: str, work: Callable[..., Figures], results: Results) -> None:
    print(f"{workload}: {kind.name}", end=" … ", file=sys.stderr, flush=True)
    begin = time.monotonic()
    figures: Figures = {}
    try:
        figures = work(kind, tools)
    except Exception as error:  # whatever one contestant does, the others are measured
        if not isinstance(error, IncompleteError):
            traceback.print_exc()
        results.failures[f"{kind.name}, {workload}"] = str(error) or repr(error)
        print(f"FAILED: {error}", file=sys.stderr)
    else:
        print(f"{time.monotonic() - begin:.1f} s", file=sys.stderr)
    results.add(workload, kind.name, figures, time.monotonic() - begin)


def _tell(results: Results, names: list[str]) -> None:
    print(report.table(results.medians, names))
    if growth := report.growth(results.medians, names):
        print(f"\n{growth}\n")
    print("\n".join(f"{name}: {ALL[name].settings}" for name in names if ALL[name].settings))
    for what, why in results.failures.items():
        print(f"{what}: {why}")


def _raise_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
