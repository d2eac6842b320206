"""What a run of the benchmark has measured so far: kept in a file from the first figure on, so that an abort loses nothing."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peers import Tools

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Results:
    """By figure and contestant all values; what failed and why; how long each workload took each contestant."""

    about: dict[str, Any]
    path: Path | None = None
    all: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    rounds: int = 0

    @property
    def medians(self) -> dict[str, dict[str, float]]:
        """Of all rounds so far."""
        return {figure: {name: statistics.median(values) for name, values in by_name.items()} for figure, by_name in self.all.items()}

    def add(self, workload: str, name: str, figures: dict[str, float], seconds: float) -> None:
        """One contestant's figures of one round are in the file."""
        for figure, value in figures.items():
            self.all.setdefault(figure, {}).setdefault(name, []).append(value)
        self.seconds.setdefault(f"{workload} {name}", []).append(seconds)
        self.save()

    def document(self) -> dict[str, Any]:
        """As it is written."""
        return {
            **self.about,
            "ended_at": now(),
            "rounds": self.rounds,
            "medians": self.medians,
            "all": self.all,
            "failures": self.failures,
            "seconds": self.seconds,
        }

    def save(self) -> None:
        """The file is whole, always."""
        if self.path is not None:
            draft = self.path.with_name(f"{self.path.name}.{os.getpid()}")
            draft.write_text(json.dumps(self.document(), indent=1) + "\n")
            draft.replace(self.path)


def about(tools: Tools, settings: dict[str, str], mode: str) -> dict[str, Any]:
    """Where, with what and of what the figures are."""
    return {
        "at": now(),
        "commit": _git("rev-parse", "HEAD"),
        "changed_since": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "mode": mode,
        "machine": {
            "cpu": _first("/proc/cpuinfo", "model name"),
            "cores": os.cpu_count(),
            "memory": _first("/proc/meminfo", "MemTotal"),
            "kernel": platform.release(),
            "system": platform.freedesktop_os_release().get("PRETTY_NAME", "?") if Path("/etc/os-release").exists() else "?",
            "python": platform.python_version(),
            "load": os.getloadavg(),
        },
        "versions": tools.versions,
        "missing": tools.missing,
        "settings": settings,
    }


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False).stdout.strip()


def _first(path: str, key: str) -> str:
    lines = Path(path).read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "?")
