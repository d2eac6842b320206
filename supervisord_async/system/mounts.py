"""What is mounted where, as we see it (``man 5 proc_pid_mountinfo``). Read from the kernel: no disk is asked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from supervisord_async.system import procfs

_ESCAPED = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """A file system, or a part of one, at a place."""

    point: str
    root: str  #: the part of it that is seen there
    kind: str  #: ``ext4``, ``nfs4``, ``cgroup2``, …
    device: int  #: ``st_dev`` of what is on it; btrfs says another one for each subvolume


def mounts() -> Iterator[Mount]:
    """All of them; the later hide the earlier ones of the same place. None where there is no /proc."""
    for line in (procfs.read_file("/proc/self/mountinfo", 1 << 22) or b"").splitlines():
        head, _, tail = line.partition(b" - ")
        _, _, device, root, point = head.split()[:5]
        major, minor = map(int, device.split(b":"))
        yield Mount(_decoded(point), _decoded(root), _decoded(tail.split(b" ", 1)[0]), os.makedev(major, minor))


def _decoded(field: bytes) -> str:
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), field) if b"\\" in field else field)
