"""What notices mean, and where to look after one; and what the system gives notice of."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from vmsvc_grpc.source.inotify import DirectoryWatch, How, PathNotices, Where, where

DIRECTORIES = frozenset({"", "known", "gone"})
DEADLINE_S = 20.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "known").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "new.yaml").mkdir()
    (tmp_path / "link").symlink_to("known")
    (tmp_path / "..data").symlink_to("..2026")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("a.yaml", Where.THERE, id="a file"),
        pytest.param("known/a.yaml", Where.THERE, id="a file in a directory"),
        pytest.param("a.txt", Where.NOWHERE, id="no manifest"),
        pytest.param("new", Where.EVERYWHERE, id="a directory"),
        pytest.param("new.yaml", Where.EVERYWHERE, id="one that is named like a file"),
        pytest.param("gone", Where.EVERYWHERE, id="one that is gone"),
        pytest.param("new/a.yaml", Where.EVERYWHERE, id="a file in one that is not known yet"),
        pytest.param("link", Where.AT_LINKS, id="a link to a directory"),
        pytest.param("", Where.EVERYWHERE, id="the directory itself"),
        pytest.param(".a.yaml.tmp", Where.NOWHERE, id="a hidden file"),
        pytest.param(".git/index", Where.NOWHERE, id="a file in a hidden directory"),
    ],
)
def test_where_to_look(root: Path, path: str, expected: Where) -> None:
    assert where(path, root, DIRECTORIES, is_directory=False, linked=False) is expected


def test_a_directory_that_is_gone_was_one(root: Path) -> None:
    found = where("unknown", root, DIRECTORIES, is_directory=True, linked=False)
    assert found is Where.EVERYWHERE


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("..data", Where.AT_LINKS, id="a hidden link"),
        pytest.param("..2026", Where.EVERYWHERE, id="a hidden directory"),
    ],
)
def test_where_there_are_links_they_may_lead_through_what_is_hidden(
    root: Path, path: str, expected: Where
) -> None:
    assert where(path, root, DIRECTORIES, is_directory=False, linked=True) is expected


def test_of_a_path_the_last_notice_counts() -> None:
    notices = PathNotices()
    for how in (How.PLACED, How.WRITTEN, How.CLOSED, How.TOUCHED):
        notices.add("a", how)
    notices.add("b", How.TOUCHED)
    assert notices.how == {"a": How.CLOSED, "b": How.TOUCHED}
    assert not notices.missed


def test_more_notices_than_that_are_one() -> None:
    notices = PathNotices()
    for index in range(10_001):
        notices.add(str(index), How.WRITTEN)
    assert notices.how == {}
    assert notices.missed


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[DirectoryWatch]:
    made = DirectoryWatch(tmp_path)
    made.open()
    made.directory("")
    assert made.unwatched() is None
    yield made
    made.close()


async def noticed(watch: DirectoryWatch) -> dict[str, How]:
    async with asyncio.timeout(DEADLINE_S):
        await watch.noticed.wait()
    return watch.take().how


async def test_says_how_a_file_came_to_be(tmp_path: Path, watch: DirectoryWatch) -> None:
    with (tmp_path / "a").open("w") as file:
        assert await noticed(watch) == {"a": How.ANOTHER}
        file.write("1")
        file.flush()
        assert await noticed(watch) == {"a": How.WRITTEN}
    assert await noticed(watch) == {"a": How.CLOSED}
    (tmp_path / "a").chmod(0o600)
    assert await noticed(watch) == {"a": How.TOUCHED}
    (tmp_path / "a").rename(tmp_path / "b")
    assert await noticed(watch) == {"a": How.ANOTHER, "b": How.PLACED}
    (tmp_path / "b").unlink()
    assert await noticed(watch) == {"b": How.ANOTHER}


async def test_names_that_are_no_text(tmp_path: Path, watch: DirectoryWatch) -> None:
    name = os.fsdecode(b"\xff\n")
    (tmp_path / name).mkdir()
    notices = watch.take() if await noticed(watch) == {name: How.ANOTHER} else PathNotices()
    watch.directory(name)
    (tmp_path / name / "a").touch()
    assert list(await noticed(watch)) == [f"{name}/a"]
    assert not notices.missed


async def test_a_file_elsewhere_that_links_lead_to(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "elsewhere").write_text("1")
    watch = DirectoryWatch(tmp_path / "tree")
    watch.open()
    for name in ("a", "b"):
        (tmp_path / "tree" / name).symlink_to(tmp_path / "elsewhere")
        watch.linked_file(name)
    (tmp_path / "elsewhere").write_text("2")
    assert await noticed(watch) == {"a": How.CLOSED, "b": How.CLOSED}
    watch.keep({"b"})
    (tmp_path / "elsewhere").write_text("3")
    assert await noticed(watch) == {"b": How.CLOSED}
    watch.keep(set())
    watch.close()


async def test_what_is_gone_or_may_not_be_read_is_nobodys_limit(
    tmp_path: Path, watch: DirectoryWatch
) -> None:
    watch.directory("gone")
    watch.linked_file("gone.yaml")
    (tmp_path / "file").touch()
    watch.directory("file")
    watch.directory("x" * 300)
    assert watch.unwatched() is None
