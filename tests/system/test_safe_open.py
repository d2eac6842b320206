"""Links that others laid lead no further than their own rights reach; those of root and of ourselves lead anywhere."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from supervisord_async.system.safe_open import held_folder, open_file
from tests.strangers import STRANGER, lay

OTHER = 65502
WRITE = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: files of other users can be made by root only")


def write(path: Path | str, *, make_folders: bool = False) -> None:
    """Something was written through the name."""
    fd = open_file(str(path), WRITE, 0o644, make_folders=make_folders)
    os.write(fd, b"x")
    os.close(fd)


def refused(path: Path | str, *, make_folders: bool = False) -> str:
    """Why the file was not opened."""
    with pytest.raises(OSError) as caught:
        write(path, make_folders=make_folders)
    assert (caught.value.errno, caught.value.filename) == (errno.ELOOP, str(path))
    return str(caught.value.strerror)


def test_a_strangers_link_makes_no_file_of_ours_and_changes_none(tmp_path: Path, theirs: Path) -> None:
    there = tmp_path / "ours"
    there.write_bytes(b"")
    assert f"a symbolic link on the way belongs to user {STRANGER}" in refused(lay(theirs / "log", there))
    refused(lay(theirs / "new", tmp_path / "new"))
    assert there.read_bytes() == b"" and not (tmp_path / "new").exists()


@pytest.mark.parametrize("target", ["absolute", "../inner"])
def test_a_strangers_link_to_a_folder_leads_nowhere_else_either(tmp_path: Path, theirs: Path, target: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    lay(theirs / "logs", inner if target == "absolute" else target)
    refused(theirs / "logs" / "x.log")
    refused(theirs / "logs" / "deep" / "x.log", make_folders=True)
    assert not list(inner.iterdir())
    with pytest.raises(OSError, match="symbolic link"), held_folder(str(theirs / "logs")):
        pass


def test_a_stranger_may_lead_to_a_folder_of_his_own(theirs: Path) -> None:
    (theirs / "shared").mkdir()
    os.chown(theirs / "shared", STRANGER, STRANGER)
    lay(theirs / "current", "shared")
    write(theirs / "current" / "x.log")
    write(lay(theirs / "y.log", theirs / "shared" / "y.log"))
    for _ in range(2):  # the folder is made, and is ours then
        write(theirs / "current" / "deep" / "z.log", make_folders=True)
    assert {path.name for path in (theirs / "shared").iterdir()} == {"x.log", "y.log", "deep"}
    with held_folder(str(theirs / "current")) as there:
        assert os.path.samefile(there, theirs / "shared")


def test_what_is_deeper_in_a_strangers_folder_need_not_be_his(theirs: Path) -> None:
    (theirs / "root" / "etc").mkdir(parents=True)  # a system's tree, say, for chroot
    refused(lay(theirs / "log", "root/etc/passwd"))
    write(lay(theirs / "other", "root/log"))  # `mv root other` would have done


def test_a_stranger_may_not_lead_to_another_strangers_folder(tmp_path: Path, theirs: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    os.chown(other, OTHER, OTHER)
    refused(lay(theirs / "log", other / "authorized_keys"))
    lay(other / "way", theirs, OTHER)
    refused(lay(theirs / "back", other / "way" / "log"))  # two users laid links on one way
    assert not list(theirs.glob("authorized_keys")) and {path.name for path in other.iterdir()} == {"way"}


def test_links_of_root_and_of_our_own_lead_anywhere(tmp_path: Path, theirs: Path) -> None:
    (tmp_path / "inner").mkdir()
    (theirs / "logs").symlink_to("../inner")
    (theirs / "far").symlink_to(theirs / "logs")
    write(theirs / "far" / "x.log")
    (theirs / "y.log").symlink_to("far/y.log")
    write(theirs / "y.log")
    assert {path.name for path in (tmp_path / "inner").iterdir()} == {"x.log", "y.log"}


def test_a_way_through_proc_is_the_kernels_but_no_strangers(tmp_path: Path, theirs: Path) -> None:
    reading, writing = os.pipe()
    write(f"/proc/self/fd/{writing}")
    write(f"/dev/fd/{writing}")
    assert os.read(reading, 9) == b"xx"
    refused(lay(theirs / "log", f"/proc/{os.getpid()}/fd/{writing}"))
    for fd in (reading, writing):
        os.close(fd)


def test_a_file_of_ours_to_which_a_stranger_gave_a_second_name_is_not_opened(tmp_path: Path, theirs: Path) -> None:
    ours = tmp_path / "ours"
    ours.write_bytes(b"")
    (theirs / "log").hardlink_to(ours)  # as he could, where fs.protected_hardlinks is 0
    assert "another name elsewhere" in refused(theirs / "log")
    assert ours.read_bytes() == b""
    own = theirs / "own"
    own.write_bytes(b"")
    os.chown(own, STRANGER, STRANGER)
    (theirs / "copy").hardlink_to(own)
    write(theirs / "copy")
    (tmp_path / "backup").hardlink_to(ours)
    write(ours)


def test_links_in_a_circle_and_missing_folders_are_errors_as_ever(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert refused(tmp_path / "a") == os.strerror(errno.ELOOP)
    assert refused(tmp_path / "a" / "x.log") == os.strerror(errno.ELOOP)
    with pytest.raises(FileNotFoundError, match=r"missing/x\.log"):
        write(tmp_path / "missing" / "x.log")
    with pytest.raises(NotADirectoryError):
        write("/etc/passwd/x.log", make_folders=True)


def test_nothing_stays_open(tmp_path: Path, theirs: Path) -> None:
    before = os.listdir("/proc/self/fd")
    lay(theirs / "log", tmp_path / "x")
    (theirs / "way").symlink_to("../theirs")
    write(theirs / "way" / "deep" / "y.log", make_folders=True)
    refused(theirs / "log")
    (tmp_path / "ours").touch()
    (theirs / "second").hardlink_to(tmp_path / "ours")
    refused(theirs / "second")
    with held_folder(str(theirs / "way")):
        pass
    assert os.listdir("/proc/self/fd") == before
