"""Which files a directory holds, and which are left alone."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.objects import WEB
from vmsvc_grpc.model.events import Apply, Delete, Event, InitDone, Malformed
from vmsvc_grpc.model.objects import (
    NEWEST_API_VERSION,
    Key,
    Kind,
    ObjectMeta,
    OwnerReference,
    StoredAddress,
    StoredEndpoints,
    StoredPort,
    StoredService,
    Subset,
    TargetRef,
    made_uid,
)
from vmsvc_grpc.model.ownership import HELD_FOR
from vmsvc_grpc.model.parse import parse
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.reconciler.directory import DirectoryStore
from vmsvc_grpc.reconciler.held import Child
from vmsvc_grpc.reconciler.manifest import manifest, yaml_document
from vmsvc_grpc.reconciler.plan import Change
from vmsvc_grpc.reconciler.store import ChangeError, Conflict

OURS = OwnerReference(NEWEST_API_VERSION, "VirtualMachineService", "web", "uid-web", True, True)
META = ObjectMeta(key=WEB, uid="", labels={"team": "blue"}, owner_references=(OURS,))
SERVICE = StoredService(meta=META, type="ClusterIP", ports=(StoredPort("http", "TCP", 80, 9376),))
ENDPOINTS = StoredEndpoints(meta=META)
OWNERLESS = replace(SERVICE, meta=replace(META, owner_references=()))
DEPLOYMENT = OwnerReference("apps/v1", "Deployment", "someone", "uid-someone", True)
OTHERS = replace(SERVICE, meta=replace(META, owner_references=(DEPLOYMENT,)))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def store(out: Path) -> DirectoryStore:
    return DirectoryStore(out)


def made(store: DirectoryStore, change: Change) -> Child | None:
    return asyncio.run(store.apply(change))


def text(child: Child) -> str:
    return yaml_document(manifest(child))


def files(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): path.read_text()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_each_object_is_a_file_that_says_who_writes_it(store: DirectoryStore, out: Path) -> None:
    made(store, Change(None, SERVICE))
    made(store, Change(None, ENDPOINTS))
    line = "# Held by vmsvc-grpc; edits are put right. Change VirtualMachineService shop/web.\n"
    assert files(out) == {
        "shop/web.service.yaml": line + text(SERVICE),
        "shop/web.endpoints.yaml": line + text(ENDPOINTS),
    }


def test_what_it_says_is_held_is_what_a_reader_finds(store: DirectoryStore, out: Path) -> None:
    for child, kind in ((SERVICE, Kind.SERVICE), (ENDPOINTS, Kind.ENDPOINTS)):
        held = made(store, Change(None, child))
        name = f"shop/web.{kind.value.lower()}.yaml"
        assert held == parse(kind, yaml.safe_load(files(out)[name]))
        assert held is not None
        assert held.meta.uid


def test_a_change_replaces_the_file_in_one_step(store: DirectoryStore, out: Path) -> None:
    held = made(store, Change(None, SERVICE))
    path = out / "shop/web.service.yaml"
    with path.open() as reader:
        made(store, Change(held, replace(SERVICE, type="LoadBalancer")))
        assert reader.read().endswith(text(SERVICE))
    assert "LoadBalancer" in path.read_text()
    assert [child.name for child in path.parent.iterdir()] == ["web.service.yaml"]


def test_others_have_their_turn_while_a_large_file_is_rendered(store: DirectoryStore) -> None:
    """5,000 endpoints took 60 ms in one go, and every stream stood still meanwhile."""
    addresses = tuple(
        StoredAddress(f"10.0.{n // 256}.{n % 256}", TargetRef(name=f"vm-{n}", uid=f"uid-{n}"))
        for n in range(5000)
    )
    large = replace(ENDPOINTS, subsets=(Subset(addresses, (), ()),))

    async def turns_meanwhile() -> int:
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as tasks:
            others = tasks.create_task(take_turns())
            await asyncio.sleep(0)
            await store.apply(Change(None, large))
            others.cancel()
        return turns

    lines = text(large).count("\n")
    assert asyncio.run(turns_meanwhile()) > lines // 1000


def test_deleting_leaves_no_empty_directory(store: DirectoryStore, out: Path) -> None:
    service = made(store, Change(None, SERVICE))
    endpoints = made(store, Change(None, ENDPOINTS))
    assert made(store, Change(endpoints, None)) is None
    assert list(files(out)) == ["shop/web.service.yaml"]
    assert made(store, Change(service, None)) is None
    assert list(out.iterdir()) == []


def test_deleting_leaves_the_files_of_others(store: DirectoryStore, out: Path) -> None:
    held = made(store, Change(None, SERVICE))
    (out / "shop" / "notes.txt").write_text("mine")
    made(store, Change(held, None))
    assert files(out) == {"shop/notes.txt": "mine"}


def test_what_is_gone_already_counts_as_deleted(store: DirectoryStore, out: Path) -> None:
    assert made(store, Change(SERVICE, None)) is None
    assert list(out.iterdir()) == []


def test_what_a_crash_left_unfinished_is_no_hindrance(store: DirectoryStore, out: Path) -> None:
    (out / "shop").mkdir()
    (out / "shop" / ".web.service.yaml.tmp").write_text("half a fi")
    made(store, Change(None, SERVICE))
    assert list(files(out)) == ["shop/web.service.yaml"]


def test_a_directory_that_was_removed_is_made_again(store: DirectoryStore, out: Path) -> None:
    out.rmdir()
    made(store, Change(None, SERVICE))
    assert list(files(out)) == ["shop/web.service.yaml"]


# -- Whose a file is --


@pytest.mark.parametrize(
    ("content", "ours"),
    [
        pytest.param(text(SERVICE), True, id="an object that a VMService owns"),
        pytest.param(
            f"metadata: {{name: web, annotations: {{{HELD_FOR}: web}}}}", True, id="a mark"
        ),
        pytest.param(
            f"metadata: {{name: db, annotations: {{{HELD_FOR}: web}}}}", False, id="another's mark"
        ),
        pytest.param(text(SERVICE) + "spec: [", False, id="text that does not parse"),
        pytest.param("# Held by vmsvc-grpc; edits\n- [", True, id="our line, whatever follows"),
        pytest.param(text(OWNERLESS), False, id="an object without owner"),
        pytest.param(text(OTHERS), False, id="an object that another owns"),
        pytest.param(f"{text(SERVICE)}---\n{text(OTHERS)}", False, id="ours beside another's"),
        pytest.param("", False, id="nothing"),
        pytest.param("just text", False, id="text that is no object"),
        pytest.param("a: b", False, id="a mapping that is no object"),
        pytest.param("metadata: {ownerReferences: x}", False, id="owners that are none"),
        pytest.param("\x00", False, id="bytes that are no text"),
    ],
)
def test_a_file_is_ours_by_its_content(
    content: str, ours: bool, store: DirectoryStore, out: Path
) -> None:
    path = out / "shop" / "web.service.yaml"
    path.parent.mkdir()
    path.write_text(content)
    for change in (Change(None, SERVICE), Change(SERVICE, SERVICE)):
        if ours:
            made(store, change)
            assert path.read_text().endswith(text(SERVICE))
        else:
            with pytest.raises(ChangeError) as error:
                made(store, change)
            assert error.value.failure.reason == "ServiceNotOurs"
            assert str(path) in error.value.failure.message
            assert path.read_text() == content


# -- Of a VMService whose manifest has no uid --

OF_NO_UID = OURS._replace(uid=made_uid(Kind.VIRTUAL_MACHINE_SERVICE, WEB))
WITHOUT_UID = replace(SERVICE, meta=replace(META, owner_references=(OF_NO_UID,)))


def test_nothing_in_a_file_refers_to_a_uid_that_we_made_up(
    store: DirectoryStore, out: Path
) -> None:
    made(store, Change(None, WITHOUT_UID))
    content = files(out)["shop/web.service.yaml"]
    metadata = yaml.safe_load(content)["metadata"]
    assert metadata.keys() == {"name", "namespace", "labels", "annotations"}
    assert metadata["annotations"] == {HELD_FOR: "web"}
    assert content.splitlines()[1].startswith(
        "# No owner reference: VirtualMachineService shop/web"
    )


def test_the_mark_of_a_file_is_a_reference_to_all_others(out: Path) -> None:
    """To the loop, to the cache after a restart, and in a file whose comments an editor took."""
    told: list[tuple[str, Kind, Child | None]] = []
    writer = DirectoryStore(out, on_write=lambda *write: told.append(write))
    held = made(writer, Change(None, WITHOUT_UID))
    assert held is not None
    assert held.meta.owner_references == (OF_NO_UID,)
    assert held.meta.annotations == {}
    path = out / "shop" / "web.service.yaml"
    found = parse(Kind.SERVICE, yaml.safe_load(path.read_text()))
    assert found == told[0][2]
    reader = DirectoryStore(out)
    assert reader.observation(Apply(found)) == Apply(held)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text())))
    made(reader, Change(held, None))
    assert files(out) == {}


@pytest.mark.parametrize(
    ("metadata", "owners"),
    [
        pytest.param({"owner_references": (OF_NO_UID,)}, (), id="as earlier releases wrote it"),
        pytest.param({"annotations": {HELD_FOR: "db"}}, (), id="for another name"),
        pytest.param(
            {"annotations": {HELD_FOR: "web"}, "owner_references": (DEPLOYMENT,)},
            (DEPLOYMENT, OF_NO_UID),
            id="beside an owner",
        ),
    ],
)
def test_what_a_file_refers_to(
    metadata: dict[str, Any], owners: tuple[OwnerReference, ...], store: DirectoryStore
) -> None:
    found = replace(SERVICE, meta=replace(META, **{"owner_references": (), **metadata}))
    observed = store.observation(Apply(found))
    assert isinstance(observed, Apply)
    assert isinstance(observed.object, StoredService)
    assert observed.object.meta.owner_references == owners


def test_a_file_that_is_not_ours_is_not_removed(store: DirectoryStore, out: Path) -> None:
    path = out / "shop" / "web.endpoints.yaml"
    path.parent.mkdir()
    path.write_text("mine")
    with pytest.raises(ChangeError, match="is not ours"):
        made(store, Change(ENDPOINTS, None))
    assert path.read_text() == "mine"


@pytest.mark.parametrize("content", ["", "a: [", "just text"])
def test_a_file_of_ours_stays_ours_when_nothing_in_it_tells_so(content: str, out: Path) -> None:
    """Edited beyond recognition, by somebody who did not put a file of his own there."""
    writer = DirectoryStore(out)
    held = made(writer, Change(None, SERVICE))
    assert held is not None
    reader = DirectoryStore(out)
    reader.observation(Apply(held))
    for store in (writer, reader):
        path = out / "shop" / "web.service.yaml"
        path.write_text(content)
        store.observation(Delete(Kind.SERVICE, WEB))
        made(store, Change(None, SERVICE))
        assert path.read_text().endswith(text(SERVICE))


def test_what_is_put_where_a_file_of_ours_was_is_not_ours(store: DirectoryStore, out: Path) -> None:
    made(store, Change(None, SERVICE))
    path = out / "shop" / "web.service.yaml"
    path.unlink()
    store.observation(Delete(Kind.SERVICE, WEB))
    path.write_text("just text")
    with pytest.raises(ChangeError):
        made(store, Change(None, SERVICE))


def test_what_parses_and_nobody_owns_is_not_ours_although_it_was(
    store: DirectoryStore, out: Path
) -> None:
    made(store, Change(None, SERVICE))
    path = out / "shop" / "web.service.yaml"
    path.write_text(text(OWNERLESS))
    with pytest.raises(ChangeError):
        made(store, Change(OWNERLESS, SERVICE))


# -- What the directory's source tells --


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        pytest.param(
            Malformed(Kind.SERVICE, WEB, Problem("spec", "is wrong")),
            Delete(Kind.SERVICE, WEB),
            id="an object that cannot be read is not held",
        ),
        pytest.param(Apply(SERVICE), Apply(SERVICE), id="ours"),
        pytest.param(Apply(OTHERS), Apply(OTHERS), id="another's"),
        pytest.param(
            Delete(Kind.ENDPOINTS, WEB), Delete(Kind.ENDPOINTS, WEB), id="one that is gone"
        ),
        pytest.param(InitDone(Kind.SERVICE), InitDone(Kind.SERVICE), id="the end of a list"),
    ],
)
def test_observations(told: Event, meant: Event, store: DirectoryStore) -> None:
    assert store.observation(told) == meant


def test_an_edit_of_the_cluster_address_is_not_held_as_no_api_server_allows_it(
    store: DirectoryStore,
) -> None:
    pinned = replace(SERVICE, cluster_ip="10.96.0.1")
    moved = Apply(replace(SERVICE, cluster_ip="10.96.0.2"))
    assert store.observation(moved) == moved
    store = DirectoryStore(store._directory / "another")
    assert made(store, Change(None, pinned)) is not None
    assert store.observation(Apply(pinned)) == Apply(pinned)
    assert store.observation(moved) == Delete(Kind.SERVICE, WEB)


def test_whoever_wants_to_is_told_of_each_write(out: Path) -> None:
    told: list[tuple[str, Kind, Child | None]] = []
    store = DirectoryStore(out, on_write=lambda *write: told.append(write))
    held = made(store, Change(None, SERVICE))
    made(store, Change(held, None))
    assert told == [
        ("shop/web.service.yaml", Kind.SERVICE, held),
        ("shop/web.service.yaml", Kind.SERVICE, None),
    ]
    (out / "shop").write_text("in the way")
    with pytest.raises(ChangeError):
        made(store, Change(None, SERVICE))
    assert len(told) == 2


# -- What others put there --


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A directory that nobody should be led to, with files as ours are."""
    path = tmp_path / "elsewhere"
    path.mkdir()
    for name in ("web.service.yaml", "web.endpoints.yaml"):
        (path / name).write_text("# Held by vmsvc-grpc, they say\n")
    return path


def put(sort: str, path: Path, elsewhere: Path) -> None:
    """Put something of a sort at a path."""
    match sort:
        case "a symbolic link":
            path.symlink_to(elsewhere / "web.service.yaml")
        case "a FIFO":
            os.mkfifo(path)
        case "a socket":
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(str(path))
        case "a directory":
            path.mkdir()
        case "a device":
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero: it never ends.


SORTS = ["a symbolic link", "a FIFO", "a socket", "a directory"]
if os.geteuid() == 0:
    SORTS.append("a device")  # Only root can make one.


@pytest.mark.parametrize("sort", SORTS)
def test_what_is_no_file_is_left_in_our_place_and_reported(
    sort: str, store: DirectoryStore, out: Path, elsewhere: Path
) -> None:
    path = out / "shop" / "web.service.yaml"
    path.parent.mkdir()
    put(sort, path, elsewhere)
    before = path.lstat()
    for change in (Change(None, SERVICE), Change(SERVICE, SERVICE), Change(SERVICE, None)):
        with pytest.raises(ChangeError) as error:
            made(store, change)
        assert error.value.failure.reason == "ServiceNotOurs"
        assert f"{path} is not ours, as it is {sort}, and stays" in error.value.failure.message
    made(store, Change(None, ENDPOINTS))
    assert path.lstat().st_ino == before.st_ino
    assert elsewhere.joinpath("web.service.yaml").read_text() == "# Held by vmsvc-grpc, they say\n"
    assert (out / "shop" / "web.endpoints.yaml").read_text().endswith(text(ENDPOINTS))


@pytest.mark.parametrize("sort", SORTS)
def test_what_is_no_file_is_left_in_the_place_of_an_unfinished_one(
    sort: str, store: DirectoryStore, out: Path, elsewhere: Path
) -> None:
    path = out / "shop" / ".web.service.yaml.tmp"
    path.parent.mkdir()
    put(sort, path, elsewhere)
    with pytest.raises(ChangeError) as error:
        made(store, Change(None, SERVICE))
    assert error.value.failure.reason == "FileNotWritten"
    assert error.value.failure.message.endswith(
        f"{path.name} is {sort}, and in the way; move it away"
    )
    assert elsewhere.joinpath("web.service.yaml").read_text() == "# Held by vmsvc-grpc, they say\n"


@pytest.mark.parametrize("dangling", [False, True], ids=["to a directory", "to nothing"])
def test_a_link_in_the_place_of_a_namespace_is_not_followed(
    dangling: bool, store: DirectoryStore, out: Path, elsewhere: Path
) -> None:
    (out / "shop").symlink_to(elsewhere / "nothing" if dangling else elsewhere)
    for change in (Change(None, SERVICE), Change(SERVICE, None)):
        with pytest.raises(ChangeError) as error:
            made(store, change)
        assert error.value.failure.message.endswith("shop is a symbolic link, not a directory")
    assert (out / "shop").is_symlink()
    assert sorted(path.name for path in elsewhere.iterdir()) == [
        "web.endpoints.yaml",
        "web.service.yaml",
    ]


def test_a_link_in_the_place_of_the_trial_at_the_start_is_not_written_to(
    out: Path, elsewhere: Path
) -> None:
    out.mkdir()
    (out / ".vmsvc-grpc.tmp").symlink_to(elsewhere / "web.service.yaml")
    with pytest.raises(ChangeError, match=r"\.vmsvc-grpc\.tmp is a symbolic link, and in the way"):
        DirectoryStore(out)
    assert elsewhere.joinpath("web.service.yaml").read_text() == "# Held by vmsvc-grpc, they say\n"


def test_a_large_file_without_our_line_is_not_ours(store: DirectoryStore, out: Path) -> None:
    path = out / "shop" / "web.service.yaml"
    path.parent.mkdir()
    path.write_text(text(SERVICE) + "# padding\n" * 500_000)
    with pytest.raises(ChangeError) as error:
        made(store, Change(None, SERVICE))
    assert error.value.failure.reason == "ServiceNotOurs"


async def test_a_file_that_another_replaces_while_it_is_looked_at_is_looked_at_again(
    store: DirectoryStore, out: Path
) -> None:
    path = out / "shop" / "web.service.yaml"
    path.parent.mkdir()
    owned = text(SERVICE) + "# padding\n" + "status: {}\n" + "x: [" + "1, " * 2000 + "1]\n"
    path.write_text(owned)
    writing = asyncio.create_task(store.apply(Change(SERVICE, SERVICE)))
    await asyncio.sleep(0)
    path.with_name("other").write_text("mine")
    path.with_name("other").replace(path)
    with pytest.raises(Conflict):
        await writing
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    "metadata",
    [{"labels": {"a b": "c"}}, {"annotations": {"/": ""}}, {"finalizers": ("a b",)}],
    ids=["label", "annotation", "finalizer"],
)
def test_an_edit_that_no_api_server_takes_is_not_held(
    metadata: dict[str, Any], store: DirectoryStore
) -> None:
    edited = replace(SERVICE, meta=replace(META, **metadata))
    assert store.observation(Apply(edited)) == Delete(Kind.SERVICE, WEB)


# -- Trouble with the disk --


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A file where a directory should be: nobody can write below it, not even root."""
    path = tmp_path / "file"
    path.write_text("")
    return path


def test_an_output_that_cannot_be_a_directory_is_one_clear_error(full: Path) -> None:
    for path in (full, full / "below"):
        with pytest.raises(ChangeError) as error:
            DirectoryStore(path)
        assert error.value.failure.reason == "DirectoryNotWritable"
        assert str(error.value).startswith(f"{path} cannot be written to: ")


def test_a_file_that_cannot_be_written_is_one_clear_error(store: DirectoryStore, out: Path) -> None:
    (out / "shop").write_text("in the way")
    with pytest.raises(ChangeError) as error:
        made(store, Change(None, SERVICE))
    assert error.value.failure.reason == "FileNotWritten"
    path = out / "shop" / "web.service.yaml"
    assert str(error.value).startswith(f"cannot create Service shop/web: {path}: ")


def test_one_service_in_the_way_of_another_namespace_is_none(
    store: DirectoryStore, out: Path
) -> None:
    ledger = Key("bank", "ledger")
    made(store, Change(None, SERVICE))
    made(store, Change(None, replace(SERVICE, meta=replace(META, key=ledger))))
    assert list(files(out)) == ["bank/ledger.service.yaml", "shop/web.service.yaml"]
