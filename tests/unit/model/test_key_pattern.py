"""Which patterns of keys can match one at all."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vmsvc_grpc.model import validate
from vmsvc_grpc.model.key_pattern import key_matching

VAIN = [
    "",
    " ",
    "a b",
    "[",
    "]",
    "a]",
    "[]",
    "[!]",
    "[b-a]",
    "!x",
    "a=b",
    "a/b/c",
    "*/b/*",
    "/",
    "/a",
    "a/",
    "*/",
    "-a",
    "a-",
    "*_",
    "a..b/c",
    ".a/b",
    "a_b/c",
    "a-/b",
    "é",
    "a" * 64,
    "a" * 254 + "/b",
    "a/" + "b" * 64,
    "[/]*",
    "*[/][/]*",
    "a" * 100_000,
]

GOOD = [
    "*",
    "?",
    "a",
    "team",
    "*/*",
    "example.com/*",
    "*.example.com/*",
    "[ab]",
    "[!a]",
    "[!/]*",
    "a[-._/]b",
    "a?b",
    "*-*",
    "*a*b*c*",
    "[]a]",
    "*************/x",
    "a" * 63,
    "?" * 64 + "/a",
    "a" * 253 + "/" + "b" * 63,
    "kubernetes.io/metadata.name",
]


@pytest.mark.parametrize("pattern", VAIN)
@pytest.mark.parametrize("prefix_case_counts", [True, False])
def test_a_pattern_that_matches_no_key(pattern: str, prefix_case_counts: bool) -> None:
    assert key_matching(pattern, prefix_case_counts=prefix_case_counts) is None


@pytest.mark.parametrize("pattern", GOOD)
@pytest.mark.parametrize("prefix_case_counts", [True, False])
def test_a_pattern_that_matches_a_key(pattern: str, prefix_case_counts: bool) -> None:
    key = key_matching(pattern, prefix_case_counts=prefix_case_counts)
    assert key is not None
    assert fnmatchcase(key, pattern)
    assert list(validate.metadata_problems({key: ""}, {key: ""}, ())) == []


def test_only_an_annotations_prefix_may_have_capital_letters() -> None:
    assert key_matching("Example.com/a", prefix_case_counts=True) is None
    assert key_matching("Example.com/a", prefix_case_counts=False) == "Example.com/a"
    assert key_matching("example.com/A", prefix_case_counts=True) == "example.com/A"


patterns = st.text("ab-./A*?[]!", max_size=8)
keys = st.text("ab-./A", min_size=1, max_size=8)


@given(patterns, keys)
@example("[", "a")
def test_it_is_as_the_keys_themselves_have_it(pattern: str, key: str) -> None:
    """What it finds is a key that matches; and if a key matches, it finds one."""
    found = key_matching(pattern, prefix_case_counts=True)
    if found is not None:
        assert fnmatchcase(found, pattern)
        assert list(validate.metadata_problems({found: ""}, {}, ())) == []
    elif not list(validate.metadata_problems({key: ""}, {}, ())):
        assert not fnmatchcase(key, pattern)
