"""What an earlier version left in a spool when it was killed comes into the log, each byte once."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from supervisord_async.logs.spool import Meta, Source, Spool

#: Of commit a4da84c, killed after it had written 20 bytes of a batch of two lines, with a third line behind it: what is not 0, by offset.
SPOOL = {
    0: "ce99537802000000000000000100100000000000000d10000000000000c049f700a201000003",
    69: "14",
    128: "c0c59f8f03000000000000000100100000000000000d10000000000000c049f700a201000003",
    197: "14",
    512: (
        "56000000be738ebf7b2270617468223a20222f7372762f73686f702f6c696e65732e6c6f67222c2022666f726d6174223a20226a736f6e22"
        "2c20226e616d65223a20226c696e6573222c202273747265616d223a20227374646f7574227d"
    ),
    4096: "66697273740a7365636f6e640a74686972640a",
}
REST = (
    ':55:36.000Z","name":"lines","stream":"stdout","run":3,"line":"first"}\n'
    '{"at":"2026-11-22T01:55:36.000Z","name":"lines","stream":"stdout","run":3,"line":"second"}\n'
)


class Log:
    """What a log is to a spool, without a file."""

    target = SimpleNamespace(max_size_bytes=0)
    dev = ino = 0
    regular = False

    def __init__(self) -> None:
        self.text = b""

    def ready(self) -> int:
        return 0

    def may_rotate(self) -> bool:
        return False

    def write(self, part: Any, _size: int) -> int:
        self.text += bytes(part)
        return len(part)


def test_an_earlier_versions_spool_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "lines.stdout"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    for offset, data in SPOOL.items():
        os.pwrite(descriptor, bytes.fromhex(data), offset)
    spool = Spool(descriptor, str(path), Source("lines", "stdout"))
    assert spool.meta() == Meta(path="/srv/shop/lines.log", format="json", name="lines", stream="stdout")
    log: Any = Log()
    spool.resume(lambda _dev, _ino: None)
    spool.append(log)
    assert log.text.decode() == REST
    assert spool.read(100) == b"third\n"
    spool.close()
