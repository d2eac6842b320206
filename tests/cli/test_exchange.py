"""HTTP as the client reads it: answers in every shape that HTTP/1.1 allows, cut ones, and nonsense."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_async.client import exchange as exchange_module
from supervisord_async.client.exchange import Answer, CutError, GarbledError, exchange


def answered(*pieces: bytes) -> Answer:
    """What the client makes of an answer that comes in these pieces and then ends."""
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(10)

        def speak() -> None:
            there.recv(65536)
            for piece in pieces:
                there.sendall(piece)
            there.shutdown(socket.SHUT_WR)

        speaker = threading.Thread(target=speak)
        speaker.start()
        try:
            return exchange(here, "GET", "/", None, {})
        finally:
            speaker.join()


def test_sized_answer_is_kept() -> None:
    assert answered(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello") == (200, b"hello", True)


def test_answer_that_says_close_is_not_kept() -> None:
    assert answered(b"HTTP/1.1 404 \r\ncontent-length: 2\r\nConnection: Close\r\n\r\n{}") == (404, b"{}", False)


def test_answer_without_size_ends_with_the_connection() -> None:
    assert answered(b"HTTP/1.0 200 OK\r\n\r\nhel", b"lo") == (200, b"hello", False)


def test_answer_without_content() -> None:
    assert answered(b"HTTP/1.1 204 No Content\r\n\r\n") == (204, b"", True)


def test_interim_answers_are_passed_over() -> None:
    assert answered(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1").content == b"1"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\nB\r\n, here I am\r\n0\r\ntrailer: 1\r\n\r\n"


@given(st.lists(st.integers(1, len(CHUNKED) - 1), max_size=6))
def test_chunks_may_come_in_any_pieces(cuts: list[int]) -> None:
    places = [0, *sorted(set(cuts)), len(CHUNKED)]
    assert answered(*(CHUNKED[a:b] for a, b in pairwise(places))) == (200, b"hello, here I am", True)


@pytest.mark.parametrize("cut", ["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", "HTTP/1.1 200 OK\r\ncont", CHUNKED[:70].decode()])
def test_cut_answer(cut: str) -> None:
    with pytest.raises(CutError):
        answered(cut.encode())


def test_connection_that_ends_before_an_answer() -> None:
    with pytest.raises(ConnectionError):
        answered()


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\n" + 70_000 * b"a",
    ],
)
def test_nonsense_is_refused(nonsense: bytes) -> None:
    with pytest.raises(GarbledError):
        answered(nonsense)


def test_chunks_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "LARGEST_ANSWER_BYTES", 25)
    chunk = b"a\r\n0123456789\r\n"
    begin = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    assert answered(begin, 2 * chunk, b"0\r\n\r\n").content == b"0123456789" * 2
    with pytest.raises(GarbledError, match="larger than any daemon's"):
        answered(begin, 3 * chunk, b"0\r\n\r\n")


@given(st.binary(max_size=200))
def test_whatever_comes_is_an_answer_or_one_of_three_errors(noise: bytes) -> None:
    for begin in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"):
        with suppress(ConnectionError, CutError, GarbledError):
            answered(begin + noise)
