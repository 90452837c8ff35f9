"""JSON of any depth is read as far as it matters."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from vmsvc_grpc.model.decoding import LEVELS_MAX, decoder, shallow


def nested(levels: int, inner: str = "") -> bytes:
    return ("[" * levels + inner + "]" * levels).encode()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab"\\[]{}é\n', max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('"[}', max_size=2), inner),
    max_leaves=20,
)


@settings(max_examples=50)
@given(values)
def test_what_is_not_too_deep_stays_as_it_is(value: Any) -> None:
    raw = json.dumps(value, ensure_ascii=False).encode()
    assert shallow(raw) == raw


@settings(max_examples=50)
@given(values, values)
def test_what_is_too_deep_is_null_and_the_rest_stays(before: Any, after: Any) -> None:
    at_the_edge = LEVELS_MAX - 1
    raw = b"[%s,%s,%s]" % (
        json.dumps(before).encode(),
        nested(at_the_edge, '{"a": "]"}, {}, 1, [[]]'),
        json.dumps(after).encode(),
    )
    kept = b"[%s,%s,%s]" % (
        json.dumps(before).encode(),
        nested(at_the_edge, "null, null, 1, null"),
        json.dumps(after).encode(),
    )
    assert shallow(raw) == kept


@pytest.mark.parametrize("levels", [500, 2_000, 10_000, 300_000])
def test_any_depth_is_decoded(levels: int) -> None:
    decode = decoder(dict[str, msgspec.Raw])
    fields = decode(b'{"a": %s, "b": 1}' % nested(levels))
    assert bytes(fields["b"]) == b"1"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"[" * 100_000, id="never closed"),
        pytest.param(nested(5_000) + b"]", id="closed too often"),
        pytest.param(b"[" * 5_000 + b'"' + b"\\" * 100_000, id="a text without end"),
        pytest.param(b'"\xff"', id="no UTF-8"),
        pytest.param(b"[5, 1e999] trailing", id="more after a number beyond all bounds"),
        pytest.param(b'[1e999, "\xff"]', id="no UTF-8 after such a number"),
        pytest.param(b"[" + b"9" * 5_000 + b", {]", id="an error after so many digits"),
    ],
)
def test_what_is_no_json_stays_none(raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decoder(object)(raw)
