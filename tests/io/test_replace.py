"""Files appear under their names only when complete; what an output path may be."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path

import pytest

from fewbit.errors import InputError
from fewbit.files.replace import replacing

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links, modes and locks of POSIX")


def write(path: Path, text: str = "new") -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def test_the_target_of_a_link_is_written_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    link.symlink_to(Path("folder") / "target")
    for text in ("first", "second"):  # the link leads nowhere at first
        write(link, text)
        assert link.is_symlink()
        assert target.read_text() == text
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["folder", "link", "target"]


def test_links_in_a_circle_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        write(tmp_path / "a")


def test_devices_and_pipes_are_refused_and_stay(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (Path("/dev/null"), pipe):
        with pytest.raises(InputError, match="is a device or a pipe"):
            write(path)
        assert not stat.S_ISREG(path.stat().st_mode)


def test_the_mode_of_the_old_file_is_kept_and_a_new_one_follows_the_umask(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.touch()
    old.chmod(0o640)
    before = os.umask(0o027)
    try:
        write(old)
        write(new)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (old, new)] == [0o640, 0o640]
    assert old.read_text() == "new"
    old.chmod(0o604)
    write(old)
    assert stat.S_IMODE(old.stat().st_mode) == 0o604


def test_names_of_255_bytes_can_be_written(tmp_path: Path) -> None:
    name = "x" * 255
    write(tmp_path / name)
    assert os.listdir(tmp_path) == [name]


def test_temporary_names_are_new_each_time(tmp_path: Path) -> None:
    names = set()
    for _ in range(3):
        with replacing(tmp_path / "file") as temporary:
            assert temporary.parent == tmp_path
            assert temporary.stat().st_size == 0
            names.add(temporary.name)
    assert len(names) == 3


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")

    def stop() -> None:
        with replacing(file) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_temporary_files_of_killed_processes_are_deleted(tmp_path: Path) -> None:
    file, abandoned = tmp_path / "file", tmp_path / ".fewbit-0123456789abcdef.part"
    elsewhere = tmp_path / "elsewhere"
    link = tmp_path / ".fewbit-fedcba9876543210.part"
    elsewhere.write_text("not ours")
    abandoned.touch()
    link.symlink_to(elsewhere)
    hour_ago = time.time() - 3600
    for path in (abandoned, elsewhere):
        os.utime(path, (hour_ago, hour_ago))
    with replacing(file) as in_use:
        os.utime(in_use, (hour_ago, hour_ago))  # as old, but a process has it locked
        assert not abandoned.exists()
        write(tmp_path / "other")
        assert in_use.exists()
    assert file.exists()
    assert link.is_symlink()
    assert elsewhere.read_text() == "not ours"
