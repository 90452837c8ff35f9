"""Which format a client is given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmsvc_grpc.server.http.accept import prefers

OFFERED = ("text/plain", "application/openmetrics-text")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        pytest.param("", 0, id="says nothing"),
        pytest.param("*/*", 0, id="takes anything"),
        pytest.param("text/*", 0, id="takes any text"),
        pytest.param("image/png", 0, id="takes none of them"),
        pytest.param("application/openmetrics-text", 1, id="takes the other only"),
        pytest.param("application/openmetrics-text; version=1.0.0", 1, id="with a version"),
        pytest.param("Application/OpenMetrics-Text", 1, id="in capitals"),
        pytest.param("text/plain, application/openmetrics-text", 1, id="takes both alike"),
        pytest.param("application/openmetrics-text;q=0.5,text/plain;q=0.9", 0, id="rather text"),
        pytest.param("application/openmetrics-text;q=0.9,text/plain;q=0.5", 1, id="rather it"),
        pytest.param("application/openmetrics-text;q=0", 0, id="refuses the other"),
        pytest.param("application/openmetrics-text;q=0.4,*/*;q=0.5", 0, id="anything, rather"),
        pytest.param("application/openmetrics-text;q=nan", 0, id="a quality that is none"),
        pytest.param("application/openmetrics-text;q=1e9,text/plain", 0, id="out of its range"),
        pytest.param(";;,,q=1;application/openmetrics-text", 0, id="garbage"),
    ],
)
def test_the_format_that_is_accepted_most_is_chosen(accept: str, chosen: int) -> None:
    assert prefers(accept, OFFERED) == OFFERED[chosen]


@given(st.text(max_size=200) | st.text(alphabet="aplictonexm/*-;,q=.01 ", max_size=200))
def test_whatever_is_said_one_of_ours_is_chosen(accept: str) -> None:
    assert prefers(accept, OFFERED) in OFFERED
