"""Whatever is done to a directory: what was told of it adds up to reading it anew."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.told_by_files import INPUT, replace, told_by, vm
from vmsvc_grpc.model.events import Apply, Delete
from vmsvc_grpc.model.objects import VirtualMachine
from vmsvc_grpc.source.file_bounds import FilesSourceBounds
from vmsvc_grpc.source.manifests import read_objects

SETTLE_S = 0.05
# The same pauses for files and directories, and none that is longer.
BOUNDS = FilesSourceBounds(rescan_s=3600.0, rewrite_s=0.5, rewrite_max_s=0.5)
# Alphabetical order is path order; "d" and "e" are directories.
PATHS = ["a.yaml", "b.yml", "c.json", "d/a.yaml", "d/b.yaml", "e/a.yaml", "e/b.yaml"]
STAYS = "stays.yaml"
LAST = "z-last.yaml"

objects = st.dictionaries(st.sampled_from("uvwxyz"), st.integers(1, 3), max_size=4)
paths = st.sampled_from(PATHS)
operations = st.one_of(
    st.tuples(st.just("write"), paths, objects),
    st.tuples(st.just("replace"), paths, objects),
    st.tuples(st.just("break"), paths),
    st.tuples(st.just("remove"), paths),
    st.tuples(st.just("rename"), paths, paths),
    st.tuples(st.just("rename"), st.sampled_from(["d", "e"]), st.sampled_from(["d", "e", ".f"])),
    st.tuples(st.just("rename"), st.just(".f"), st.sampled_from(["d", "e"])),
    st.tuples(st.just("link"), paths, paths),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.03, 0.1])),
)


def manifest(addresses: dict[str, int]) -> str:
    return "# Objects.\n" + "".join(
        vm(name, f"10.0.0.{number}") for name, number in addresses.items()
    )


def perform(root: Path, operation: tuple[object, ...]) -> None:
    match operation:
        case ("write", str(path), dict(addresses)):
            (root / path).parent.mkdir(exist_ok=True)
            (root / path).write_text(manifest(addresses))
        case ("replace", str(path), dict(addresses)):
            (root / path).parent.mkdir(exist_ok=True)
            replace(root / path, manifest(addresses))
        case ("break", str(path)):
            (root / path).parent.mkdir(exist_ok=True)
            (root / path).write_text("{")
        case ("remove", str(path)):
            (root / path).unlink()
        case ("rename", str(old), str(new)):
            if (root / new).is_dir():
                shutil.rmtree(root / new)
            (root / old).rename(root / new)
        case ("link", str(path), str(target)):
            (root / ".link").unlink(missing_ok=True)
            (root / ".link").symlink_to(root / target)
            (root / ".link").rename(root / path)


def mend(root: Path) -> None:
    for path in PATHS:
        if (root / path).is_symlink():
            (root / path).unlink()
    for path in PATHS:
        # What held objects and holds none now keeps them.
        if (root / path).is_file() and (root / path).read_text() in ("{", manifest({})):
            (root / path).unlink()
    for name in "de":
        if (root / name).is_dir() and not list((root / name).iterdir()):
            (root / name).rmdir()


def read_anew(root: Path) -> dict[str, list[str]]:
    """What each file says of each VM that it defines, in path order."""
    addresses: dict[str, list[str]] = {}
    for path in [*PATHS, STAYS]:
        if (root / path).is_file():
            for entry in read_objects((root / path).read_bytes(), INPUT).entries.values():
                assert isinstance(entry.event, Apply)
                assert isinstance(entry.event.object, VirtualMachine)
                address = entry.event.object.addresses[0].text
                addresses.setdefault(entry.event.object.key.name, []).append(address)
    return addresses


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
@given(before=st.lists(operations, max_size=4), during=st.lists(operations, max_size=15))
def test_what_was_told_adds_up(
    before: list[tuple[object, ...]], during: list[tuple[object, ...]]
) -> None:
    asyncio.run(adds_up(before, during))


async def adds_up(before: list[tuple[object, ...]], during: list[tuple[object, ...]]) -> None:
    with TemporaryDirectory() as directory:
        root = Path(directory)
        (root / STAYS).write_text(vm("stays"))
        for operation in before:
            tried(perform, root, operation)
        async with told_by(root, settle_s=SETTLE_S, bounds=BOUNDS) as told:
            for operation in during:
                if operation[0] == "wait":
                    await asyncio.sleep(float(str(operation[1])))
                else:
                    tried(perform, root, operation)
            mend(root)
            said = read_anew(root)
            await told.until(lambda: told.source.all_read and adds(told.vms, said))
            # Nothing that comes late may change it: what goes missing last is the last to go.
            (root / LAST).write_text(vm("rewritten") + vm("last"))
            await told.until(lambda: "last" in told.vms)
            (root / LAST).write_text(vm("rewritten"))
            await told.until(lambda: "last" not in told.vms)
            said["rewritten"] = ["10.0.0.1"]
            assert adds(told.vms, said)
            assert not any(isinstance(e, Delete) and e.key.name == "stays" for e in told.events)
        async with told_by(root) as told:
            assert told.vms == {name: first for name, (first, *_) in said.items()}


def adds(vms: dict[str, str], said: dict[str, list[str]]) -> bool:
    """Whether each VM is known, and as a file says that defines it: which one had it first?"""
    return vms.keys() == said.keys() and all(vms[name] in said[name] for name in said)


def tried(
    action: Callable[[Path, tuple[object, ...]], None], root: Path, operation: tuple[object, ...]
) -> None:
    """Do it if it can be done: most files do not exist at first."""
    with suppress(OSError):
        action(root, operation)
