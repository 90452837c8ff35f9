"""In which lines fields stand."""

from __future__ import annotations

import pytest

from vmsvc_grpc.source.field_lines import Text

TEXT = """\
# comment
a:
  b: &anchor
    c: 1
  list:
  - x
  -
    - y
    - d: *anchor
  <<: {merged: 1}
---
json: {"a":
  [1,
   2]}
text: |
  a: b

more: *nothing
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 2),
        (("a",), 2),
        (("a", "b"), 3),
        (("a", "b", "c"), 4),
        (("a", "list"), 5),
        (("a", "list", 0), 6),
        (("a", "list", 1, 0), 8),
        (("a", "list", 1, 1, "d"), 9),
        (("a", "list", 1, 1, "d", "c"), 4),
        (("a", "merged"), 10),
        (("a", "absent", "below"), 2),
        (("a", "list", 7), 5),
        (("a", "b", "c", "text has none"), 4),
    ],
)
def test_the_line_of_a_field(path: tuple[str | int, ...], line: int) -> None:
    lines = Text(TEXT).document(2)
    assert lines is not None
    assert lines.line_of(path) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("p: 1\n<<:\n  p: 3\n", 3, id="a key that is merged over"),
        pytest.param("<<:\n  p: 2\np: 3\n", 3, id="a key after a merge"),
        pytest.param("<<: {p: 1}\n<<: {p: 2}\n", 2, id="two merges"),
        pytest.param("<<:\n- q: 2\n- p: 3\n- p: 4\n", 3, id="the first of several"),
        pytest.param("a: &a\n  p: 2\np: 3\n<<: *a\n", 2, id="an alias"),
        pytest.param("a: &a {p: 1}\nb: &b\n  <<: *a\n  p: 4\n<<: [*b, *a]\n", 4, id="nested"),
        pytest.param("p: 1\n'<<': {p: 2}\n", 1, id="a key that only looks like a merge"),
    ],
)
def test_the_line_of_a_field_that_is_merged(text: str, line: int) -> None:
    """The problem was said to be where the value was that did not count."""
    lines = Text(text).document(1)
    assert lines is not None
    assert lines.line_of(["p"]) == line
    assert not list(lines.all_repeats())


def test_keys_are_named_as_kubectl_names_them() -> None:
    lines = Text("a: 1\nyes: 2\n'no': 3\n0x10: 4\n").document(1)
    assert lines is not None
    assert [lines.line_of([key]) for key in ("true", "no", "16", "yes")] == [2, 3, 4, 1]


def test_documents_in_any_order() -> None:
    text = Text("a: 1\n---\nb:\n  c: 1\n--- {d: 1}\n")
    for first, path, line in [(1, "a", 1), (3, "b", 3), (5, "d", 5), (2, "b", 3), (1, "a", 1)]:
        lines = text.document(first)
        assert lines is not None
        assert lines.line_of([path]) == line


def test_a_document_is_read_once_for_all_of_its_items() -> None:
    """A list of 5,000 items was read 5,000 times."""
    text = Text("a: 1\n---\nb: 1\n")
    assert text.document(3) is text.document(3)
    assert text.document(1) is not text.document(3)


def test_json_values_one_after_another() -> None:
    text = Text('{"a": 1,\n\t"b": [\n\t\t{"c": "\\/"}]}\n{"d":\n1}')
    first, second = text.document(1), text.document(4)
    assert first is not None
    assert first.line_of(["b", 0, "c"]) == 3
    assert second is not None
    assert second.line_of(["d"]) == 4


@pytest.mark.parametrize("text", ["a: [", "? [a]\n: b", "a: *b", "}{"])
def test_what_is_no_yaml_has_no_lines(text: str) -> None:
    assert Text(text).document(1) is None


def test_what_is_below() -> None:
    lines = Text("items:\n- a: 1\n- b:\n    c: 1\n").document(1)
    assert lines is not None
    below = lines.below(["items", 1])
    assert below is not None
    assert below.line_of(["b", "c"]) == 4
    assert lines.below(["items", 2]) is None
    assert lines.below(["none", 0, "a"]) is None


def test_keys_that_occur_twice() -> None:
    text = "a: &a\n  b: 1\n  c: {d: 1, d: 2}\n  b: 2\nlist: [{}, {e: 1,\ne: 2}]\nb: 1\n<<: *a\n"
    lines = Text(text).document(1)
    assert lines is not None
    assert {
        (repeat.path[-1], repeat.line, repeat.first_line) for repeat in lines.all_repeats()
    } == {
        ("b", 4, 2),
        ("d", 3, 3),
        ("e", 6, 5),
    }
