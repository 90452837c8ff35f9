"""Which cases run, and why the others do not."""

from __future__ import annotations

import pytest

from tests.conformance.case import Case, CaseError, load_all, why_api_server

_LEFT_OUT = pytest.StashKey[list[str]]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "file_case" in metafunc.fixturenames:
        try:
            cases = load_all(metafunc.config.getoption("--cases"))
        except CaseError as error:
            raise pytest.Collector.CollectError(str(error)) from None
        metafunc.parametrize("file_case", cases, ids=[case.id for case in cases])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what cannot run through files; a skip would look like something to mend."""
    left_out: dict[pytest.Item, str] = {}
    for item in items:
        case = item.callspec.params.get("file_case") if hasattr(item, "callspec") else None
        if isinstance(case, Case) and (reason := why_api_server(case)):
            left_out[item] = f"  {case.id}: {reason}"
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=list(left_out))
    config.stash[_LEFT_OUT] = list(left_out.values())


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    left_out = config.stash.get(_LEFT_OUT, [])
    if not left_out:
        return []
    return [f"conformance: {len(left_out)} cases need an API server:", *left_out]
