"""Which files a tree has, in which order, and what is read of one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vmsvc_grpc.source import tree


def files(root: Path) -> list[str]:
    return [found.path for found in tree.walk(root) if isinstance(found, tree.File)]


def make(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def test_files_come_in_path_order(tmp_path: Path) -> None:
    paths = ["a.yaml", "a/b.yaml", "a-b.yml", "a/a/z.json", "a.b/c.yaml", "B.yaml", "é.yaml"]
    make(tmp_path, *paths, "a/readme.txt", ".x/a.yaml", "a/.b.yaml", "a.yaml~")
    assert files(tmp_path) == sorted(paths)


def test_directories_are_told_before_they_are_listed(tmp_path: Path) -> None:
    """So that nothing is missed by who watches them from then on."""
    make(tmp_path, "a/b/c.yaml")
    found = []
    for step in tree.walk(tmp_path):
        found.append(step)
        if isinstance(step, tree.Directory) and step.path == "a/b":
            make(tmp_path, "a/b/d.yaml")

    def directory(path: str) -> tree.Directory:
        status = (tmp_path / path).stat()
        return tree.Directory(path, False, (status.st_dev, status.st_ino))

    assert found == [
        *map(directory, ["", "a", "a/b"]),
        tree.File("a/b/c.yaml", False, False),
        tree.File("a/b/d.yaml", False, False),
    ]


def test_a_large_directory_is_listed_with_breaks(tmp_path: Path) -> None:
    for index in range(1200):
        (tmp_path / f"{index}.txt").touch()
    assert list(tree.walk(tmp_path))[1:] == [None, None]


def test_links_are_followed_and_told(tmp_path: Path) -> None:
    make(tmp_path, "real/x.yaml", "..data/y.yaml")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "y.yaml").symlink_to("..data/y.yaml")
    (tmp_path / "dangling.yaml").symlink_to("nowhere")
    assert [found for found in tree.walk(tmp_path) if isinstance(found, tree.File)] == [
        tree.File("dangling.yaml", True, True),
        tree.File("link/x.yaml", True, False),  # "real" is the same directory, and comes later.
        tree.File("y.yaml", True, True),
    ]


def test_loops_of_links_end(tmp_path: Path) -> None:
    make(tmp_path, "a/x.yaml", "b/y.yaml")
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "self").symlink_to("self")
    assert files(tmp_path) == ["a/b/y.yaml", "a/x.yaml"]


def test_what_cannot_be_listed_is_told(tmp_path: Path) -> None:
    assert list(tree.walk(tmp_path / "gone")) == [tree.Unlisted("", "No such file or directory")]
    make(tmp_path, "file.yaml")
    *_, last = tree.walk(tmp_path / "file.yaml")
    assert last == tree.Unlisted("", "Not a directory")


@pytest.mark.parametrize(
    ("path", "hidden", "manifest"),
    [
        ("a.yaml", False, True),
        ("a/b.yml", False, True),
        ("a/b.json", False, True),
        ("a/b.txt", False, False),
        (".a.yaml", True, False),
        ("a/.b.yaml", True, False),
        ("..data/a.yaml", True, False),
        ("a/..2026/b.yaml", True, False),
        ("a.b/c..yaml", False, True),
    ],
)
def test_names(path: str, hidden: bool, manifest: bool) -> None:
    assert tree.is_hidden(path) is hidden
    assert tree.is_manifest(path) is manifest


def test_a_signature_tells_a_file_that_was_written_or_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    assert tree.signature(path) is None
    path.write_text("a")
    first = tree.signature(path)
    assert tree.signature(path) == first
    make(tmp_path, "b.yaml")
    (tmp_path / "b.yaml").replace(path)
    second = tree.signature(path)
    assert isinstance(first, tree.Signature)
    assert isinstance(second, tree.Signature)
    assert second.inode != first.inode
    path.unlink()
    path.mkdir()
    assert tree.signature(path) is None


def test_a_signature_that_cannot_be_known(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File name too long"):
        tree.signature(tmp_path / ("a" * 300))


def test_what_is_named_like_a_file_and_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.symlink_to("a.yaml")
    loop = "this link leads to itself, or through too many links"
    assert tree.signature(path) == tree.Oddity(loop)
    path.unlink()
    path.symlink_to("nowhere")
    assert tree.signature(path) == tree.Oddity("this link leads to nothing")
    path.unlink()
    os.mkfifo(path)
    assert tree.signature(path) == tree.Oddity("this is a FIFO, not a file")
    path.unlink()
    path.symlink_to("/dev/null")
    assert tree.signature(path) == tree.Oddity("this is a device, not a file")


def test_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("é" * 5)
    content = tree.read_content(path, 10)
    assert content.bytes == "é".encode() * 5
    assert content.signature == tree.signature(path)
    assert content.digest == tree.read_content(path, 10).digest
    path.write_text("e")
    assert content.digest != tree.read_content(path, 10).digest
    path.write_text("é" * 5)
    with pytest.raises(OSError, match="more than 9 bytes; split it"):
        tree.read_content(path, 9)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(OSError, match="it is not a regular file"):
        tree.read_content(tmp_path / "a.yaml", 10)
