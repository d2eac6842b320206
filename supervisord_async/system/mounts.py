"""What is mounted where, as we see it (``man 5 proc_pid_mountinfo``). The kernel knows that: no disk is accessed."""

from __future__ import annotations

import os
import re
import time
from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from supervisord_async.system import procfs

#: The mounts, of which some machines have thousands, are read again after this time.
FRESH_SECONDS = 1.0
#: Served by another machine, or a process: that may be away, and what others change there is not notified to this machine.
_SERVED_KINDS = frozenset({
    "9p", "afs", "autofs", "beegfs", "ceph", "cifs", "coda", "drvfs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "orangefs", "prl_fs",
    "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs",
})  # fmt: skip
_ESCAPED = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """A mounted file system, or a part of one."""

    point: str
    root: str  #: the part of it that is mounted there
    kind: str  #: ``ext4``, ``nfs4``, ``cgroup2``, …
    device: int  #: ``st_dev`` of the files on it; but btrfs has another one for each subvolume


def is_served(kind: str) -> bool:
    """Whether file systems of this kind ask another machine, or another process, for what is on them."""
    return kind in _SERVED_KINDS or kind.startswith("fuse")


def mounts() -> Iterator[Mount]:
    """All mounts; a later one hides earlier ones at the same point. Empty if there is no /proc."""
    for line in (procfs.read_file("/proc/self/mountinfo", 1 << 22) or b"").splitlines():
        head, _, tail = line.partition(b" - ")
        _, _, device, root, point = head.split()[:5]
        major, minor = map(int, device.split(b":"))
        yield Mount(_decoded(point), _decoded(root), _decoded(tail.split(b" ", 1)[0]), os.makedev(major, minor))


class MountTable:
    """Which disks a path needs, by its name and the mounts of a moment ago; symbolic links are not followed."""

    def __init__(self) -> None:
        """Nothing has been read yet."""
        self._read_at = float("-inf")
        self._devices: dict[str, int] = {}  #: by mount point
        self._points: list[str] = []  #: sorted

    def devices_at(self, path: str) -> frozenset[int]:
        """The devices mounted on the way to the absolute ``path``, at it, and below it; empty if there is no /proc."""
        return self.devices_on_way(path) | {self._devices[point] for point in self._below(path)}

    def devices_on_way(self, path: str) -> frozenset[int]:
        """As :meth:`devices_at`, without those below."""
        if time.monotonic() - self._read_at > FRESH_SECONDS:
            self._devices = {mount.point: mount.device for mount in mounts()}
            self._points = sorted(self._devices)
            self._read_at = time.monotonic()
        return frozenset(self._devices[point] for point in self._above(path))

    def _above(self, path: str) -> Iterator[str]:
        while True:
            if path in self._devices:
                yield path
            if path == (parent := os.path.dirname(path)):
                return
            path = parent

    def _below(self, path: str) -> Iterator[str]:
        prefix = path.rstrip("/") + "/"
        for place in range(bisect_left(self._points, prefix), len(self._points)):
            if not self._points[place].startswith(prefix):
                return
            yield self._points[place]


def _decoded(field: bytes) -> str:
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), field) if b"\\" in field else field)
