"""What notices mean: where to look, and what was put in place whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from watchfiles import Change

from vmsvc_grpc.source.watch import Hints, Notice, hints

ADDED, MODIFIED, DELETED = Change.added, Change.modified, Change.deleted
DIRECTORIES = frozenset({"", "known", "gone"})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "known").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "new.yaml").mkdir()
    (tmp_path / "link").symlink_to("known")
    (tmp_path / "..data").symlink_to("..2026")
    return tmp_path


@pytest.mark.parametrize(
    ("notices", "expected"),
    [
        pytest.param([], Hints(), id="none"),
        pytest.param(
            [(MODIFIED, "a.yaml")], Hints(changed={"a.yaml"}), id="a file that was written to"
        ),
        pytest.param(
            [(ADDED, "known/a.yaml")],
            Hints(changed={"known/a.yaml"}, replaced={"known/a.yaml"}),
            id="a file that was made, or put in the place of another",
        ),
        pytest.param(
            [(ADDED, "a.yaml"), (DELETED, "a.yaml")],
            Hints(changed={"a.yaml"}),
            id="a file that was removed before it was made",
        ),
        pytest.param([(DELETED, "a.yaml")], Hints(changed={"a.yaml"}), id="one that is gone"),
        pytest.param([(ADDED, "a.txt"), (DELETED, "b")], Hints(), id="no manifests"),
        pytest.param([(ADDED, "new")], Hints(everywhere=True), id="a directory"),
        pytest.param([(ADDED, "new.yaml")], Hints(everywhere=True), id="one named like a file"),
        pytest.param([(DELETED, "gone")], Hints(everywhere=True), id="a directory that is gone"),
        pytest.param(
            [(MODIFIED, "new/a.yaml")],
            Hints(everywhere=True),
            id="a file in a directory that is not known yet",
        ),
        pytest.param(
            [(ADDED, "link")],
            Hints(everywhere=True, links_swapped=True),
            id="a link to a directory",
        ),
        pytest.param([(MODIFIED, "")], Hints(everywhere=True), id="the directory itself"),
        pytest.param(
            [(DELETED, "")],
            Hints(everywhere=True, watch_lost=True),
            id="the directory itself, gone",
        ),
        pytest.param(
            [(ADDED, ".a.yaml.tmp"), (DELETED, ".a.yaml.tmp"), (MODIFIED, ".git/index")],
            Hints(),
            id="hidden files",
        ),
    ],
)
def test_hints(root: Path, notices: list[Notice], expected: Hints) -> None:
    assert hints(set(notices), root, DIRECTORIES, linked=False) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("..data", Hints(everywhere=True, links_swapped=True), id="a hidden link"),
        pytest.param("..2026/a.yaml", Hints(everywhere=True), id="a file in a hidden directory"),
    ],
)
def test_where_there_are_links_they_may_lead_through_what_is_hidden(
    root: Path, path: str, expected: Hints
) -> None:
    assert hints({(ADDED, path)}, root, DIRECTORIES, linked=True) == expected
