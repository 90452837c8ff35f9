"""What is opened beneath a directory, and what is not."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from vmsvc_grpc import beneath


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


def put(sort: str, path: Path) -> None:
    """Put something of a sort at a path."""
    elsewhere = path.parent.parent / "elsewhere"
    match sort:
        case "a directory":
            path.mkdir()
        case "a FIFO":
            os.mkfifo(path)
        case "a socket":
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(str(path))
        case "a symbolic link":
            path.symlink_to(elsewhere)


SORTS = ("a directory", "a FIFO", "a socket", "a symbolic link")


def test_directories_are_made_where_they_are_wanted(root: Path) -> None:
    with pytest.raises(FileNotFoundError), beneath.directory(root, "a", "b"):
        pass
    (root / "a").mkdir()
    with beneath.directory(root, "a", "b", make=True) as opened:
        assert os.fstat(opened).st_ino == (root / "a" / "b").stat().st_ino
    root = root / "new" / "newer"
    with beneath.directory(root, make=True):
        assert root.is_dir()


def test_a_directory_is_closed_after_the_block_and_after_an_error(root: Path) -> None:
    before = len(list(Path("/dev/fd").iterdir()))
    with beneath.directory(root, "a", make=True):
        pass
    with pytest.raises(FileNotFoundError), beneath.directory(root, "a", "b"):
        pass
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_the_root_may_be_a_link_and_nothing_below_it(root: Path) -> None:
    other = root.parent / "other"
    other.symlink_to(root)
    with beneath.directory(other, "a", make=True):
        assert (root / "a").is_dir()
    (root / "link").symlink_to(root / "a")
    for names in (("link",), ("link", "below")):
        with pytest.raises(NotADirectoryError, match="link is a symbolic link, not a directory"):  # noqa: SIM117
            with beneath.directory(root, *names, make=True):
                pass
    assert list((root / "a").iterdir()) == []


@pytest.mark.parametrize("sort", SORTS)
def test_only_regular_files_are_opened(sort: str, root: Path) -> None:
    put(sort, root / "a")
    (root / "file").write_text("text")
    with beneath.directory(root) as parent:
        with pytest.raises(OSError, match=f"it is {sort}, not a regular file"):
            beneath.open_file("a", parent)
        with pytest.raises(FileNotFoundError):
            beneath.open_file("nothing", parent)
        with os.fdopen(beneath.open_file("file", parent)) as file:
            assert file.read() == "text"


@pytest.mark.parametrize("sort", SORTS)
def test_a_file_is_made_in_the_place_of_nothing_else(sort: str, root: Path) -> None:
    put(sort, root / "a")
    before = (root / "a").lstat()
    with beneath.directory(root) as parent:
        with pytest.raises(FileExistsError, match=f"a is {sort}, and in the way"):
            beneath.create_file("a", parent, b"text")
        assert (root / "a").lstat().st_ino == before.st_ino
        assert not (root.parent / "elsewhere").exists()
        (root / "b").write_text("half a tex")
        beneath.create_file("b", parent, b"text")
        assert (root / "b").read_text() == "text"


def test_the_umask_is_honoured(root: Path) -> None:
    before = os.umask(0o027)
    try:
        with beneath.directory(root) as parent:
            beneath.create_file("a", parent, b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o640


def test_devices_are_named() -> None:
    assert beneath.file_type(Path("/dev/null").stat()) == "a device"
