"""Which licences what we install may have."""

from __future__ import annotations

from email.message import Message
from typing import Any, cast

import pytest

from tests.licences import LOCK, allowed, licence, pinned


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", True),
        ("Apache-2.0 AND MIT", True),
        ("GPL-3.0-only OR MIT", True),
        ("(Apache-2.0 OR GPL-2.0-only)", True),
        ("GPL-3.0-only", False),
        ("MIT AND GPL-3.0-only", False),
        ("LGPL-2.1-or-later", False),
        ("", False),
        ("as is", False),
    ],
)
def test_allowed(expression: str, expected: bool) -> None:
    assert allowed(expression) is expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([("License-Expression", "MIT"), ("License", "GPL")], "MIT"),
        ([("Classifier", "License :: OSI Approved :: MIT License")], "MIT"),
        ([("License", "Apache License 2.0")], "Apache-2.0"),
        ([("License", "Some licence\nof many lines")], "Some licence"),
        ([], ""),
    ],
)
def test_what_metadata_says(fields: list[tuple[str, str]], expected: str) -> None:
    message = Message()
    for name, value in fields:
        message[name] = value
    assert licence(cast(Any, message)) == expected


def test_every_package_of_the_lock_is_looked_at() -> None:
    names = pinned(LOCK.read_text())
    assert {"grpcio", "uvloop", "protobuf", "ngh2"} <= set(names)
    entries = [line for line in LOCK.read_text().splitlines() if line and line[0] not in "# "]
    assert len(names) == len(entries)
