"""The small languages of values."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_async.config import units


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (5, 5.0),
        (0.25, 0.25),
        ("5", 5.0),
        ("500ms", 0.5),
        ("5s", 5.0),
        ("1m30s", 90.0),
        ("1m 30s", 90.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
        ("1.5h", 5400.0),
        ("1d2h3m4s5ms", 93784.005),
        ("0s", 0.0),
    ],
)
def test_durations_are_read_in_seconds(written, seconds):
    assert units.parse_duration(written) == pytest.approx(seconds, abs=1e-12)


@pytest.mark.parametrize(
    "written", ["soon", "", "s", "5 apples", "1s1m", "-5s", "5ss", "1e3s", "٥s", "9" * 30, "99999999d", -1, float("inf"), float("nan")]
)
def test_what_is_no_duration_is_refused(written):
    with pytest.raises(ValueError, match="expected a duration such as 5s"):
        units.parse_duration(written)


@given(st.floats(min_value=0, max_value=1e8, allow_nan=False))
def test_a_formatted_duration_is_read_back_the_same(seconds):
    seconds = round(seconds, 9)
    assert units.parse_duration(units.format_duration(seconds)) == pytest.approx(seconds, abs=1e-9)


def test_durations_are_written_the_way_people_write_them():
    assert [units.format_duration(s) for s in (0, 0.5, 5, 90, 7200, 86400.25)] == ["0s", "500ms", "5s", "1m30s", "2h", "1d250ms"]


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (1024, 1024),
        ("1024", 1024),
        ("50MiB", 50 * 2**20),
        ("10MB", 10**7),
        ("1.5KiB", 1536),
        ("7B", 7),
        ("2 GiB", 2**31),
        ("3kB", 3000),
        ("3KB", 3000),
    ],
)
def test_sizes_are_read_in_bytes(written, size):
    assert units.parse_size(written) == size


@pytest.mark.parametrize(
    ("size", "written"), [(0, 0), (1000, 1000), (1024, "1KiB"), (1536, 1536), (50 * 2**20, "50MiB"), (3 * 2**30, "3GiB"), (2**40, "1TiB")]
)
def test_sizes_are_shown_in_the_largest_unit_that_is_exact(size, written):
    assert units.format_size(size) == written


@pytest.mark.parametrize("written", ["50M", "big", "-1", "MiB", "5 parsecs", "9" * 18 + "TiB"])
def test_what_is_no_size_is_refused(written):
    with pytest.raises(ValueError, match="expected a size such as 50MiB"):
        units.parse_size(written)


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("term", 15),
        (15, 15),
        ("15", 15),
        ("USR2", signal.SIGUSR2),
        ("RTMIN+2", signal.SIGRTMIN + 2),
        ("RTMAX-1", signal.SIGRTMAX - 1),
    ],
)
def test_signals_are_read_by_name_and_number(written, number):
    assert units.parse_signal(written) == number
    assert units.parse_signal(units.format_signal(number)) == number


@pytest.mark.parametrize("written", ["", "NOPE", 0, 99, "0", "TERM+1", "RTMAX+9", "9" * 5000])
def test_what_is_no_signal_is_refused(written):
    with pytest.raises(ValueError, match="expected a signal such as TERM"):
        units.parse_signal(written)


def test_a_misspelt_signal_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'TERM'"):
        units.parse_signal("TREM")


@pytest.mark.parametrize(("written", "bits"), [("022", 0o22), ("22", 0o22), (22, 0o22), ("0o600", 0o600), ("0600", 0o600), ("0", 0)])
def test_octal_digits_mean_the_same_with_and_without_quotes(written, bits):
    assert units.parse_octal(written) == bits


@pytest.mark.parametrize("written", ["8", "rw", "77777", -1])
def test_other_digits_are_no_octal(written):
    with pytest.raises(ValueError, match="octal"):
        units.parse_octal(written)


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:80", ("::1", 80)),
        (":80", ("127.0.0.1", 80)),
        (80, ("127.0.0.1", 80)),
        ("a.b:0", ("a.b", 0)),
    ],
)
def test_addresses_are_host_and_port(written, address):
    assert units.parse_address(written) == address


@pytest.mark.parametrize("written", ["", "host", "host:", "host:65536", "::1:80", "[::1:80", "::1]:80", "http://x:80", "a b:80", "x:-1"])
def test_what_is_no_address_is_refused(written):
    with pytest.raises(ValueError, match="HOST:PORT"):
        units.parse_address(written)


def test_loopback_is_what_only_this_machine_reaches():
    assert all(map(units.is_loopback, ("127.0.0.1", "127.9.9.9", "localhost", "::1")))
    assert not any(map(units.is_loopback, ("0.0.0.0", "::", "10.0.0.1", "127.evil.org", "127.1", "shop.example")))
