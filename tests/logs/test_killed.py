"""Kill -9 at any instant: no line is lost, doubled or torn."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from supervisord_async.logs import rotation
from tests.logs.killing import line

KILLS = int(os.environ.get("ASUP_TEST_KILLS", "80"))


def everything(path: str) -> bytes:
    """A log with all its backups, the oldest first."""
    parts = []
    for _, file in reversed(rotation.backups_of(path)):
        data = Path(file).read_bytes()
        parts.append(gzip.decompress(data) if file.endswith(".gz") else data)
    return b"".join(parts) + Path(path).read_bytes()


def said(written: bytes, format_: str) -> list[bytes]:
    """The lines as the child said them."""
    lines = written.splitlines(keepends=True)
    if format_ == "timestamp":
        return [found[25:] for found in lines]
    if format_ == "json":
        return [json.loads(found)["line"].encode() + b"\n" for found in lines]
    return lines


@pytest.mark.parametrize("packing", ["plain", "gzip"])
@pytest.mark.parametrize("format_", ["raw", "timestamp", "json"])
def test_no_line_is_lost_doubled_or_torn_by_kills_at_random_instants(tmp_path: Path, format_: str, packing: str) -> None:
    """A child writes numbered lines while owner after owner is killed; the log, over all rotations, has each once."""
    seed = int.from_bytes(os.urandom(4))
    command = [sys.executable, "-m", "tests.logs.killing", str(tmp_path), format_, str(KILLS), str(seed), packing]
    done = subprocess.run(command, capture_output=True, timeout=110, check=False)
    assert done.returncode == 0, f"seed {seed}: {done.stderr.decode()}"
    answer = json.loads(done.stdout)
    assert answer["status"] == 0
    assert answer["spools"] == []
    found = said(everything(str(tmp_path / "x.log")), format_)
    for number, (is_, should) in enumerate(zip(found, map(line, range(answer["lines"])), strict=False)):
        assert is_ == should, f"seed {seed}: line {number} is {is_[:60]!r}"
    assert len(found) == answer["lines"], f"seed {seed}"
    assert answer["lines"] > KILLS
