"""Bytes to untyped values: what kubectl would read, and bounds on what a file may cost."""

from __future__ import annotations

import codecs
import json
import math
import re
import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from vmsvc_grpc.model.decoding import LEVELS_MAX
from vmsvc_grpc.source import builder, characters, json_documents, yaml_documents
from vmsvc_grpc.source.builder import DEPTH_MAX
from vmsvc_grpc.source.documents import (
    OBJECT_SIZE_MAX,
    Document,
    Item,
    ManifestError,
    Restart,
    Step,
)
from vmsvc_grpc.source.stream import document_steps
from vmsvc_grpc.source.yaml_documents import ANCHORS_MAX, TOKEN_SIZE_MAX


def read_documents(text: str) -> Iterator[Document]:
    """The documents of a text, those of lists with their items."""
    return documents(document_steps(text.encode()))


def documents(steps: Iterable[Step]) -> Iterator[Document]:
    items: list[Any] = []
    for step in steps:
        match step:
            case Item():
                assert step.index == len(items)
                items.append(step.value)
            case Restart():
                items = []
            case Document() if step.listed:
                yield replace(step, value=step.value | {"items": items})
                items = []
            case Document():
                assert items == []
                yield step


def values(text: str) -> list[Any]:
    return [document.value for document in read_documents(text)]


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        pytest.param("", [], id="no text has no documents"),
        pytest.param("# only a comment\n", [], id="nor has a comment"),
        pytest.param("---\n---\n", [(1, 1, None), (2, 2, None)], id="empty documents count"),
        pytest.param(
            "a: 1\n---\n\n# b\nb: 2\n...\n---\nc: 3\n",
            [(1, 1, {"a": 1}), (2, 2, {"b": 2}), (3, 7, {"c": 3})],
            id="each document has its number and line",
        ),
        pytest.param("\ufeffa: 1\n", [(1, 1, {"a": 1})], id="a byte order mark is no content"),
        pytest.param(
            '{"a": [1, true, null]}\n\n\t{"b": "\\ud83d\\ude00\\/"}',
            [(1, 1, {"a": [1, True, None]}), (2, 3, {"b": "😀/"})],
            id="JSON values may follow one another, indented with tabs",
        ),
        pytest.param("{a: b}\n", [(1, 1, {"a": "b"})], id="YAML in braces is YAML"),
        pytest.param(
            '{"a": 1}\n---\n{"b": 2}\n',
            [(1, 1, {"a": 1}), (2, 2, {"b": 2})],
            id="documents of YAML may be JSON",
        ),
        pytest.param("a: |\n  x\n  y\n", [(1, 1, {"a": "x\ny\n"})], id="a block is text"),
        pytest.param("a: '1'\nb: \"no\"\n", [(1, 1, {"a": "1", "b": "no"})], id="quotes make text"),
        pytest.param(
            "a: !!str 1\nb: !!int '2'\nc: !!bool yes\nd: !!null ''\ne: !!float 1.5\n",
            [(1, 1, {"a": "1", "b": 2, "c": True, "d": None, "e": 1.5})],
            id="tags of YAML's own types are followed",
        ),
        pytest.param(
            "a: !!map {b: !!seq [1]}\n", [(1, 1, {"a": {"b": [1]}})], id="those of collections too"
        ),
        pytest.param(
            "1: a\nyes: b\nnull: c\n2026-01-01: d\n0x10: e\n1.0: f\n1e6: g\n1.5: h\n-1e-5: i\n",
            [
                (
                    1,
                    1,
                    {
                        "1": "f",
                        "true": "b",
                        "null": "c",
                        "2026-01-01": "d",
                        "16": "e",
                        "1e+06": "g",
                        "1.5": "h",
                        "-1e-05": "i",
                    },
                )
            ],
            id="keys are text: numbers as kubectl writes them",
        ),
        pytest.param("a: 1\na: 2\n", [(1, 1, {"a": 2})], id="of two equal keys the last counts"),
        pytest.param('{"a": 1, "a": 2}', [(1, 1, {"a": 2})], id="so in JSON"),
        pytest.param(
            "a: !vault x\nb: !mine {c: !mine [1]}\nc: !!python/object:os.system x\nd: ! 5\n"
            "e: !!binary aG\u0000k=\nf: !!timestamp 2026-01-01\n".replace("\u0000", ""),
            [
                (
                    1,
                    1,
                    {
                        "a": "x",
                        "b": {"c": [1]},
                        "c": "x",
                        "d": "5",
                        "e": "hi",
                        "f": "2026-01-01",
                    },
                )
            ],
            id="what unknown tags stand for is text, or what it is",
        ),
        pytest.param(
            "a: &a {x: 1}\nb: {x: 0, z: 0, <<: *a, <<: {z: 2}}\n",
            [(1, 1, {"a": {"x": 1}, "b": {"x": 1, "z": 2}})],
            id="a merge counts where it stands, and as often",
        ),
        pytest.param(
            "a: 1\n--- \t# b\nb: 2\n---# c\nc: |\n  3\n---\r\n d: 4",
            [(1, 1, {"a": 1}), (2, 2, {"b": 2}), (3, 4, {"c": "3\n"}), (4, 7, {"d": 4})],
            id="comments and blanks may follow a separator",
        ),
        pytest.param(
            "a: |\n  x\n---\nb: '\n\n  ---'\n",
            [(1, 1, {"a": "x\n"}), (2, 3, {"b": "\n---"})],
            id="a separator is one at the beginning of a line only, in a block of text too",
        ),
        pytest.param(
            "---\n...\n---\na: 1\n", [(1, 1, None), (2, 3, {"a": 1})], id="an end of nothing"
        ),
        pytest.param("--- {a: 1}\n", [(1, 1, {"a": 1})], id="a value on the separator's line"),
        pytest.param("a: |\n  x", [(1, 1, {"a": "x\n"})], id="the last line has an end"),
        pytest.param(
            "a: 1\n---\n\ufeffb: 2\n",
            [(1, 1, {"a": 1}), (2, 2, {"b": 2})],
            id="nor is a byte order mark after a separator",
        ),
        pytest.param(
            '{"a": "\\ud800 \\ud83d\\ude00 \\\\ud800 \\ude00\\ud800x"}',
            [(1, 1, {"a": "\ufffd 😀 \\ud800 \ufffd\ufffdx"})],
            id="half of a surrogate pair is no character",
        ),
        pytest.param(
            '{"a": 12345678901234567890, "b": 1e999}',
            [(1, 1, {"a": 12345678901234567890.0, "b": math.inf})],
            id="numbers of JSON that are too large are rough",
        ),
        pytest.param(
            "a: &x {b: [1]}\nc: *x\n",
            [(1, 1, {"a": {"b": [1]}, "c": {"b": [1]}})],
            id="an alias stands for what was named",
        ),
        pytest.param(
            "a: {&k key: 1}\nb: {*k : 2}\n",
            [(1, 1, {"a": {"key": 1}, "b": {"key": 2}})],
            id="an alias may stand for a key",
        ),
        pytest.param(
            "a: &a {x: 1, v: 1}\nb: &b {x: 2, z: 2}\nc: {<<: [*a, *b], v: 3}\nd: {<<: *b}\n",
            [
                (
                    1,
                    1,
                    {
                        "a": {"x": 1, "v": 1},
                        "b": {"x": 2, "z": 2},
                        "c": {"x": 1, "v": 3, "z": 2},
                        "d": {"x": 2, "z": 2},
                    },
                )
            ],
            id="keys merged yield to those that come later, and to those of sources before",
        ),
        pytest.param("'<<': 1\n", [(1, 1, {"<<": 1})], id="a quoted merge is a key"),
    ],
)
def test_documents(text: str, documents: list[tuple[int, int, Any]]) -> None:
    read = [(one.index, one.line, one.value) for one in read_documents(text)]
    assert read == documents
    assert [one.unread_line for one in read_documents(text)] == [None] * len(read)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        pytest.param(
            "a: [1\nb: 2\n",
            "line 2, column 2: did not find expected ',' or ']'",
            id="what is not YAML",
        ),
        pytest.param(
            '{"a": 1\n "b": 2}\n',
            "line 2, column 5: did not find expected ',' or '}'",
            id="what is not JSON",
        ),
        pytest.param(
            "a: é\nb: é\x01\n",
            "line 2, column 5: control characters are not allowed",
            id="a control character",
        ),
        pytest.param(
            "[" * 20_000,
            f"line 1, column {DEPTH_MAX + 1}: more than {DEPTH_MAX} levels deep; no object is",
            id="brackets without end",
        ),
        pytest.param(
            "".join(
                f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
                for before, name in zip("0abcdefgh", "abcdefghi", strict=True)
            ).replace("*0", "x"),
            "line 4, column 16: aliases stand for too many values; write them out",
            id="aliases of aliases of aliases",
        ),
    ],
)
def test_errors(text: str, error: str) -> None:
    with pytest.raises(ManifestError) as raised:
        values(text)
    assert str(raised.value) == error
    assert f"line {raised.value.line}, column {raised.value.column}: " in error
    assert error.endswith(raised.value.message)


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        pytest.param(
            "a: {<<: 1}",
            "a.<<: is no mapping, which '<<' merges (line 1)",
            id="a merge of a number",
        ),
        pytest.param(
            "[a]: 1",
            "(object): has a mapping or list as a key; a key is text (line 1)",
            id="a list",
        ),
        pytest.param(
            "a:\n- b: 1\n  ? {c: {d: [e]}, *x : *y}\n  : 2\n",
            "a[0]: has a mapping or list as a key; a key is text (line 3)",
            id="a mapping with a mapping and a list in it, as a key",
        ),
        pytest.param(
            "a: &a [1]\n*a : 1\n",
            "(object): has the alias *a as a key, which is not text (line 2)",
            id="an alias of a list as a key",
        ),
        pytest.param(
            "a: {~: 1}",
            "a: has the key '~', which is null; a key is text (line 1)",
            id="a null key",
        ),
        pytest.param(
            "a: *b",
            "a: the alias *b stands for nothing that ends before it (line 1)",
            id="no anchor",
        ),
        pytest.param(
            "a: &a [x, *a]",
            "a[1]: the alias *a stands for nothing that ends before it (line 1)",
            id="an alias within what it stands for",
        ),
        pytest.param(
            "a: !!binary é",
            "a: 'é' is not what the tag tag:yaml.org,2002:binary says (line 1)",
            id="binary that is none",
        ),
        pytest.param(
            "a: [0, {b: !!int x}]\nc: .nan\n",
            "a[1].b: 'x' is not what the tag tag:yaml.org,2002:int says (line 1)",
            id="the first of several",
        ),
        pytest.param(
            "a: 1\nb: -.Inf\n", "b: '-.Inf' is a number that JSON has not (line 2)", id="infinity"
        ),
    ],
)
def test_what_is_yaml_but_no_object_costs_that_document(text: str, flaw: str) -> None:
    """kubectl refuses it once it makes JSON of it. It hid all that its file held."""
    first, refused, last = read_documents(f"a: 1\n---\n{text}\n---\nb: 2\n")
    line = int(flaw.partition("(line ")[2].rstrip(")")) + 2
    assert str(refused.flaw) == flaw.partition("(line ")[0] + f"(line {line})"
    assert (first.value, first.flaw) == ({"a": 1}, None)
    assert (last.value, last.flaw) == ({"b": 2}, None)


@pytest.mark.parametrize(
    ("text", "flaws"),
    [
        pytest.param(
            "%YAML 1.2\n---\na: 1\n---\nb: 2\n",
            ["(object): has a directive of YAML, which kubectl refuses (line 1)", "None"],
            id="a directive",
        ),
        pytest.param(
            "a: 1\n---\n# c\n%X y\nb: 2\n",
            ["None", "(object): has a directive of YAML, which kubectl refuses (line 3)"],
            id="a directive after a comment",
        ),
        pytest.param("a: |\n  x\n...\n%X y\n", ["None"], id="one that is not read"),
        pytest.param(
            "%{}\n",
            ["(object): has a directive of YAML, which kubectl refuses (line 1)"],
            id="a directive, and no more",
        ),
        pytest.param("a: |\n x\n %y\nb: [\n  '%x'\n ]\n", ["None"], id="what is none"),
        pytest.param(
            "a: 1\n--- !!map\nb: 2\n---\nc: 3\n",
            [
                "None",
                "(object): begins on the line of '---', which kubectl refuses (line 2)",
                "None",
            ],
            id="a value on the separator's line",
        ),
        pytest.param(
            "--- {a: 1}\n---\nb: 2\n",
            ["(object): begins on the line of '---', which kubectl refuses (line 1)", "None"],
            id="a value on the line that begins a file",
        ),
        pytest.param(
            "a: 1\n--- ...\n---\nc: 3\n",
            [
                "None",
                "None",
                "(object): begins on the line of '---', which kubectl refuses (line 2)",
            ],
            id="an end on the separator's line",
        ),
    ],
)
def test_what_kubectl_refuses_before_an_object_costs_that_object(
    text: str, flaws: list[str]
) -> None:
    assert [str(one.flaw) for one in read_documents(text)] == flaws


def test_what_is_yaml_but_no_object_costs_that_item() -> None:
    text = "a: 1\nitems:\n- a: 1\n- ~: {b: .inf}\n- b: 2\nc: {*x : 1}\n"
    steps = [one for one in document_steps(text.encode()) if one is not None]
    flaws = [str(one.flaw) for one in steps if isinstance(one, Item | Document)]
    assert flaws == [
        "None",
        "(object): has the key '~', which is null; a key is text (line 4)",
        "None",
        "c: the alias *x stands for nothing that ends before it (line 6)",
    ]


def test_what_comes_before_an_error_is_read() -> None:
    documents = read_documents("a: 1\n---\nb: [\n")
    assert next(documents).value == {"a": 1}
    with pytest.raises(ManifestError):
        next(documents)


def test_many_aliases_of_little_are_allowed() -> None:
    text = "labels: &l {app: web}\nitems:\n" + "- {labels: *l}\n" * 10_000
    assert len(values(text)[0]["items"]) == 10_000


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)
untyped = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@given(st.lists(untyped, min_size=1, max_size=3))
def test_reads_what_was_written_as_yaml(documents: list[Any]) -> None:
    # Quoted, as PyYAML and YAML 1.1 differ from kubectl on what is a number.
    text = yaml.safe_dump_all(documents, default_style='"')
    for document, value in zip(documents, values(text), strict=True):
        assert same(document, value)


@given(st.dictionaries(st.text(), untyped))
def test_reads_what_was_written_as_json(value: dict[str, Any]) -> None:
    assert same(value, values(json.dumps(value, indent="\t"))[0])
    assert same(value, values(json.dumps(value, ensure_ascii=False))[0])


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        # A whole number of more than 64 bits is a float.
        return isinstance(one, int | float) and math.isclose(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


@given(st.text(alphabet=st.sampled_from("ab01 \n\t:-[]{}&*!|>'\"%#?,.<~\\é\0"), max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ManifestError):
        values(text)


# -- Marks and encodings. --


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("text", ["a: é😀", "{a: é😀}", '{"a": "é😀"}'])
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_encodings(text: str, codec: str, end: str) -> None:
    mark = codecs.BOM_UTF16_BE if codec == "utf-16-be" else b""
    read = documents(document_steps(mark + (text + end).encode(codec)))
    assert [document.value for document in read] == [{"a": "é😀"}]


@pytest.mark.parametrize(
    ("content", "value"),
    [(b"a: \xff\xc3(\n", "\ufffd\ufffd("), (b'{"a": "\xe2\x82"}', "\ufffd")],
)
def test_what_is_no_text_is_replaced(content: bytes, value: str) -> None:
    assert [document.value for document in documents(document_steps(content))] == [{"a": value}]


# -- Streams of JSON, and what is not quite one. --


@pytest.mark.parametrize(
    ("text", "read"),
    [
        pytest.param('{"a": 1}{"b": 2} [3] "4"', [{"a": 1}, {"b": 2}, [3], "4"], id="values"),
        pytest.param('{"a": 1} b: 2\n', [{"a": 1}, {"b": 2}], id="YAML after one value"),
        pytest.param('{"a": 1}\n{b: 2}\n---\nc: 3', [{"a": 1}, {"b": 2}, {"c": 3}], id="flows"),
        pytest.param('{"a": 1}\n--- \n{"b": 2}', [{"a": 1}, {"b": 2}], id="separated"),
    ],
)
def test_streams_of_json(text: str, read: list[Any]) -> None:
    assert values(text) == read


def test_after_two_values_of_json_there_is_no_yaml() -> None:
    with pytest.raises(ManifestError) as raised:
        values('{"a": 1}\n{"b": 2}\n  c: 3\n')
    assert str(raised.value) == "line 3, column 3: is not JSON, as what comes before is"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("a: 1\n...\nb: 2\n", 3, id="a document without a separator"),
        pytest.param("a: 1\n---\n{b: 2}\n\n{c: 3}", 5, id="a second value"),
        pytest.param("{a: 1} }", 1, id="a bracket too many"),
        pytest.param("a: 1\n...\n" + "# x\n" * 20_000 + "\x01", 2, id="what is no text at all"),
    ],
)
def test_what_kubectl_passes_over_is_told(text: str, line: int) -> None:
    *_, last = read_documents(text)
    assert last.unread_line == line


# -- Bounds. --


def listed(items: str) -> str:
    return f'{{"items": [{items}], "kind": "List"}}'


LONG = json.dumps("x" * 200_000)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(listed(f"1, {LONG}, {{}}"), id="JSON"),
        pytest.param(f"items:\n- 1\n- {LONG}\n- {{}}\nkind: List\n", id="YAML"),
    ],
)
def test_items_are_handed_out_one_by_one(text: str) -> None:
    steps = [step for step in document_steps(text.encode()) if step is not None]
    items = [step for step in steps if isinstance(step, Item)]
    assert [(item.index, item.value) for item in items] == [(0, 1), (1, "x" * 200_000), (2, {})]
    assert items[1].size >= 200_000
    assert replace(items[2], head={}, index=0, value=0) == Item(1, 1, {}, 0, 0, items[2].size)
    (document,) = steps[len(items) :]
    assert isinstance(document, Document)
    assert (document.listed, document.value) == (True, {"kind": "List"})
    assert document.size < 100


@pytest.mark.parametrize(
    ("text", "read"),
    [
        pytest.param(f'{{"items": [{LONG}], "items": [2]}}', [{"items": [2]}], id="twice in JSON"),
        pytest.param("items: [1]\nitems: [2]\n", [{"items": [2]}], id="twice in YAML"),
        pytest.param("items: [1]\nitems: 2\n", [{"items": 2}], id="then no list"),
        pytest.param(
            listed(f"{LONG}, 'b'"), [{"items": ["x" * 200_000, "b"], "kind": "List"}], id="not JSON"
        ),
        pytest.param("items: &i [1]\nb: *i\n", [{"items": [1], "b": [1]}], id="with an anchor"),
    ],
)
def test_items_that_count_no_more_are_taken_back(text: str, read: list[Any]) -> None:
    assert values(text) == read


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"name": "a", "b": [%s 0], "c": 1}', id="JSON"),
        pytest.param("name: a\nb: [%s 0]\nc: 1\n", id="YAML"),
        pytest.param('{"a": {"name": "a", "b": ["%s"], "c": 1}}', id="a text in JSON"),
    ],
)
def test_of_a_large_object_the_beginning_is_kept(text: str) -> None:
    (document,) = read_documents(text % ("10000000, " * (OBJECT_SIZE_MAX // 7)))
    assert document.size > OBJECT_SIZE_MAX
    assert '"name": "a"' in json.dumps(document.value)
    assert len(json.dumps(document.value)) < OBJECT_SIZE_MAX * 1.3


def test_each_item_may_be_as_large_as_an_object() -> None:
    large = json.dumps("x" * (OBJECT_SIZE_MAX - 2))
    (document,) = read_documents(listed(", ".join([large] * 3)))
    assert [len(item) for item in document.value["items"]] == [OBJECT_SIZE_MAX - 2] * 3
    assert document.size < 100


@pytest.mark.parametrize("levels", [LEVELS_MAX, 1_000, DEPTH_MAX - 10])
@pytest.mark.parametrize("form", ['{"a": %s, "b": 1}', "a: %s\nb: 1\n"], ids=["JSON", "YAML"])
def test_what_nests_deep_is_kept_as_far_as_it_matters(levels: int, form: str) -> None:
    (document,) = read_documents(form % ("[" * levels + "]" * levels))
    assert document.value["b"] == 1
    value, kept = document.value["a"], 0
    while value:
        value, kept = value[0], kept + 1
    assert min(levels, LEVELS_MAX) - 2 <= kept < levels


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a: %s", id="a plain text"),
        pytest.param("a: |\n %s", id="a block"),
        pytest.param("a: 1\n#%s\n", id="a comment in a document"),
    ],
)
def test_libyaml_is_not_given_endless_texts(text: str) -> None:
    with pytest.raises(ManifestError, match="are one text, or comments; split it"):
        values(text % ("x" * (TOKEN_SIZE_MAX + 3 * characters.WINDOW)))


@pytest.mark.parametrize(
    "comment", ["# x\n", "#" + "x" * 200_000, "\n", "  \r\n", "%x\n", "# x\r\n"]
)
def test_there_is_no_end_of_comments_before_a_document(comment: str) -> None:
    count = TOKEN_SIZE_MAX // len(comment) + 1
    (document,) = read_documents(comment * count + "\na: 1\n")
    assert document.value == {"a": 1}
    assert document.line == comment.count("\n") * count + 2


@pytest.mark.parametrize("end", ["\r", "\x85", "\u2028", "\u2029", "\r\n", "\r\r\n"])
@pytest.mark.parametrize(
    "size", [3, characters.WINDOW - 2, characters.WINDOW - 1, 3 * characters.WINDOW]
)
def test_whatever_ends_a_line_ends_a_comment(end: str, size: int) -> None:
    """All of a file passed for its first comment, and nothing was reported."""
    (document,) = read_documents(f"#{'x' * (size - 1)}{end}a: 1{end}b: 2{end}")
    assert document.value == {"a": 1, "b": 2}


def test_anchors_have_an_end() -> None:
    text = "".join(f"- &a{number} x\n" for number in range(ANCHORS_MAX + 1))
    with pytest.raises(ManifestError, match="more than 100000 anchors"):
        values(text)


SIZE = 200 * 1024
SHAPES = {
    "empty objects": "{}" * (SIZE // 2),
    "a list of numbers": listed("1," * (SIZE // 2) + "1"),
    "a list of empty objects": listed("{}," * (SIZE // 3) + "1"),
    "deep": ('{"a":' * 1_000 + "1" + "}" * 1_000) * (SIZE // 6_000),
    "deep beyond bounds": "[" * SIZE,
    "deep in JSON beyond bounds": '{"a":' * (SIZE // 5),
    "a long text": json.dumps({"a": "x" * SIZE}),
    "a long text of escapes": json.dumps({"a": "é" * (SIZE // 6)}),
    "a long text of pairs": json.dumps({"a": "😀" * (SIZE // 12)}),
    "blanks": "{" + " " * SIZE + "}",
    "blank lines": "\n" * SIZE,
    "an endless number": '{"a":' + "9" * SIZE,
    "many keys": json.dumps({f"k{number}": number for number in range(SIZE // 16)}),
    "separators": "---\n" * (SIZE // 4),
    "small documents": "a\n---\n" * (SIZE // 6),
    "a flow": "[" + "1," * (SIZE // 2) + "1]",
    "a list in lines": "- {}\n" * (SIZE // 5),
    "comments": "# x\n" * (SIZE // 4),
    "one comment": "#" * SIZE,
    "what is not read": "a: b\n...\n" + "x: [\n" * (SIZE // 5),
    "no text": "\0" * SIZE,
}


# They are refused where they begin.
READ_NO_FURTHER = ("deep beyond bounds", "deep in JSON beyond bounds", "no text")


@pytest.mark.parametrize("shape", SHAPES)
def test_reading_takes_breaks(shape: str) -> None:
    """None of a step's work may grow with the file: so there are more steps for more of it."""

    def steps(content: bytes) -> int:
        count = 0
        with suppress(ManifestError):
            for _ in document_steps(content):
                count += 1
        return count

    content = SHAPES[shape].encode()
    assert steps(content) >= len(content) // 100_000 or shape in READ_NO_FURTHER


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape not in READ_NO_FURTHER])
def test_reading_keeps_no_more_of_more(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the bytes, and one object."""

    def peak_bytes(content: bytes) -> int:
        tracemalloc.start()
        try:
            with suppress(ManifestError):
                for _ in document_steps(content):
                    pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    for module in (characters, json_documents, yaml_documents):
        monkeypatch.setattr(module, "WINDOW", 4_096)
    monkeypatch.setattr(builder, "OBJECT_SIZE_MAX", 4_096)
    content = SHAPES[shape][: SIZE // 2].encode()
    less = content[: len(content) // 2]
    assert peak_bytes(content) - peak_bytes(less) < 2 * len(less)


# What YAML does not take for text, as far as JSON does.
NO_TEXT = re.compile(r"[\x7f-\x84\x86-\x9f\ufffe\uffff]")


@given(
    st.lists(untyped | st.fixed_dictionaries({"items": st.lists(untyped)}), min_size=1, max_size=3),
    st.sampled_from(["", " ", "\n"]),
    st.booleans(),
    # Numbers and the words of JSON have to fit in.
    st.integers(40, 100),
)
@example([{"x" * 33: 1.5}, {"x" * 33: 15e30}], "", False, 40)
@example([[], {"items": []}, {"items": [{'"\U00010000\x80': None}]}], "\n", False, 40)
def test_windows_do_not_show(read: list[Any], gap: str, ascii_only: bool, size: int) -> None:
    def outcome(text: str) -> object:
        try:
            return [(one.index, one.line, repr(one.value)) for one in read_documents(text)]
        except ManifestError:
            return "refused"  # Of several flaws, how far libyaml looks ahead decides which.

    written = [json.dumps(value, ensure_ascii=ascii_only) for value in read]
    for text in (gap.join(written), '{"a": 1}\n---\n' + "\n---\n".join(written), f"#{gap}{read}"):
        expected = outcome(text)
        with pytest.MonkeyPatch.context() as patch:
            for module in (characters, json_documents, yaml_documents):
                patch.setattr(module, "WINDOW", size)
            found = outcome(text)
        # It also decides whether libyaml comes to what is no text, behind a document.
        looked_ahead = "refused" in (found, expected) and NO_TEXT.search(text)
        assert found == expected or looked_ahead


def test_a_file_has_so_many_values_of_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense ones kept a start waiting three times as long as honest ones of that size."""
    monkeypatch.setattr(yaml_documents, "EVENTS_MAX", 100)
    assert values("a: [1, 2]\n---\n" * 10)
    with pytest.raises(ManifestError, match="more than 100 values are in the file; split it"):
        values("a: [1, 2]\n---\n" * 30)


def test_json_is_decoded_about_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a list begins, and at the end of each window, it was decoded in vain."""

    class Counting(json.JSONDecoder):
        decoded = 0

        def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
            end = len(s)
            try:
                value, end = super().raw_decode(s, idx)
            finally:
                Counting.decoded += end - idx
            return value, end

    monkeypatch.setattr(json_documents, "_DECODER", Counting())
    text = listed(",".join(json.dumps({"text": "x" * 10_000}) for _ in range(100)))
    assert sum(isinstance(step, Item) for step in document_steps(text.encode())) == 100
    # The window in which the whole value was looked for.
    assert Counting.decoded < len(text) + 2.5 * characters.WINDOW


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_lines_of_a_long_stream_are_counted(encoding: str) -> None:
    text = "".join(f'{{"a": "é{"x" * (number * 37 % 3_000)}"}}\n\n' for number in range(300))
    read = documents(document_steps(text.encode(encoding)))
    assert [document.line for document in read] == list(range(1, 600, 2))
