"""cgroup v2: the kernel's own group of each run's processes, from which neither forking nor daemonising escapes.

Theory of operation. A daemon that may divide its own cgroup makes ``asupd-INSTANCE/NAME.RUN`` below it, one for each run.
A process that left its session, wiped its environment and lost its parent is still listed there, and one write to
``cgroup.kill`` ends all that is in it, however fast it forks (``Documentation/admin-guide/cgroup-v2.rst`` of the kernel).
The name has the run's tag in it, so nothing needs to be saved: an instance's runs are found by the names of its folders.

A run starts in its cgroup: we step into it, fork, and step back (:func:`forking_into`). To move the new child instead costs half
as much, but comes too late on a busy machine: when that was tried, one in twenty that daemonised at once had escaped.

Reading takes no lock, but to move a process the kernel first waits for a grace period of RCU, some 10 ms (measured: 4 to
20), unless there was a move just before; and so does whoever makes or removes a cgroup meanwhile. So :func:`warm_up` is for a
thread; within :data:`WARM_SECONDS` after it a move takes some 5 to 50 µs, more with more threads in this process.

Absent: controllers. No resource is limited here, and no controller is enabled below us.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from supervisord_async.system import procfs
from supervisord_async.system.identity import Identity, of
from supervisord_async.system.mounts import mounts
from supervisord_async.system.pidfd import open_pidfd

#: For this long after a move the next one certainly does not block.
WARM_SECONDS = 0.002
#: Exists where systemd runs the machine, and so owns all cgroups but those that it has delegated.
SYSTEMD = "/run/systemd/system"

#: The folder is gone, or went while we read; it is not ours; it is a threaded cgroup, whose processes are listed in its parent.
_NOT_TOLD = frozenset({errno.ENOENT, errno.ENODEV, errno.EACCES, errno.EPERM, errno.EOPNOTSUPP})
#: Replaces the colon of a replica's name in a folder's name, as a colon separates fields in /proc/PID/cgroup.
_COLON = "~"


class UnusableError(Exception):
    """Runs cannot have cgroups here; the message says why."""


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One cgroup, including those that its processes made below it. It may vanish at any moment, which is not an error."""

    path: str

    @property
    def is_populated(self) -> bool:
        """Whether a process lives in it, or below."""
        return b"populated 1" in _read(f"{self.path}/cgroup.events")

    def pids(self) -> set[int]:
        """The living processes in it; each may have ended by the time this returns."""
        if not self.is_populated:
            return set()
        return {pid for folder in self._folders() for pid in map(int, _read(f"{folder}/cgroup.procs").split()) if pid != 0}

    def confines(self, pid: int) -> bool:
        """Whether ``pid`` is in it, or below; False if we are too, as then it tells nobody apart. Cheap for most that are not."""
        name = os.fsencode("/".join(self.path.rsplit("/", 2)[1:]))
        return name in (procfs.read_file(f"/proc/{pid}/cgroup") or b"") and self._holds(pid) and not self._holds("self")

    def _holds(self, pid: int | str) -> bool:
        try:
            return f"{folder_of(pid)}/".startswith(f"{self.path}/")
        except UnusableError:
            return False

    def add(self, pid: int) -> None:
        """Move ``pid`` (0: ourselves) into it, unless it is dead. The PID must be certain. Raises OSError if it may not be moved."""
        try:
            _write(f"{self.path}/cgroup.procs", pid)
        except ProcessLookupError:
            return

    def take_in(self, identity: Identity) -> None:
        """Move that very process into it, unless it is gone; never one that got its PID. Raises OSError, UnusableError if that fails."""
        pidfd = open_pidfd(identity)
        if pidfd is None:
            return
        ended = select.poll()  # not select(), which takes no descriptors above 1023
        ended.register(pidfd, select.POLLIN)
        try:
            self.add(identity.pid)
            if not ended.poll(0):
                return  # it lives, so the PID was its own all the time
        finally:
            os.close(pidfd)
        stranger = procfs.stat(identity.pid)
        if stranger is not None and of(stranger) != identity and stranger.pid in self.pids():
            Cgroup(folder_of(stranger.parent)).add(stranger.pid)  # back to where it started

    def kill(self) -> None:
        """Kill everything in it, including children forked meanwhile. Raises OSError if we may not."""
        try:
            _write(f"{self.path}/cgroup.kill", 1)
        except FileNotFoundError:
            return

    def remove(self) -> bool:
        """Remove it with all below it. Returns False if something lives in it (then it is unchanged), or if we may not remove it."""
        if self.is_populated:
            return False
        for folder in reversed(list(self._folders())):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True

    def _folders(self) -> Iterator[str]:
        """Its own folder and those below it, parents first."""
        yield self.path
        yield from _below(self.path)


def folder_of(pid: int | str = "self") -> str:
    """The folder of the cgroup that ``pid`` is in. Raises UnusableError if there is none that we can see."""
    lines = (procfs.read_file(f"/proc/{pid}/cgroup") or b"").decode(errors="surrogateescape").splitlines()
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if path is None:
        raise UnusableError("the kernel has no cgroup v2")
    for mount, root in _mounts() if "/.." not in path else []:
        if f"{path}/".startswith(f"{root.rstrip('/')}/") and not path.endswith(" (deleted)"):
            return (mount + path[len(root.rstrip("/")) :]).rstrip("/")
    raise UnusableError("cgroup v2 is not mounted, or not where we are in it")


def is_in(pid: int, cgroup: Cgroup) -> bool:
    """Whether ``pid`` is in that very cgroup, not one below it; False if the process is gone."""
    try:
        return folder_of(pid) == cgroup.path
    except UnusableError:
        return False


def ground_of(instance: str) -> str:
    """The cgroup below which those of the runs of ``instance`` can be made, as far as can be seen. Raises UnusableError.

    It is our own; or, if we are in the cgroup of one of an earlier daemon's runs, the one that is divided already.
    """
    own = folder_of().partition(f"/{_home_name(instance)}/")[0]
    if os.geteuid() == 0 and os.path.isdir(SYSTEMD) and not _is_delegated(own):
        raise UnusableError(f"systemd runs this machine and has not delegated {own} (Delegate=yes in the unit)")
    for path in (own, f"{own}/cgroup.procs"):
        if not os.access(path, os.W_OK, effective_ids=True):
            raise UnusableError(f"{path} is not writable")
    return own


def make_home(instance: str) -> str:
    """Make the folder for the runs of ``instance``, with ourselves outside of it; returns its path. Blocks for some 10 ms.

    Raises UnusableError, and then leaves no folder.
    """
    own = ground_of(instance)
    home = f"{own}/{_home_name(instance)}"
    try:
        warm_up(Cgroup(own))
        os.makedirs(home, exist_ok=True)
    except OSError as error:
        raise UnusableError(f"{own}: {error.strerror}") from error
    if not os.path.exists(f"{home}/cgroup.kill"):
        why = "the kernel has no cgroup.kill (Linux 5.14)"
    elif (kind := _read(f"{home}/cgroup.type").strip()) != b"domain":
        why = f"{own}: its children are {kind.decode()}"
    else:
        return home
    Cgroup(home).remove()
    raise UnusableError(why)


def warm_up(own: Cgroup | None = None) -> Cgroup:
    """Move ourselves to ``own`` (default: where we are), and return it; moves just after this are quick. Blocks for some 10 ms.

    Raises OSError, UnusableError if nothing can be moved.
    """
    own = own or Cgroup(folder_of())
    own.add(0)
    return own


@contextmanager
def forking_into(cgroup: Cgroup, own: Cgroup, on_stranded: Callable[[OSError], None]) -> Iterator[None]:
    """A child forked in this context starts in ``cgroup``: we are in it meanwhile, and in ``own`` again afterwards.

    ``on_stranded`` is called if we cannot step back. Raises OSError on entry if we may not move there.
    """
    with open(f"{own.path}/cgroup.procs", "wb", buffering=0) as back:  # opened first: later no descriptor may be free for it
        cgroup.add(0)
        try:
            yield
        finally:
            try:
                back.write(b"0")
            except OSError as error:
                on_stranded(error)


def run_folder(home: str, tag: str) -> Cgroup:
    """The cgroup for the run of that tag, which need not exist."""
    name, _, run = tag.partition("/")[2].rpartition("/")
    return Cgroup(f"{home}/{name.replace(':', _COLON)}.{run}")


def homes_of(instance: str) -> list[str]:
    """The folders of an instance, wherever its daemons made them. Looks at every cgroup: to be called off the loop."""
    return [folder for mount, _ in _mounts() for folder in _below(mount, stop_at=_home_name(instance)) if _is_home(folder, instance)]


def of_instance(instance: str) -> dict[str, Cgroup]:
    """The cgroups of an instance's runs, by tag, except one that we are in ourselves. To be called off the loop."""
    found: dict[str, Cgroup] = {}
    try:
        own = f"{folder_of()}/"
    except UnusableError:
        own = ""
    for home in homes_of(instance):
        for folder in _children(home):
            name, _, run = os.path.basename(folder).rpartition(".")
            cgroup = Cgroup(folder)
            tag = f"{instance}/{name.replace(_COLON, ':')}/{run}"
            if run.isdecimal() and not own.startswith(f"{folder}/") and (tag not in found or cgroup.is_populated):
                found[tag] = cgroup
    return found


def remove_all(instance: str) -> None:
    """Remove all folders of an instance in which nothing lives."""
    for home in homes_of(instance):
        for folder in _children(home):
            Cgroup(folder).remove()
        Cgroup(home).remove()


def _home_name(instance: str) -> str:
    return f"asupd-{instance}"


def _is_home(folder: str, instance: str) -> bool:
    return os.path.basename(folder) == _home_name(instance)


def _is_delegated(folder: str) -> bool:
    for name in ("trusted.delegate", "user.delegate"):
        try:
            if os.getxattr(folder, name) == b"1":
                return True
        except OSError:
            continue
    return False


def _mounts() -> list[tuple[str, str]]:
    """Where cgroup v2 is mounted, each with the cgroup at the root of the mount."""
    return [(mount.point, mount.root) for mount in mounts() if mount.kind == "cgroup2"]


def _children(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        if error.errno in _NOT_TOLD:
            return []
        raise


def _below(folder: str, *, stop_at: str = "") -> Iterator[str]:
    """All folders below, parents first; does not descend into folders named ``stop_at``."""
    if _is_leaf(folder):
        return
    for child in _children(folder):
        yield child
        if os.path.basename(child) != stop_at:
            yield from _below(child, stop_at=stop_at)


def _is_leaf(folder: str) -> bool:
    """Whether no cgroup is below. By the link count, which saves listing a folder of 40 files."""
    try:
        return os.stat(folder).st_nlink == 2  # its parent's entry and its own "."
    except OSError as error:
        if error.errno in _NOT_TOLD:
            return True
        raise


def _read(path: str) -> bytes:
    """The file's content; empty if it is gone or may not be read. Raises OSError if no descriptor is free."""
    try:
        return procfs.read_file(path, 1 << 22) or b""
    except OSError as error:
        if error.errno in _NOT_TOLD:
            return b""
        raise


def _write(path: str, number: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, b"%d" % number)
    finally:
        os.close(descriptor)
