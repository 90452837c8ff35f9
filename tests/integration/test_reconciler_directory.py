"""Services and Endpoints held in a directory: source, cache, reconciler and store together.

Manifests are told to the cache as a source tells them; the output directory is read by the
real file source, as the program does it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.reconciling import attempts
from tests.unit.objects import WEB, service, spec, vm
from vmsvc_grpc.backoff import Backoff
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.endpoints import EndpointSet, FilterClass
from vmsvc_grpc.model.events import Apply, Delete, Event, Init, InitDone
from vmsvc_grpc.model.objects import Key, Kind, ServiceType, made_uid
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.reconciler.bounds import ReconcilerBounds
from vmsvc_grpc.reconciler.counts import Attempt
from vmsvc_grpc.reconciler.directory import DirectoryStore
from vmsvc_grpc.reconciler.held import Failure
from vmsvc_grpc.reconciler.loop import Reconciler
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.source.files import FilesSource

DEADLINE_S = 20.0
SETTLE_S = 0.05
HELD_KINDS = frozenset({Kind.SERVICE, Kind.ENDPOINTS})
TOLD_KINDS = (Kind.VIRTUAL_MACHINE, Kind.VIRTUAL_MACHINE_SERVICE)
SERVICE, ENDPOINTS = "shop/web.service.yaml", "shop/web.endpoints.yaml"


_BACKOFF = Backoff(0.02, 0.1)


class Program:
    """The parts, wired as the program wires them, and what they are told."""

    def __init__(self, output: Path, cooldown_s: float, backoff: Backoff = _BACKOFF) -> None:
        self.output = output
        self.failures: list[tuple[Key, Failure | None]] = []
        self.cache = Cache(AddressRules(), kinds=(*TOLD_KINDS, *HELD_KINDS))
        self._held = FilesSource(
            output,
            HELD_KINDS,
            settle_s=SETTLE_S,
            shared=True,
            on_notices=self._retry,
            place_of=DirectoryStore.place_of,
        )
        self.store = DirectoryStore(output, on_write=self._held.written)
        self.reconciler = Reconciler(
            self.cache,
            self.store,
            bounds=ReconcilerBounds(cooldown_s=cooldown_s, backoff=backoff),
            rules=Rules(),
            on_failure=lambda key, failure: self.failures.append((key, failure)),
            random=lambda: 1.0,
        )

    def _retry(self, paths: Collection[str]) -> None:
        self.reconciler.retry(*self.store.concerned(paths))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                self._held.run(lambda event: self.tell(self.store.observation(event)))
            )
            tasks.create_task(self.reconciler.run())

    def tell(self, *events: Event) -> None:
        for event in events:
            self.reconciler.enqueue(self.cache.apply(event))

    def apply(self, *objects: Any) -> None:
        self.tell(*(Apply(one) for one in objects))

    @property
    def writes(self) -> int:
        return attempts(self.reconciler.counts, Attempt.WRITTEN).total()

    @property
    def files_read(self) -> int:
        return self._held.files_read

    @property
    def files(self) -> Mapping[str, str]:
        return {
            path.relative_to(self.output).as_posix(): path.read_text()
            for path in sorted(self.output.rglob("*.yaml"))
            if path.is_file() and not path.is_symlink()
        }

    def addresses(self, name: str = ENDPOINTS) -> list[str] | None:
        """Addresses that a file holds; None if it holds no Endpoints."""
        held = yaml.safe_load(self.files.get(name, ""))
        if held is None:
            return None
        return [a["ip"] for s in held["subsets"] for a in s.get("addresses", ())]

    def streamed(self, key: Key = WEB) -> list[str]:
        state = self.cache.state(key, FilterClass.READY_ONLY).state
        return [e.address for e in state.endpoints] if isinstance(state, EndpointSet) else []

    async def source_caught_up(self) -> None:
        """Wait until the source has looked at all that is in the directory now."""
        marker, stored = Key("shop", "marker"), self.cache.stored_services
        path = self.output / "shop" / "marker.service.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(foreign("marker"))
        await until(lambda: marker in stored)
        path.unlink()
        await until(lambda: marker not in stored)

    async def at_rest(self) -> None:
        await until(lambda: not (self.reconciler.queue_depth or self.reconciler.working))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - a file tells nobody that it is there
            await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(output: Path, *objects: Any, cooldown_s: float = 0.0) -> AsyncIterator[Program]:
    """The program, once it has listed these objects and written what follows from them."""
    program = Program(output, cooldown_s)
    running = asyncio.create_task(program.run())
    try:
        program.tell(*(Init(kind) for kind in TOLD_KINDS))
        program.apply(*objects)
        program.tell(*(InitDone(kind) for kind in TOLD_KINDS))
        await until(lambda: program.cache.synced or running.done())
        await program.at_rest()
        yield program
    finally:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


# -- In step with the streams --


async def test_files_are_added_changed_and_removed_as_the_streams_change(out: Path) -> None:
    async with serving(out, service(), vm("a", "10.0.0.1")) as program:
        assert list(program.files) == [ENDPOINTS, SERVICE]
        assert program.addresses() == program.streamed() == ["10.0.0.1"]
        program.apply(vm("b", "10.0.0.2"), service(Key("bank", "ledger")))
        await program.at_rest()
        assert program.addresses() == program.streamed() == ["10.0.0.1", "10.0.0.2"]
        assert program.addresses("bank/ledger.endpoints.yaml") == []
        program.apply(service(given=spec(type=ServiceType.LOAD_BALANCER)))
        await program.at_rest()
        assert yaml.safe_load(program.files[SERVICE])["spec"]["type"] == "LoadBalancer"
        program.tell(Delete(Kind.VIRTUAL_MACHINE_SERVICE, Key("bank", "ledger")))
        await program.at_rest()
        assert list(program.files) == [ENDPOINTS, SERVICE]
        assert not (out / "bank").exists()


async def test_at_rest_nothing_is_written_and_what_we_wrote_is_no_news(out: Path) -> None:
    async with serving(out, service(), vm("a", "10.0.0.1")) as program:
        assert program.writes == 2
        await program.source_caught_up()
        await program.at_rest()
        assert program.writes == 2
        # The marker, and none of ours: to read 1,000 endpoints takes a tenth of a second.
        assert program.files_read == 1


async def test_a_burst_of_changes_becomes_few_writes(out: Path) -> None:
    """200 changes in a second on one service (LESSONS: a write for each change)."""
    async with serving(out, service(), cooldown_s=0.2) as program:
        before = program.writes
        for number in range(200):
            program.apply(vm(f"vm-{number}", f"10.0.1.{number}"))
            await asyncio.sleep(0.005)
        await program.at_rest()
        assert program.addresses() == program.streamed()
        assert len(program.streamed()) == 200
        # One at once, and one after each rest of a fifth of a second.
        assert program.writes - before <= 12


# -- Edited by hand --


def edited(old: str, new: str) -> Callable[[str], str]:
    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return edit


def without_owner(text: str) -> str:
    untyped = yaml.safe_load(text)
    del untyped["metadata"]["ownerReferences"]
    return text.partition("\n")[0] + "\n" + yaml.safe_dump(untyped)


@pytest.mark.parametrize("settled", [False, True], ids=["at once", "after a while"])
@pytest.mark.parametrize("name", [SERVICE, ENDPOINTS])
@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(edited("9376", "1"), id="another port"),
        pytest.param(edited("name: http", "name: x"), id="another port name"),
        pytest.param(edited("controller: true", "controller: false"), id="no controller"),
        pytest.param(edited("v1alpha6", "v1alpha2"), id="an older version"),
        pytest.param(without_owner, id="no owner"),
        pytest.param(edited("port: ", "port: x"), id="a port that is none"),
        pytest.param(edited("metadata:", "metadata: ["), id="no YAML"),
        pytest.param(edited("name: web\n  namespace", "name: other\n  namespace"), id="a name"),
        pytest.param(lambda text: text[: len(text) // 2], id="cut short"),
        pytest.param(lambda text: "", id="emptied"),
        pytest.param(lambda text: "just text", id="no object"),
        pytest.param(lambda text: "a: [", id="nothing of it left, and no YAML"),
    ],
)
async def test_an_edited_file_is_put_right(
    name: str, edit: Callable[[str], str], settled: bool, out: Path
) -> None:
    """Whether or not the source had looked at the file before it was edited."""
    async with serving(out, service(), vm("a", "10.0.0.1")) as program:
        before = program.files
        if settled:
            await program.source_caught_up()
        (out / name).write_text(edit(before[name]))
        await until(lambda: program.files == before)
        await program.at_rest()
        assert program.files == before


@pytest.mark.parametrize("settled", [False, True], ids=["at once", "after a while"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("clusterIP: None", "clusterIP: 10.96.0.1", id="another"),
        pytest.param("  clusterIP: None\n", "", id="none"),
    ],
)
async def test_an_edited_cluster_address_is_put_right(
    old: str, new: str, settled: bool, out: Path
) -> None:
    async with serving(out, service(given=spec(cluster_ip="None"))) as program:
        before = program.files
        if settled:
            await program.source_caught_up()
        (out / SERVICE).write_text(edited(old, new)(before[SERVICE]))
        await until(lambda: program.files == before)


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_deleted_file_is_written_anew(restarted: bool, out: Path) -> None:
    objects = service(), vm("a", "10.0.0.1")
    async with serving(out, *objects) as program:
        before = program.files
        if not restarted:
            (out / SERVICE).unlink()
            await until(lambda: program.files == before)
            shutil.rmtree(out / "shop")
            await until(lambda: program.files == before)
    if restarted:
        (out / ENDPOINTS).unlink()
        async with serving(out, *objects) as program:
            assert program.files == before
            assert program.writes == 1


async def test_a_removed_directory_is_made_and_filled_anew(out: Path) -> None:
    other = Key("data", "db")
    async with serving(out, service(), service(other), vm("a", "10.0.0.1")) as program:
        before = program.files
        assert len(before) == 4
        shutil.rmtree(out)
        await until(lambda: program.files == before)


@pytest.mark.parametrize("place", [".", "shop"])
async def test_a_directory_in_whose_place_there_is_an_empty_one_is_filled_anew(
    out: Path, place: str
) -> None:
    """It passed for one whose file system was away: what had been in it was believed held."""
    async with serving(out, service(), vm("a", "10.0.0.1")) as program:
        before = program.files
        (out / place).resolve().rename(out.with_name("away"))
        (out / place).mkdir()
        await until(lambda: program.files == before)


async def test_labels_that_others_put_on_the_service_stay_and_reach_the_endpoints(
    out: Path,
) -> None:
    async with serving(out, service(), vm("a", "10.0.0.1")) as program:
        path = out / SERVICE
        path.write_text(
            path.read_text().replace("namespace: shop", "namespace: shop\n  labels: {team: blue}")
        )
        await until(lambda: "team: blue" in program.files[ENDPOINTS])
        assert yaml.safe_load(program.files[SERVICE])["metadata"]["labels"] == {"team": "blue"}


# -- Not ours --


def foreign(name: str, kind: str = "Service") -> str:
    return (
        f"apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\n"
        "spec: {ports: [{port: 1}]}\n"
    )


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(foreign("web"), id="an object that nobody owns"),
        pytest.param(
            foreign("web").replace("ports:", "selector: {app: pods}, ports:"),
            id="a Service of pods",
        ),
        pytest.param(
            foreign("web").replace(
                "namespace: shop",
                "namespace: shop, ownerReferences: "
                "[{apiVersion: apps/v1, kind: Deployment, name: d, uid: d, controller: true}]",
            ),
            id="an object that another controls",
        ),
        pytest.param("a: [", id="no YAML"),
        pytest.param("just text", id="no object"),
    ],
)
async def test_a_file_that_is_not_ours_stays_until_it_is_moved_away(
    content: str, out: Path
) -> None:
    (out / "shop").mkdir(parents=True)
    path = out / SERVICE
    path.write_text(content)
    program = Program(out, cooldown_s=0.0)
    running = asyncio.create_task(program.run())
    program.tell(*(Init(kind) for kind in TOLD_KINDS))
    program.apply(service(), vm("a", "10.0.0.1"), service(Key("shop", "db")))
    program.tell(*(InitDone(kind) for kind in TOLD_KINDS))
    await until(lambda: program.failures)
    await until(lambda: "shop/db.endpoints.yaml" in program.files)
    ((key, failure),) = program.failures
    assert (key, failure and failure.reason) == (WEB, "ServiceNotOurs")
    assert path.read_text() == content
    assert ENDPOINTS not in program.files
    path.rename(out.parent / "moved.yaml")
    await until(lambda: ENDPOINTS in program.files)
    assert program.addresses() == ["10.0.0.1"]
    assert program.failures[1:] == [(WEB, None)]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def put(sort: str, path: Path, target: Path) -> None:
    """Put something of a sort where a path leads, in the place of what is there."""
    if path.is_dir() and sort == "a link in the place of the namespace":
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    match sort:
        case "a FIFO":
            os.mkfifo(path)
        case "a directory":
            path.mkdir()
        case _:
            path.symlink_to(target)


def link(directory: Path, links: Mapping[str, Path]) -> None:
    directory.mkdir()
    for name, target in links.items():
        (directory / name).symlink_to(target)


@pytest.mark.parametrize(
    ("sort", "target"),
    [
        pytest.param("a link", "elsewhere/shop/web.service.yaml", id="a link to a file"),
        pytest.param("a link", "elsewhere", id="a link to a directory"),
        pytest.param("a link", "/dev/zero", id="a link to a device"),
        pytest.param("a link", "nothing", id="a link to nothing"),
        pytest.param("a FIFO", "", id="a FIFO"),
        pytest.param("a directory", "", id="a directory"),
        pytest.param("a link in the place of the namespace", "elsewhere/shop", id="a namespace"),
    ],
)
async def test_what_is_no_file_costs_itself_only(
    sort: str, target: str, out: Path, tmp_path: Path
) -> None:
    """Issue 9, point 17: a link out of the tree was written through, a FIFO ended everything."""
    ledger = Key("bank", "ledger")
    async with serving(tmp_path / "elsewhere", service(), vm("a", "10.0.0.9")) as program:
        elsewhere = program.files
    async with serving(out, service(), service(ledger), vm("a", "10.0.0.1")) as program:
        path = out / ("shop" if sort.endswith("namespace") else SERVICE)
        put(sort, path, tmp_path / target)
        program.apply(service(given=spec(type=ServiceType.LOAD_BALANCER)), service(ledger))
        await until(lambda: program.failures)
        program.apply(vm("b", "10.0.0.2", namespace="bank"))
        await until(lambda: program.addresses("bank/ledger.endpoints.yaml") == ["10.0.0.2"])
        ((key, failure),) = program.failures
        assert key == WEB
        assert failure
        assert str(path) in failure.message
        assert path.is_symlink() is (sort.startswith("a link"))
        path.rename(tmp_path / "moved")
        await until(lambda: len(program.failures) == 2)
        assert program.failures[1] == (WEB, None)
        await until(lambda: program.addresses() == ["10.0.0.1"])
    assert Program(tmp_path / "elsewhere", 0.0).files == elsewhere


@pytest.mark.parametrize(
    "sort", ["a FIFO", "a directory", "a link", "a foreign file", "a link, to the namespace"]
)
async def test_what_was_in_the_way_is_not_waited_for_once_it_is_moved_away(
    sort: str, out: Path, tmp_path: Path
) -> None:
    """Nothing was written before the back-off was over, which may take a minute."""
    (tmp_path / "elsewhere").mkdir()
    path = out / ("shop" if sort.endswith("namespace") else SERVICE)
    path.parent.mkdir(parents=True)
    if sort == "a foreign file":
        path.write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: web}}\n")
    else:
        put(sort, path, tmp_path / "elsewhere")
    program = Program(out, cooldown_s=0.0, backoff=Backoff(3600.0, 3600.0))
    running = asyncio.create_task(program.run())
    program.tell(*(Init(kind) for kind in TOLD_KINDS))
    program.apply(service(), vm("a", "10.0.0.1"))
    program.tell(*(InitDone(kind) for kind in TOLD_KINDS))
    await until(lambda: program.failures)
    path.rename(tmp_path / "moved")
    await until(lambda: program.addresses() == ["10.0.0.1"])
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_objects_count_only_in_their_own_files(out: Path) -> None:
    """A namespace's directory that was renamed was never written again: all seemed to be held."""
    async with serving(out, service(), vm("a", "10.0.0.1")) as program:
        before = program.files
        (out / "shop").rename(out / "aside")
        await until(lambda: program.files.keys() >= before.keys())
        assert {path: program.files[path] for path in before} == before
        await program.source_caught_up()
        assert program.files.keys() == {
            *before,
            "aside/web.endpoints.yaml",
            "aside/web.service.yaml",
        }


async def test_a_copy_that_comes_first_in_path_order_does_not_hide_an_edit(out: Path) -> None:
    """It was found in the copy at the start, and what was done to the file itself did not count."""
    async with serving(out, service(), vm("a", "10.0.0.1")) as program:
        before = program.files
    (out / "a-copy.yaml").write_text(before[ENDPOINTS])
    async with serving(out, service(), vm("a", "10.0.0.1")) as program:
        (out / ENDPOINTS).write_text(before[ENDPOINTS].replace("10.0.0.1", "10.0.0.9"))
        await until(lambda: program.writes)
        await until(lambda: program.files[ENDPOINTS] == before[ENDPOINTS])


async def test_links_in_the_directory_are_not_read(out: Path, tmp_path: Path) -> None:
    """A link to a device never ended; one to another output had its files taken for ours."""
    async with serving(tmp_path / "elsewhere", service(Key("shop", "db"))) as program:
        elsewhere = program.files
    links = {
        "zero.yaml": Path("/dev/zero"),
        "elsewhere": tmp_path / "elsewhere",
        "db.yaml": tmp_path / "elsewhere" / "shop" / "db.service.yaml",
        "loop": out,
    }
    link(out, links)
    async with serving(out, service(), vm("a", "10.0.0.1")) as program:
        await program.source_caught_up()
        assert program.addresses() == ["10.0.0.1"]
        assert program.cache.stored_services.keys() == {WEB}
    assert Program(tmp_path / "elsewhere", 0.0).files == elsewhere


async def test_a_service_without_a_uid_is_held_as_any_other(out: Path) -> None:
    """Nothing in the files refers to it but our mark; an editor may take the comments away."""
    uid = made_uid(Kind.VIRTUAL_MACHINE_SERVICE, WEB)
    objects = service(uid=uid), vm("a", "10.0.0.1")
    async with serving(out, *objects) as program:
        before = program.files
        assert not any("ownerReferences" in content for content in before.values())
    async with serving(out, *objects) as program:
        assert (program.files, program.writes) == (before, 0)
        edited = yaml.safe_load(before[SERVICE])
        edited["spec"]["ports"] = [{"port": 1}]
        (out / SERVICE).write_text(yaml.safe_dump(edited))
        await until(lambda: program.files == before)
        program.tell(Delete(Kind.VIRTUAL_MACHINE_SERVICE, WEB))
        await until(lambda: not program.files)


async def test_the_endpoints_of_a_service_without_selector_are_the_users(out: Path) -> None:
    async with serving(out, service(given=spec(selector={}))) as program:
        assert list(program.files) == [SERVICE]
        (out / ENDPOINTS).write_text(foreign("web", "Endpoints"))
        await until(lambda: WEB in program.cache.stored_endpoints)
        program.tell(Delete(Kind.VIRTUAL_MACHINE_SERVICE, WEB))
        await program.at_rest()
        assert program.files == {ENDPOINTS: foreign("web", "Endpoints")}


# -- Ended and started again --


async def test_what_was_left_by_services_that_are_gone_is_removed(out: Path) -> None:
    async with serving(out, service(), service(Key("old", "gone"))) as program:
        assert len(program.files) == 4
        (out / "shop" / "mine.service.yaml").write_text(foreign("mine"))
    async with serving(out, service()) as program:
        assert list(program.files) == ["shop/mine.service.yaml", ENDPOINTS, SERVICE]
        assert not (out / "old").exists()
        assert program.writes == 2


async def test_started_again_with_nothing_changed_it_writes_nothing(out: Path) -> None:
    objects = service(), vm("a", "10.0.0.1"), service(Key("bank", "ledger"))
    async with serving(out, *objects) as program:
        before = program.files
    async with serving(out, *objects) as program:
        assert (program.files, program.writes) == (before, 0)


def unfinished(output: Path) -> list[Path]:
    return list(output.rglob(".*"))


@pytest.mark.parametrize("writes", range(8))
async def test_killed_between_two_writes_and_started_again_it_converges(
    writes: int, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends in the middle of a file: a temporary one is left, the rest undone."""
    async with serving(out, service(Key("old", "gone")), service()):
        pass
    real, done = os.rename, 0

    class Killed(BaseException):
        """Nothing after it happens."""

    def rename_or_die(*names: Any, **directories: Any) -> None:
        nonlocal done
        if done == writes:
            raise Killed
        done += 1
        real(*names, **directories)

    objects = (
        service(given=spec(type=ServiceType.LOAD_BALANCER)),
        service(Key("bank", "ledger")),
        service(Key("bank", "audit")),
        vm("a", "10.0.0.1"),
        vm("b", "10.0.0.1", namespace="bank"),
    )
    program = Program(out, cooldown_s=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename_or_die)
        running = asyncio.create_task(program.run())
        program.tell(*(Init(kind) for kind in TOLD_KINDS))
        program.apply(*objects)
        program.tell(*(InitDone(kind) for kind in TOLD_KINDS))
        await until(lambda: running.done() or done == 6)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    async with serving(out, *objects) as again:
        assert list(again.files) == [
            "bank/audit.endpoints.yaml",
            "bank/audit.service.yaml",
            "bank/ledger.endpoints.yaml",
            "bank/ledger.service.yaml",
            ENDPOINTS,
            SERVICE,
        ]
        assert "LoadBalancer" in again.files[SERVICE]
        for name in (name for name in again.files if "endpoints" in name):
            assert again.addresses(name) == ["10.0.0.1"]
        assert not (out / "old").exists()
        assert not unfinished(out)
