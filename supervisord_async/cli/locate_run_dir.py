"""Finds the run_dir that is meant by ``--run-dir``, ``-c FILE`` or ``-s SOCKET``, even if its daemon hangs or is dead."""

from __future__ import annotations

import os
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from supervisord_async.cli.locate import DEFAULT_FILE, candidates, is_same, named_in
from supervisord_async.daemon_registry import DEFAULT_RUN_DIR, LOCK_NAME, default_place, recall
from supervisord_async.errors import UsageError
from supervisord_async.system.lock import InstanceLock
from supervisord_async.wire import ENV_SOCKET

if TYPE_CHECKING:
    from supervisord_async.cli.session import Session

run_dir_option = click.option("--run-dir", metavar="DIR", help="The daemon's run_dir, if no file names it.")


def find_run_dir(session: Session, run_dir: str | None) -> str:
    """The absolute path of the run_dir that is meant; it need not exist.

    FILE has several candidates: the run_dir that it names, the one on record for its last daemon (which ``--run-dir`` may have
    set), and the default beside it. All but one of its own that FILE names count only if their last daemon served FILE, as far as
    that is known. The first that a daemon holds is chosen, else the first that had a daemon, else the first of all. FILE may be
    broken. Raises UsageError if nothing says which run_dir is meant.
    """
    if run_dir is not None:
        return os.path.abspath(run_dir)
    socket = session.socket or (os.environ.get(ENV_SOCKET) if session.file is None else None)
    if socket:
        folder = os.path.dirname(os.path.abspath(socket))
        if os.path.exists(os.path.join(folder, LOCK_NAME)):
            return folder
        raise UsageError(f"cannot tell the run_dir: none is at {folder} (use --run-dir DIR or -c FILE)")
    file = session.file or DEFAULT_FILE
    if session.file is None and not Path(file).exists() and recall(file) is None and not Path(DEFAULT_RUN_DIR).exists():
        raise UsageError(f"cannot tell the run_dir: there is no {DEFAULT_FILE} here (use -c FILE or --run-dir DIR)")
    named = named_in(file)
    places = dict.fromkeys(place.run_dir for place in candidates(file, named))
    own = named.run_dir if named is not None and named.run_dir != default_place(file).run_dir else None
    others = {each: other for each in places if each != own and (other := _other_file(each, file)) is not None}
    ours = [each for each in places if each not in others]
    if not ours:
        place, other = others.popitem()
        raise UsageError(f"cannot tell the run_dir of {file}: {place} is of {other} (give it a daemon.run_dir, or use --run-dir DIR)")
    held = (each for each in ours if InstanceLock(os.path.join(each, LOCK_NAME)).holder() is not None)
    had = (each for each in ours if os.path.exists(os.path.join(each, LOCK_NAME)))
    return next(chain(held, had, ours))


def _other_file(run_dir: str, file: str) -> str | None:
    """The file that the last daemon of ``run_dir`` served, if that is not ``file``; None if it is, or is not known."""
    from supervisord_async.supervise.recovery.termination import file_of

    served = file_of(run_dir)
    beside = run_dir == default_place(file).run_dir
    return served if served is not None and not is_same(served, file, beside=beside) else None
