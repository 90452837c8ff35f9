"""What holds for every test: its options, and that CI skips none."""

import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings

from tests.confidential import leaked

pytest_plugins = ["tests.kube.plugin", "tests.workers"]

# How long an example takes depends on the machine. CI looks at the same ones each time, so
# that what it says of a commit does not change; people's machines look further.
settings.register_profile("ours", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("ours")

# Where the tests run in a Pod, the programs that they start are not to take it for theirs.
os.environ.pop("KUBERNETES_SERVICE_HOST", None)

# What a shell starts in the background, CI's run too, ignores SIGINT, and passes that on to
# each program that a test starts, where it means something else.
signal.signal(signal.SIGINT, signal.default_int_handler)

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cases",
        type=Path,
        default=Path(__file__).parent / "conformance" / "cases",
        metavar="DIR",
        help="directory of conformance cases",
    )
    parser.addoption(
        "--through",
        choices=("files", "cluster", "all"),
        default="all",
        help="run conformance cases through files, an API server, or both (default)",
    )
    parser.addoption(
        "--driver",
        metavar="COMMAND",
        help="the client that is to do what clients/conformance says, in place of those of here",
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return fail_if_a_secret_was_said(_fail_if_skipped_in_ci((yield)))


def fail_if_a_secret_was_said(report: pytest.TestReport) -> pytest.TestReport:
    """Fail a test during which anything that was printed or logged had a secret of any test."""
    if report.when == "teardown":
        found = {where for where, text in report.sections if text and leaked(text)}
        if found:
            report.outcome = "failed"
            report.longrepr = f"a token or private key is in: {', '.join(sorted(found))}"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _fail_if_skipped_in_ci((yield))


def _fail_if_skipped_in_ci(report: Report) -> Report:
    expected_to_fail = hasattr(report, "wasxfail")
    if os.environ.get("CI") and report.skipped and not expected_to_fail:
        where = report.longrepr
        reason = where[2] if isinstance(where, tuple) else where
        report.outcome = "failed"
        report.longrepr = f"CI skips no test. {reason}"
    return report
