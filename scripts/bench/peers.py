"""The peers, installed outside the tree: PyPI's into virtual environments, pm2 by npm, Debian's unpacked from packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTHON_PEERS = ("supervisor", "circus", "honcho")
#: A peer and the Debian packages that it needs; the libraries' names carry a version, so they are asked for.
DEBIAN_PEERS = {"runit": ("runit",), "daemontools": ("daemontools",), "monit": ("monit",)}


@dataclass
class Tools:
    """Where everything is; a peer that could not be had is absent from ``versions``."""

    cache: Path
    child: Path
    spawner: Path
    versions: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def python(self, peer: str, program: str) -> str:
        return str(self.cache / f"venv-{peer}" / "bin" / program)

    @property
    def pm2(self) -> str:
        return str(self.cache / "npm" / "node_modules" / ".bin" / "pm2")

    @property
    def debian(self) -> Path:
        return self.cache / "debian"

    def environment(self) -> dict[str, str]:
        """Ours, with the unpacked packages in PATH."""
        root = self.debian
        folders = [root / "bin", root / "usr" / "bin", root / "sbin", root / "usr" / "sbin", root / "command"]
        return {**os.environ, "PATH": ":".join([*map(str, folders), os.environ.get("PATH", "/usr/bin:/bin")])}


def prepare(peers: set[str]) -> Tools:
    """The child is compiled, and those of ``peers`` that can be had are installed."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asup-bench"
    cache.mkdir(parents=True, exist_ok=True)
    tools = Tools(cache, cache / "bench_child", cache / "bench_spawner")
    compiler = os.environ.get("CC") or shutil.which("cc") or "cc"
    for source, target in ((HERE / "child.c", tools.child), (HERE / "spawner.c", tools.spawner)):
        draft = target.with_suffix(f".{os.getpid()}")
        _run(compiler, "-O2", "-static", "-o", str(draft), str(source))
        draft.replace(target)
    tools.versions["bare"] = _first_line(compiler, "--version")
    for name, install in _INSTALLERS.items():
        if name in peers:
            try:
                tools.versions[name] = install(tools)
            except (OSError, subprocess.CalledProcessError) as error:
                said = getattr(error, "stderr", "") or ""
                tools.missing[name] = f"{error} {said.strip()[-200:]}"
    return tools


def _python_peer(package: str) -> Callable[[Tools], str]:
    def install(tools: Tools) -> str:
        folder = tools.cache / f"venv-{package}"
        if not (folder / "bin" / "pip").exists():
            _run(sys.executable, "-m", "venv", str(folder))
            _run(str(folder / "bin" / "pip"), "-q", "install", package)
        code = f"import importlib.metadata as m; print(m.version({package!r}))"
        return _first_line(str(folder / "bin" / "python"), "-c", code)

    return install


def _pm2(tools: Tools) -> str:
    if not Path(tools.pm2).exists():
        _run("npm", "--prefix", str(tools.cache / "npm"), "install", "--no-audit", "--no-fund", "pm2")
    return _first_line("node", "-p", f"require('{tools.cache}/npm/node_modules/pm2/package.json').version")


def _debian_peer(name: str) -> Callable[[Tools], str]:
    def install(tools: Tools) -> str:
        packages = tools.cache / "packages"
        packages.mkdir(exist_ok=True)
        for package in DEBIAN_PEERS[name]:
            if not list(packages.glob(f"{package}_*.deb")):
                subprocess.run(["apt-get", "download", package], check=True, capture_output=True, text=True, cwd=packages)
                _run("dpkg", "-x", str(next(packages.glob(f"{package}_*.deb"))), str(tools.debian))
        return _output("dpkg-deb", "-f", str(next(packages.glob(f"{name}_*.deb"))), "Version").strip()

    return install


def _s6(_tools: Tools) -> str:
    """Debian's s6-svscan executes /usr/bin/s6-supervise, so this one is installed like any package, which takes root."""
    if not Path("/usr/bin/s6-supervise").exists():
        _run("apt-get", "install", "-y", "-q", "--no-install-recommends", "s6")
    return _output("dpkg-query", "-W", "-f", "${Version}", "s6")


_INSTALLERS = {
    "supervisord": _python_peer("supervisor"),
    "circus": _python_peer("circus"),
    "honcho": _python_peer("honcho"),
    "pm2": _pm2,
    "s6": _s6,
    "runit": _debian_peer("runit"),
    "daemontools": _debian_peer("daemontools"),
    "monit": _debian_peer("monit"),
}


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _first_line(*command: str) -> str:
    return _output(*command).strip().splitlines()[0]
