"""The daemon's own log has each record at a level that says whether somebody should look."""

import logging

import pytest

from supervisord_async.core.record import Record
from supervisord_async.supervise.records.log_lines import log_record


@pytest.mark.parametrize(
    ("kind", "to", "level"),
    [
        ("state", "RUNNING", logging.INFO),
        ("state", "BACKOFF", logging.WARNING),
        ("state", "FATAL", logging.ERROR),
        ("health", "unhealthy", logging.INFO),  # its probe tells what is wrong, as a warning
        ("flapping", "true", logging.WARNING),
        ("flapping", "false", logging.INFO),
        ("config_refused", None, logging.ERROR),
    ],
)
def test_what_is_wrong_is_a_warning_and_its_end_is_none(kind: str, to: str | None, level: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "asupd")
    log_record(Record(id=1, at=0.0, type=kind, to=to, name="web", message="said"))
    [line] = caplog.records
    assert line.levelno == level
