"""The search for secrets in what tests say: that it finds them, and nothing else."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests import confidential
from tests.certificates import Authority
from tests.conftest import fail_if_a_secret_was_said


def reported(text: str) -> pytest.TestReport:
    """How a test ends during which this was logged."""
    report = pytest.TestReport(
        "a.py::test", ("a.py", 1, "test"), {}, "passed", None, "teardown", [("log", text)]
    )
    return fail_if_a_secret_was_said(report)


def test_a_test_that_says_a_token_fails() -> None:
    signature = secrets.token_urlsafe(64)
    token = confidential.token(f"head.claims.{signature}")
    assert reported(f"asked with {token}").failed
    assert reported(f"asked with {token[:-8]}AAAAAAAA").failed, "cut, it is hardly less secret"
    assert reported("asked with head.claims.").passed
    assert token not in str(reported(token).longrepr)


def test_a_test_that_says_a_private_key_fails(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    for pair in (authority.pair, authority.issue()):
        assert reported(pair.key.read_text()).failed
        assert reported(pair.certificate.read_text()).passed
