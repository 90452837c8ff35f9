"""A plugin of pytest: what tests say and break in a worker comes to those who run them.

Reports travel as UTF-8, and what a test logs may be none. And pytest-xdist (3.8) ends well where
a worker ended by an error of pytest's or a plugin's, though the worker's other tests are not run.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    return _in_utf8((yield))


def _in_utf8(report: Any) -> Any:
    """The same report, with lone surrogates in its texts written as escapes."""
    match report:
        case str():
            return report.encode(errors="backslashreplace").decode()
        case dict():
            return {_in_utf8(key): _in_utf8(value) for key, value in report.items()}
        case list() | tuple():
            return type(report)(map(_in_utf8, report))
    return report


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_InternalErrors())


class _InternalErrors:
    """Has a session fail that had any."""

    def __init__(self) -> None:
        self._any = False

    def pytest_internalerror(self) -> None:
        self._any = True

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._any:
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
