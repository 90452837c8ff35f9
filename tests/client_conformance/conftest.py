"""Which clients run which cases: all at once, so that none waits for another's delays."""

from __future__ import annotations

import asyncio
import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests import go_client
from tests.client_conformance.case_pb2 import NETWORK_FROZEN, NETWORK_MUTE, Case
from tests.client_conformance.driver import Driver
from tests.client_conformance.play import play
from tests.client_conformance.table import CASES, read

# More would only wait for the processor.
_AT_ONCE = 8

_BIN, _HERE = Path(sys.executable).parent, Path(__file__).parent

# Each is made when it is first used: that of Go has to be built.
DRIVERS: Mapping[str, Callable[[], Driver]] = {
    "python-async": lambda: Driver([_BIN / "vmsvc", "watch", "-o", "json"]),
    "python-sync": lambda: Driver([sys.executable, _HERE / "sync_driver.py"]),
    "go": lambda: Driver([go_client.program("./internal/cmd/watch")]),
    "feed": lambda: Driver([sys.executable, _HERE / "feed_driver.py"], newest=True),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        # Those that take long are waited for at last.
        cases = sorted(read(CASES), key=_takes_long)
        metafunc.parametrize("case", [pytest.param(case, id=case.name) for case in cases])
    if "client" in metafunc.fixturenames:
        metafunc.parametrize("client", _drivers(metafunc.config))


def _drivers(config: pytest.Config) -> Mapping[str, Callable[[], Driver]]:
    own = config.getoption("--driver")
    return {"driver": lambda: Driver(shlex.split(own))} if own else DRIVERS


def _takes_long(case: Case) -> bool:
    """Whether a client is to notice by itself that nothing comes any more."""
    return any(step.network in (NETWORK_FROZEN, NETWORK_MUTE) for step in case.steps)


@pytest.fixture(scope="module")
def played(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str, str], Future[None]]]:
    """What came of a case with a client. All cases of the tests selected are begun at once."""
    selected = list(_selected(request.session))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    room = asyncio.Semaphore(_AT_ONCE)
    made = _drivers(request.config)
    drivers = {client: made[client]() for client in {client for client, _ in selected}}

    async def begun(client: str, case: Case) -> None:
        async with room:
            await play(case, drivers[client], tmp_path_factory.mktemp("case"))

    futures = {
        (client, case.name): asyncio.run_coroutine_threadsafe(begun(client, case), loop)
        for client, case in sorted(selected, key=lambda each: not _takes_long(each[1]))
    }
    try:
        yield lambda client, name: futures[client, name]
    finally:
        for future in futures.values():
            future.cancel()
        asyncio.run_coroutine_threadsafe(_others_over(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _selected(session: pytest.Session) -> Iterator[tuple[str, Case]]:
    """The clients with the cases that they are to run."""
    for item in session.items:
        callspec = getattr(item, "callspec", None)
        params = callspec.params if callspec else {}
        if isinstance(case := params.get("case"), Case):
            yield params["client"], case


async def _others_over() -> None:
    """Wait for what still runs."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)
