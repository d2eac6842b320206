"""Who may write in the run_dir commands the daemon: others than root and the daemon's user are told of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisord_async.supervise.run_dir import warn_of_others


def test_a_run_dir_of_ones_own_is_not_worth_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for mode in (0o755, 0o775, 0o1777):
        tmp_path.chmod(mode)
        warn_of_others(str(tmp_path))
    assert caplog.text == ""


def test_a_run_dir_in_which_anybody_may_write_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o777)
    warn_of_others(str(tmp_path))
    assert f"anybody may write in the run_dir {tmp_path}" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: folders of other users can be made by root only")
def test_a_run_dir_of_another_user_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.chown(tmp_path, 65501, 65501)
    warn_of_others(str(tmp_path))
    assert "user 65501, to whom it belongs, may write in the run_dir" in caplog.text
