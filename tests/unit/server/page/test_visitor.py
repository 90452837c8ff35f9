"""Which requests the page answers: those of people on this machine, and of itself."""

from __future__ import annotations

import pytest

from vmsvc_grpc.server.page.visitor import refusal

HERE = "127.0.0.1:8090"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8090",
        "127.0.0.1",
        "localhost:8090",
        "LocalHost",
        "[::1]:8090",
        "127.3.2.1:1",
    ],
)
def test_names_of_this_machine_are_answered(host: str) -> None:
    assert refusal({"Host": [host]}, document=False) == ""


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [""],
        ["stranger.example:8090"],
        ["127.0.0.1.stranger.example"],
        ["localhost.stranger.example"],
        ["stranger.example#localhost"],
        ["localhost@stranger.example"],
        ["10.0.0.1:8090"],
        ["0.0.0.0:8090"],
        ["[fe80::1]"],
        ["127.0.0.1:8090", "stranger.example"],
        ["127.0.0.1:"],
        ["2130706433"],
        ["localhost\t"],
    ],
    ids=repr,
)
def test_a_name_that_a_stranger_may_own_is_refused(hosts: list[str]) -> None:
    """DNS rebinding: the stranger's script asks us under a name of its own."""
    for document in (False, True):
        assert "localhost" in refusal({"Host": hosts}, document=document)


@pytest.mark.parametrize(
    ("site", "mode", "document", "answered"),
    [
        ("same-origin", "cors", False, True),
        ("none", "navigate", False, True),
        ("none", "navigate", True, True),
        ("same-site", "no-cors", False, False),
        ("cross-site", "no-cors", False, False),
        ("cross-site", "cors", True, False),
        ("cross-site", "navigate", False, False),
        ("cross-site", "navigate", True, True),
    ],
)
def test_other_sites_may_link_to_the_document_and_read_nothing(
    site: str, mode: str, document: bool, answered: bool
) -> None:
    headers = {"Host": [HERE], "Sec-Fetch-Site": [site], "Sec-Fetch-Mode": [mode]}
    assert (refusal(headers, document=document) == "") is answered


@pytest.mark.parametrize(
    ("origin", "answered"),
    [
        ("http://127.0.0.1:8090", True),
        ("http://127.0.0.1:3000", False),
        ("https://127.0.0.1:8090", False),
        ("http://stranger.example", False),
        ("null", False),
    ],
)
def test_other_origins_read_nothing(origin: str, answered: bool) -> None:
    assert (refusal({"Host": [HERE], "Origin": [origin]}, document=False) == "") is answered
