"""Nulls and whole numbers are read as Kubernetes reads them; nothing else is bent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from vmsvc_grpc.model.leniency import as_meant


class Inner(msgspec.Struct):
    name: str = ""


class Outer(msgspec.Struct, rename="camel"):
    must_be: str
    text: str = ""
    number: int = 0
    either: int | str | None = None
    absent: int | None = None
    texts: dict[str, str] | None = None
    inners: list[Inner] | None = None
    numbers: list[int] | None = None
    anything: dict[str, Any] | None = None


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        pytest.param({"texts": {"a": None}}, {"texts": {"a": ""}}, id="a null text of a map"),
        pytest.param({"inners": [None, {}]}, {"inners": [{}, {}]}, id="a null object of a list"),
        pytest.param({"numbers": [None]}, {"numbers": [0]}, id="a null number of a list"),
        pytest.param({"text": None}, {"text": ""}, id="a null field that may not be null"),
        pytest.param({"absent": None}, {"absent": None}, id="a null field that may be"),
        pytest.param({"inners": [{"name": None}]}, {"inners": [{"name": ""}]}, id="further in"),
        pytest.param({"mustBe": None}, {"mustBe": None}, id="a null field that must be there"),
        pytest.param({"anything": {"a": None}}, {"anything": {"a": None}}, id="where any will do"),
        pytest.param({"number": 80.0}, {"number": 80}, id="a whole number with a point"),
        pytest.param({"either": 8e1}, {"either": 80}, id="one where text may be, too"),
        pytest.param({"absent": 80.0}, {"absent": 80}, id="one where null may be, too"),
        pytest.param({"number": 80.5}, {"number": 80.5}, id="a number that is not whole"),
        pytest.param({"number": float("inf")}, {"number": float("inf")}, id="no number"),
        pytest.param({"text": 80.0}, {"text": 80.0}, id="a number where text must be"),
        pytest.param({"texts": [None]}, {"texts": [None]}, id="a list where a map must be"),
        pytest.param({"other": [None]}, {"other": [None]}, id="what is not read"),
        pytest.param([None], [None], id="a list where an object must be"),
    ],
)
def test_as_meant(given: Any, meant: Any) -> None:
    read = as_meant(given, Outer)
    assert read == meant
    assert repr(read) == repr(meant)  # 80 == 80.0
