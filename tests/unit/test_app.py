"""In which order a process does what an event asks for."""

from __future__ import annotations

import asyncio
import gc
import resource
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.collector import unchanged_collector
from tests.unit.objects import WEB, service, vm
from vmsvc_grpc.app import App, main, warn_each_hour
from vmsvc_grpc.cache.cache import AT_ONCE_MAX, Cache
from vmsvc_grpc.cache.topic import Topic
from vmsvc_grpc.config import Config, ListenAddress
from vmsvc_grpc.logs.repeats import Repeats
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.events import Apply, Event, Init, InitDone
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.place import SourceState
from vmsvc_grpc.server.limits import Limits, within_files
from vmsvc_grpc.source import Emit

__all__ = ["unchanged_collector"]


class Witness:
    """A place to write, and a client that watches a service there: what each hears, in order."""

    troubles: tuple[str, ...] = ()
    sources: tuple[SourceState, ...] = ()
    writing = "nothing is written"

    def __init__(self) -> None:
        self.heard: list[str] = []

    def remarks(self, _kind: Kind, _key: Key) -> Iterable[str]:
        return ()

    def origin(self, _kind: Kind, key: Key) -> str:
        return f"namespace {key.namespace}"

    async def run(self, emit: Emit) -> None:
        """Nothing comes of itself."""

    def changed(self, services: Iterable[Key]) -> None:
        self.heard += [f"write {key}" for key in services]

    def wake(self, topic: Topic) -> None:
        self.heard.append(f"tell {topic.service}")


pytestmark = pytest.mark.usefixtures("unchanged_collector")


async def test_clients_are_told_before_a_write_is_queued(tmp_path: Path) -> None:
    """Of the event that completes the cache, and of each after it."""
    app, witness = App(Config(manifests=tmp_path), Repeats()), Witness()
    cache: Cache = app._cache
    app._place = witness
    cache.subscribe(WEB, FilterClass.ALL, witness)
    kinds = (Kind.VIRTUAL_MACHINE, Kind.VIRTUAL_MACHINE_SERVICE)
    events: list[Event] = [*map(Init, kinds), Apply(service()), *map(InitDone, kinds)]
    for event in (*events, Apply(vm("vm-1", "10.0.0.1"))):
        app._emit(event)
    assert witness.heard == [f"tell {WEB}", f"write {WEB}"] * 2


async def test_events_that_come_while_lists_are_settled_do_none_of_that_work(
    tmp_path: Path,
) -> None:
    """Many may come in one turn of the event loop: as many lines of a watch as one read brings."""
    app = App(Config(manifests=tmp_path), Repeats())
    cache, app._place = app._cache, Witness()
    vms = [vm(f"vm-{number}", "10.0.0.1") for number in range(20 * AT_ONCE_MAX)]
    for kind in (Kind.VIRTUAL_MACHINE, Kind.VIRTUAL_MACHINE_SERVICE):
        cache.apply(Init(kind))
        for each in vms if kind is Kind.VIRTUAL_MACHINE else ():
            cache.apply(Apply(each))
        cache.apply(InitDone(kind))
    app._emit(Init(Kind.VIRTUAL_MACHINE))
    app._emit(InitDone(Kind.VIRTUAL_MACHINE))
    left = len(cache.vms)
    assert left == len(vms) - AT_ONCE_MAX, "the first slice is done at once"
    for _ in range(10):
        app._emit(Apply(vm("late", "10.0.0.2")))
    assert len(cache.vms) == left + 1
    settling = asyncio.create_task(app._proceed())
    while cache.unfinished:  # noqa: ASYNC110 - it is nobody's event
        await asyncio.sleep(0)
    settling.cancel()
    assert len(cache.vms) == 1


async def test_what_is_there_at_first_is_kept_out_of_collections(tmp_path: Path) -> None:
    """Once it is complete: before, it would be but a part."""
    app = App(Config(manifests=tmp_path), Repeats())
    app._place = Witness()
    kinds = (Kind.VIRTUAL_MACHINE, Kind.VIRTUAL_MACHINE_SERVICE)
    events: list[Event] = [*map(Init, kinds), Apply(service()), InitDone(kinds[0])]
    for event in events:
        app._emit(event)
    assert gc.get_freeze_count() == 0
    app._emit(InitDone(kinds[1]))
    assert gc.get_freeze_count() > 0


@pytest.mark.parametrize(
    ("files", "connections", "of_one_client"),
    [
        pytest.param(1_048_576, 10_000, 2_500, id="as many as set"),
        pytest.param(4_096, 3_584, 896, id="those reserved are left"),
        pytest.param(1_024, 512, 128, id="half of them are left"),
        pytest.param(64, 32, 8, id="half of few"),
        pytest.param(resource.RLIM_INFINITY, 10_000, 2_500, id="without end"),
    ],
)
def test_connections_leave_files_to_others(
    files: int, connections: int, of_one_client: int
) -> None:
    limits = Limits(connections_max=10_000, connections_per_client_max=2_500, files_reserved=512)
    left = replace(limits, connections_max=connections, connections_per_client_max=of_one_client)
    assert within_files(limits, files) == left


def test_an_error_deep_in_groups_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """One raised within tasks within tasks was logged as "unhandled errors in a TaskGroup"."""
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    config = Config(
        manifests=manifests,
        listen=(ListenAddress("127.0.0.1", 0),),
        http_listen=ListenAddress("127.0.0.1", 0),
    )
    manifests.rmdir()
    assert main(config, Repeats()) == 1
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert str(manifests) in record.getMessage()
    assert "TaskGroup" not in record.getMessage()
    assert record.exc_info is None


_BEGUN = """\
import sys
from pathlib import Path
from vmsvc_grpc.app import App
from vmsvc_grpc.config import Config
from vmsvc_grpc.logs.repeats import Repeats

App(Config(manifests=Path(sys.argv[1]), transport=sys.argv[2]), Repeats())._chosen_place()
loaded = {"grpc", "ngh2", "vmsvc_grpc.place.cluster", "vmsvc_grpc.reconciler.loop"}
print(*sorted(loaded & set(sys.modules)))
"""


@pytest.mark.parametrize(("transport", "library"), [("grpcio", "grpc"), ("http2", "ngh2")])
def test_parts_that_are_not_used_are_not_loaded(
    tmp_path: Path, transport: str, library: str
) -> None:
    """Loading them took a tenth of the CPU of a start."""
    command = [sys.executable, "-c", _BEGUN, str(tmp_path), transport]
    begun = subprocess.run(command, capture_output=True, text=True, check=True)
    assert begun.stdout.split() == [library]


def test_commands_that_do_not_serve_load_no_http() -> None:
    """Loading it took a third of the CPU of `--help` and of `render`."""
    program = "import sys, vmsvc_grpc.__main__, vmsvc_grpc.render; print('aiohttp' in sys.modules)"
    command = [sys.executable, "-c", program]
    begun = subprocess.run(command, capture_output=True, text=True, check=True)
    assert begun.stdout.split() == ["False"]


async def test_what_is_open_to_others_is_logged_again_and_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warning = asyncio.create_task(warn_each_hour("0.0.0.0:50051", hour_s=0.001))
    while len(caplog.messages) < 3:  # noqa: ASYNC110 - the log wakes nobody
        await asyncio.sleep(0.001)
    warning.cancel()
    assert all("--insecure" in line and "0.0.0.0:50051" in line for line in caplog.messages)
