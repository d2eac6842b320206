"""Each place to die, and each pair of them: no line is lost, doubled or torn. Random instants are test_killed's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from supervisord_async.logs import mover, spool
from supervisord_async.logs.target import Format, Target
from tests.logs.capturing import everything
from tests.logs.dying import Life, live
from tests.logs.test_killed import said


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few lines are many calls, batches, cuts of the spool, rotations and turns."""
    for name, size in {"SPOOL_CHUNK_BYTES": 50, "CHUNK_BYTES": 50, "BATCH_BYTES": 64, "LINE_BYTES": 64, "TURN_BYTES": 120}.items():
        monkeypatch.setattr(mover, name, size)
    monkeypatch.setattr(spool, "_CUT_BYTES", 60)


#: At which step an owner dies, and whether half of that is done.
Ending: TypeAlias = tuple[int, bool]


class Stream:
    """One stream, told so many lines, whose owners die; each time from the start."""

    def __init__(self, folder: Path, format_: Format, *, compress: bool, lines: int) -> None:
        self.tried = 0
        self._folder = folder
        self._lines = [b"%d " % number + b"x" * (number * 7919 % 23) + b"\n" for number in range(lines)]
        size = 500 if format_ == "json" else 150
        self._target = Target(str(folder / "x.log"), max_size_bytes=size, backups=1000, compress=compress, format=format_)
        self._journal = folder / "journal"

    def outlives(self, *lives: Life) -> Life:
        """After these owners, one by one, a last one has every line in the log; returns the last that may have died."""
        self._folder.mkdir()
        pipe_fd, child_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.write(child_fd, b"".join(self._lines))
        for life in (*lives, Life()):
            with pytest.MonkeyPatch.context() as patch, life.lived(patch):
                live(pipe_fd, self._target, self._journal, last=life not in lives)
        os.close(pipe_fd)
        os.close(child_fd)
        assert self._target.path is not None
        assert said(everything(self._target.path), self._target.format) == self._lines, [life.calls for life in lives]
        left = [path.name for path in self._folder.iterdir() if path.suffix == ".part"] + os.listdir(self._journal)
        assert not left, [life.calls for life in lives]
        shutil.rmtree(self._folder)
        self.tried += 1
        return lives[-1]


def deaths(stream: Stream, *before: Ending, fails: int | None = None, first: int = 1) -> Iterator[Ending]:
    """Every ending of an owner from step ``first`` on, tried; owners that ended as ``before`` says preceded it."""

    def died(ending: Ending) -> Life:
        return stream.outlives(*(Life(last, halfway=halfway) for last, halfway in before), Life(ending[0], halfway=ending[1], fails=fails))

    step = first
    while (life := died((step, False))).died:
        yield step, False
        if life.divided:
            died((step, True))
            yield step, True
        step += 1


@pytest.mark.parametrize(
    ("format_", "compress", "lines"),
    [("raw", False, 20), ("raw", True, 20), ("timestamp", False, 8), ("json", True, 8)],
)
def test_two_owners_in_succession_may_die_at_any_steps(tmp_path: Path, format_: Format, compress: bool, lines: int) -> None:
    """The second may die while it mends what the first left, or before it has said anything itself."""
    stream = Stream(tmp_path / "log", format_, compress=compress, lines=lines)
    for ending in deaths(stream):
        for _ in deaths(stream, ending):
            pass
    assert stream.tried > 100


@pytest.mark.parametrize(("format_", "compress", "lines"), [("raw", True, 20), ("timestamp", False, 8), ("json", True, 8)])
def test_an_owner_may_die_at_any_step_after_one_that_failed(tmp_path: Path, format_: Format, compress: bool, lines: int) -> None:
    """A disk that refuses one call, whichever, changes nothing in that."""
    stream = Stream(tmp_path / "log", format_, compress=compress, lines=lines)
    fails = 4  # before, the spool is made; if that fails it is in memory, and does not survive
    dies = True
    while dies:
        fails += 1
        dies = bool(list(deaths(stream, fails=fails, first=fails + 1)))
    assert stream.tried > 50
