"""Large blocks stay out of the heap. In a process of its own: it is told once for all."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import ctypes
from supervisord_async.system import heap

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info
heap.return_large_blocks()
for _ in range(3):  # the first one that is freed would be taken for a sign
    before = mallinfo().hblkhd
    block = bytearray(1_000_000)
    assert mallinfo().hblkhd - before >= 1_000_000, "it is in the heap"
    del block
    assert mallinfo().hblkhd == before, "it is kept"
"""


def test_large_blocks_are_the_kernels_again_when_they_are_freed() -> None:
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("not this C library")
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr
