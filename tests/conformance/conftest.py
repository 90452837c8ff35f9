"""Which cases run, through what, and why the others do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.bench import Bench
from tests.conformance.case import Case, CaseError, load, paths_of, why_api_server
from tests.kube.plugin import Clusters

_THROUGH = {"file_case": "files", "cluster_case": "cluster"}
_LEFT_OUT = pytest.StashKey[list[str]]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name in _THROUGH.keys() & set(metafunc.fixturenames):
        try:
            paths = paths_of(metafunc.config.getoption("--cases"))
        except CaseError as error:
            raise pytest.Collector.CollectError(str(error)) from None
        params = [pytest.param(_read(path), id=path.stem) for path in paths]
        if name == "cluster_case":
            # Those that need the same cluster and flags run side by side.
            params.sort(key=lambda param: _setting(param.values[0]))
        metafunc.parametrize(name, params, indirect=True)


def _read(path: Path) -> Case | CaseError:
    """One that cannot be read fails alone; the others run."""
    try:
        return load(path)
    except CaseError as error:
        return error


def _setting(case: object) -> str:
    return str(case.setting) if isinstance(case, Case) else ""


@pytest.fixture
def file_case(request: pytest.FixtureRequest) -> Case:
    """A case that runs through files."""
    return _case(request.param)


@pytest.fixture
def cluster_case(request: pytest.FixtureRequest) -> Case:
    """A case that runs through an API server."""
    return _case(request.param)


def _case(param: Case | CaseError) -> Case:
    if isinstance(param, CaseError):
        pytest.fail(str(param), pytrace=False)
    return param


@pytest.fixture(scope="module")
def bench(
    request: pytest.FixtureRequest,
    kube_clusters: Clusters,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bench:
    """Runs the selected cases."""
    selected = (_param(item) for item in request.session.items)
    cases = [case for name, case in selected if name == "cluster_case" and isinstance(case, Case)]
    return Bench(kube_clusters, cases, tmp_path_factory.mktemp("bench"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what cannot or is not to run; a skip would look like something to mend."""
    through = config.getoption("--through")
    left_out: dict[pytest.Item, str | None] = {}
    for item in items:
        name, case = _param(item)
        if name and through not in (_THROUGH[name], "all"):
            left_out[item] = None
        elif name == "file_case" and isinstance(case, Case) and (why := why_api_server(case)):
            left_out[item] = f"  {case.id}: {why}"
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=list(left_out))
    if through == "files":
        config.stash[_LEFT_OUT] = [line for line in left_out.values() if line]


def _param(item: pytest.Item) -> tuple[str, Case | CaseError | None]:
    """The name of the fixture that gives a test its case, and the case."""
    callspec = getattr(item, "callspec", None)
    params = callspec.params if callspec else {}
    return next(((name, params[name]) for name in _THROUGH if name in params), ("", None))


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    left_out = config.stash.get(_LEFT_OUT, [])
    if not left_out:
        return []
    return [f"conformance: {len(left_out)} cases need an API server:", *left_out]
