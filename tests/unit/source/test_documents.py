"""Text to untyped values: what kubectl would read, and bounds on what a text may cost."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vmsvc_grpc.source.documents import (
    ALIASED_VALUES_MAX,
    DEPTH_MAX,
    Document,
    ManifestError,
    document_steps,
    plain_scalar,
    read_documents,
)


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
        pytest.param("%YAML 1.2\n---\na: 1\n", [(1, 1, {"a": 1})], id="a directive is allowed"),
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
            "1: a\ntrue: b\nnull: c\n2026-01-01: d\n",
            [(1, 1, {"1": "a", "true": "b", "null": "c", "2026-01-01": "d"})],
            id="keys are text, whatever they look like",
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
            "a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc: {<<: [*a, *b], y: 3}\nd: {<<: *b}\n",
            [
                (
                    1,
                    1,
                    {
                        "a": {"x": 1, "y": 1},
                        "b": {"x": 2, "z": 2},
                        "c": {"x": 1, "y": 3, "z": 2},
                        "d": {"x": 2, "z": 2},
                    },
                )
            ],
            id="merged keys yield to those that are there, and to those merged before",
        ),
        pytest.param("'<<': 1\n", [(1, 1, {"<<": 1})], id="a quoted merge is a key"),
        pytest.param(
            "[" * DEPTH_MAX + "]" * DEPTH_MAX,
            [(1, 1, json.loads("[" * DEPTH_MAX + "]" * DEPTH_MAX))],
            id="as deep as is allowed",
        ),
    ],
)
def test_documents(text: str, documents: list[tuple[int, int, Any]]) -> None:
    assert list(read_documents(text)) == [Document(*document) for document in documents]


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
            "metadata:\n  name: a\n  name: b\n",
            "line 3, column 3: the key 'name' occurs twice in one mapping; remove one of them",
            id="a key that occurs twice",
        ),
        pytest.param(
            '{"a": 1, "a": 2}',
            "line 1, column 10: the key 'a' occurs twice in one mapping; remove one of them",
            id="a key that occurs twice in JSON",
        ),
        pytest.param(
            "a: &a {}\nb: {<<: *a, <<: *a}\n",
            "line 2, column 13: the key '<<' occurs twice in one mapping; remove one of them",
            id="two merges",
        ),
        pytest.param(
            "a: {<<: 1}",
            "line 1, column 9: '<<' merges mappings, and this is none",
            id="a merge of a number",
        ),
        pytest.param(
            "[a]: 1",
            "line 1, column 1: a mapping or list cannot be a key; use text",
            id="a list as key",
        ),
        pytest.param(
            "a: &a [1]\n*a : 1\n",
            "line 2, column 1: the alias *a is not text, and cannot be a key",
            id="an alias of a list as key",
        ),
        pytest.param(
            "a: *b",
            "line 1, column 4: the alias *b stands for nothing that ends before it",
            id="an alias of nothing",
        ),
        pytest.param(
            "a: &a [*a]",
            "line 1, column 8: the alias *a stands for nothing that ends before it",
            id="an alias within what it stands for",
        ),
        pytest.param(
            "a: !!python/object:os.system x",
            "line 1, column 4: the tag tag:yaml.org,2002:python/object:os.system is not known "
            "here; remove it",
            id="a tag of another language",
        ),
        pytest.param(
            "a: !mine {}",
            "line 1, column 4: the tag !mine is not known here; remove it",
            id="a tag of one's own",
        ),
        pytest.param(
            "a: !!int x",
            "line 1, column 4: the tag tag:yaml.org,2002:int is not known here; remove it",
            id="a tag that does not fit",
        ),
        pytest.param(
            '{"a": "\\ud800"}',
            "line 1, column 10: found invalid Unicode character escape code",
            id="half of a surrogate pair",
        ),
        pytest.param(
            "[" * 200_000,
            "line 1, column 101: more than 100 levels deep; no Kubernetes object is",
            id="brackets without end",
        ),
        pytest.param(
            "".join(
                f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
                for before, name in zip("0abcdefgh", "abcdefghi", strict=True)
            ).replace("*0", "x"),
            f"line 5, column 36: aliases stand for more than {ALIASED_VALUES_MAX} values; "
            "write them out",
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


def test_what_comes_before_an_error_is_read() -> None:
    documents = read_documents("a: 1\n---\nb: [\n")
    assert next(documents).value == {"a": 1}
    with pytest.raises(ManifestError):
        next(documents)


def test_many_aliases_of_little_are_allowed() -> None:
    text = "labels: &l {app: web}\nitems:\n" + "- {labels: *l}\n" * 10_000
    assert len(values(text)[0]["items"]) == 10_000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("Null", None),
        ("true", True),
        ("YES", True),
        ("Off", False),
        ("y", "y"),
        ("tRUE", "tRUE"),
        ("0", 0),
        ("-12", -12),
        ("+7", 7),
        ("1_000", 1000),
        ("0755", 493),
        ("0o17", 15),
        ("-0x1F", -31),
        ("0xb0_b", 2827),
        ("+0b1", 1),
        ("-017", -15),
        ("0b101", 5),
        ("00", 0),
        ("08", 8.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("-1.5E-2", -0.015),
        ("123e4567", "123e4567"),
        ("9" * 65, "9" * 65),
        ("0x", "0x"),
        ("0x_", "0x_"),
        ("-", "-"),
        (".", "."),
        ("1.2.3", "1.2.3"),
        ("10.0.0.1", "10.0.0.1"),
        ("12:30:45", "12:30:45"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01", "2026-01-01"),
        ("=", "="),
        (".inf", ".inf"),
        ("1_", 1),
    ],
)
def test_plain_scalars(text: str, value: object) -> None:
    read = plain_scalar(text)
    assert read == value
    assert type(read) is type(value)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64),
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
    if isinstance(one, float):
        return isinstance(other, int | float) and math.isclose(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


@given(st.text(alphabet=st.sampled_from("ab01 \n\t:-[]{}&*!|>'\"%#?,.<~\\é\0"), max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ManifestError):
        values(text)


def test_takes_breaks_on_the_way() -> None:
    steps = list(document_steps("a: [" + "x, " * 10_000 + "]"))
    assert steps.count(None) > 10
    assert [step.value for step in steps if step is not None] == [{"a": ["x"] * 10_000}]
