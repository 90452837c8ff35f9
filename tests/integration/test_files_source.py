"""The file source on real files: what it tells as they are edited, moved, and broken."""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import shutil
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from tests.integration.told_by_files import INPUT, OUTPUT, SETTLE_S, Told, replace, told_by, vm
from vmsvc_grpc.model.events import Event
from vmsvc_grpc.model.objects import Key, Kind, StoredEndpoints
from vmsvc_grpc.model.parse import parse
from vmsvc_grpc.source import SourceError
from vmsvc_grpc.source.file_bounds import FilesSourceBounds
from vmsvc_grpc.source.files import FilesSource


def service(name: str, port: int = 80) -> str:
    return (
        "---\n"
        "apiVersion: vmoperator.vmware.com/v1alpha6\n"
        "kind: VirtualMachineService\n"
        f"metadata: {{name: {name}, namespace: shop}}\n"
        f"spec: {{type: ClusterIP, ports: [{{name: http, port: {port}}}]}}\n"
    )


def endpoints(name: str, ip: str) -> str:
    return (
        "apiVersion: v1\n"
        "kind: Endpoints\n"
        f"metadata: {{name: {name}, namespace: shop}}\n"
        f"subsets: [{{addresses: [{{ip: {ip}}}]}}]\n"
    )


class TestList:
    async def test_lists_each_kind_once(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(vm("a") + service("web"))
        (tmp_path / "below" / "deep").mkdir(parents=True)
        (tmp_path / "below" / "deep" / "b.yml").write_text(vm("b", "10.0.0.2"))
        (tmp_path / "c.json").write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "List",
                    "items": [
                        {
                            "apiVersion": "vmoperator.vmware.com/v1alpha1",
                            "kind": "VirtualMachine",
                            "metadata": {"name": "c", "namespace": "shop"},
                            "status": {"vmIp": "10.0.0.3"},
                        }
                    ],
                }
            )
        )
        async with told_by(tmp_path) as told:
            assert told.vms == {"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3"}
            assert told.kinds() == ["Init"] * 2 + ["Apply"] * 4 + ["InitDone"] * 2
            assert (Kind.VIRTUAL_MACHINE_SERVICE, Key("shop", "web")) in told.objects
            assert told.source.all_read
            assert told.source.files_read == 3

    async def test_an_empty_directory_is_a_complete_list(self, tmp_path: Path) -> None:
        async with told_by(tmp_path) as told:
            assert told.kinds() == ["Init", "Init", "InitDone", "InitDone"]

    async def test_passes_over_what_is_no_manifest(self, tmp_path: Path) -> None:
        (tmp_path / ".git").mkdir()
        for name in (".git/a.yaml", ".hidden.yaml", "a.yaml~", "README.md", "#a.yaml#"):
            (tmp_path / name).write_text(vm("hidden"))
        async with told_by(tmp_path) as told:
            assert told.objects == {}
            assert told.standing == []

    async def test_what_is_named_like_a_file_and_is_none_is_left_out(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.yaml")
        (tmp_path / "nowhere.yaml").symlink_to("gone.yaml")
        (tmp_path / "device.yaml").symlink_to("/dev/zero")
        (tmp_path / "self.yaml").symlink_to("self.yaml")
        (tmp_path / "a.yaml").write_text(vm("a"))
        async with told_by(tmp_path) as told:
            assert told.standing == [
                "device.yaml: this is a device, not a file; it is left out",
                "nowhere.yaml: this link leads to nothing; it is left out",
                "pipe.yaml: this is a FIFO, not a file; it is left out",
                "self.yaml: this link leads to itself, or through too many links; it is left out",
            ]
            assert told.source.all_read
            for name in ("device", "nowhere", "pipe", "self"):
                replace(tmp_path / f"{name}.yaml", vm(name))
            await told.until(lambda: len(told.vms) == 5)
            await told.until(lambda: told.standing == [])
            (tmp_path / "a.yaml").unlink()
            os.mkfifo(tmp_path / "a.yaml")
            await told.until(lambda: "a" not in told.vms)
            await told.until(lambda: len(told.standing) == 1)

    async def test_a_file_that_was_no_file_for_a_moment_has_its_objects(
        self, tmp_path: Path
    ) -> None:
        """It was known by its digest, while what it had said had been let go of."""
        (tmp_path / "a.yaml").write_text(vm("a"))
        (tmp_path / "last.yaml").write_text(vm("last"))
        async with told_by(tmp_path, settle_s=1.0) as told:
            (tmp_path / "a.yaml").rename(tmp_path / "beside")
            os.mkfifo(tmp_path / "a.yaml")
            replace(tmp_path / "b.yaml", vm("b"))
            await told.until(lambda: "b" in told.vms)
            (tmp_path / "beside").rename(tmp_path / "a.yaml")
            (tmp_path / "last.yaml").unlink()
            await told.until_vms({"a": "10.0.0.1", "b": "10.0.0.1"})

    async def test_a_file_that_is_written_anew_has_its_objects_however_late_it_settles(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "a.yaml").write_text(vm("a"))
        bounds = FilesSourceBounds(rescan_s=3600.0, rewrite_s=0.1, rewrite_max_s=0.1)
        async with told_by(tmp_path, settle_s=1.0, bounds=bounds) as told:
            listed = len(told.events)
            (tmp_path / "a.yaml").unlink()
            replace(tmp_path / "b.yaml", vm("b"))
            await told.until(lambda: "b" in told.vms)
            (tmp_path / "a.yaml").write_text(vm("a", "10.0.0.2"))
            await told.until_vms({"a": "10.0.0.2", "b": "10.0.0.1"})
            assert told.kinds(listed) == ["Apply"] * 2

    async def test_loops_of_links_end(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(vm("a"))
        (tmp_path / "below").mkdir()
        (tmp_path / "below" / "up").symlink_to(tmp_path, target_is_directory=True)
        (tmp_path / "self.yaml").symlink_to("self.yaml")
        async with told_by(tmp_path) as told:
            assert told.vms == {"a": "10.0.0.1"}
            assert told.standing == [
                "self.yaml: this link leads to itself, or through too many links; it is left out"
            ]

    async def test_2000_files(self, tmp_path: Path) -> None:
        for index in range(2000):
            namespace = tmp_path / f"{index % 20:02}"
            namespace.mkdir(exist_ok=True)
            (namespace / f"{index}.yaml").write_text(vm(f"vm-{index}", f"10.0.{index % 250}.1"))
        async with told_by(tmp_path) as told:
            assert len(told.vms) == 2000
            assert told.kinds().count("Apply") == 2000
            replace(tmp_path / "07" / "7.yaml", vm("vm-7", "10.9.9.9"))
            await told.until(lambda: told.vms["vm-7"] == "10.9.9.9")

    async def test_many_files_are_taken_in_slices_whatever_happens_to_them(
        self, tmp_path: Path
    ) -> None:
        """10,000 files that were touched kept the event loop for 0.3 s."""
        many, moved = tmp_path / "many", tmp_path / "moved"
        addresses = {f"vm-{index}": "10.0.0.1" for index in range(300)}
        bounds = FilesSourceBounds(rescan_s=3600.0, slice_s=0.0)

        def write(address: str) -> None:
            for name in addresses:
                (many / f"{name}.yaml").write_text(vm(name, address))

        async with told_by(tmp_path, bounds=bounds) as told:
            most = 0

            async def look() -> None:
                nonlocal most
                work = told.source.files_read + len(told.events)
                while True:
                    await asyncio.sleep(0)
                    before, work = work, told.source.files_read + len(told.events)
                    most = max(most, work - before)

            looking = asyncio.create_task(look())
            many.mkdir()
            write("10.0.0.1")
            await told.until_vms(addresses)
            for path in many.iterdir():
                path.touch()
            await told.until_read(600)
            assert len(told.events) == len(addresses) + 4, "touching says nothing"
            write("10.0.0.2")
            await told.until_vms(dict.fromkeys(addresses, "10.0.0.2"))
            many.rename(moved)
            await told.until_in("moved/vm-299.yaml", "vm-299")
            shutil.rmtree(moved)
            await told.until_vms({})
            looking.cancel()
        assert most <= 3, "a file, and what it says, or a deletion or two"

    @pytest.mark.parametrize("what", ["nothing", "file"])
    async def test_what_is_no_directory_is_an_error(self, tmp_path: Path, what: str) -> None:
        if what == "file":
            (tmp_path / what).write_text("")
        with pytest.raises(SourceError, match=f"{what} cannot be listed: "):
            async with told_by(tmp_path / what):
                pass

    async def test_a_big_file_does_not_hold_up_others(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text("".join(vm(f"vm-{index}") for index in range(1000)))
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count_turns())
        # A slice without length: others have their turn after each step.
        async with told_by(tmp_path, bounds=FilesSourceBounds(slice_s=0.0)) as told:
            assert len(told.vms) == 1000
            assert turns > 2000, "at least one to read each object, and one to tell it"
        counting.cancel()
        await asyncio.gather(counting, return_exceptions=True)


class TestChanges:
    async def test_edit_add_and_delete(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(vm("a") + vm("b"))
        async with told_by(tmp_path) as told:
            listed = len(told.events)
            (tmp_path / "a.yaml").write_text(vm("a", "10.0.0.9") + vm("b"))
            await told.until(lambda: told.vms["a"] == "10.0.0.9")
            (tmp_path / "c.yaml").write_text(vm("c"))
            await told.until(lambda: "c" in told.vms)
            (tmp_path / "a.yaml").unlink()
            await told.until_vms({"c": "10.0.0.1"})
            assert told.kinds(listed) == ["Apply", "Apply", "Delete", "Delete"], (
                "what did not change was not told"
            )

    @pytest.mark.parametrize(
        "rescan_s",
        [
            pytest.param(3600.0, id="as the watch tells it"),
            pytest.param(0.001, id="although it is seen before the watch tells it"),
        ],
    )
    async def test_a_file_replaced_by_rename_is_taken_at_once(
        self, tmp_path: Path, rescan_s: float
    ) -> None:
        (tmp_path / "a.yaml").write_text(vm("a"))
        async with told_by(
            tmp_path, settle_s=3600.0, bounds=FilesSourceBounds(rescan_s=rescan_s)
        ) as told:
            for address in ("10.0.0.2", "10.0.0.3", "10.0.0.4"):
                replace(tmp_path / "a.yaml", vm("a", address))
                await told.until_vms({"a": address})

    async def test_a_file_written_in_pieces_is_taken_whole(self, tmp_path: Path) -> None:
        """Each of the pieces parses, but only the last is what was meant."""
        names = [f"vm-{index}" for index in range(8)]
        path = tmp_path / "a.yaml"
        path.write_text("".join(vm(name) for name in names))
        async with told_by(tmp_path, settle_s=1.0) as told:
            listed = len(told.events)
            with path.open("w") as file:
                for name in names:
                    file.write(vm(name, "10.0.0.2"))
                    file.flush()
                    await asyncio.sleep(0.1)
            await told.until(lambda: told.vms == dict.fromkeys(names, "10.0.0.2"))
            assert told.kinds(listed) == ["Apply"] * len(names)
            assert told.source.files_read == 2
            assert told.reports == []

    async def test_a_file_that_is_open_is_taken_once_its_writer_is_done(
        self, tmp_path: Path
    ) -> None:
        """However long he pauses: each of the pieces parses, and the first holds nothing."""
        names = ["a", "b", "c"]
        path = tmp_path / "all.yaml"
        path.write_text("".join(map(vm, names)))
        async with told_by(tmp_path) as told:
            listed = len(told.events)
            with path.open("w") as file:
                for name in names:
                    await asyncio.sleep(3 * SETTLE_S)
                    file.write(vm(name, "10.0.0.2"))
                    file.flush()
                await asyncio.sleep(3 * SETTLE_S)
                assert told.events[listed:] == []
            await told.until_vms(dict.fromkeys(names, "10.0.0.2"))
            assert told.kinds(listed) == ["Apply"] * 3
            assert told.reports == []

    async def test_a_file_that_is_opened_again_for_each_piece_loses_nothing(
        self, tmp_path: Path
    ) -> None:
        """However long each piece takes, up to a bound: all but the first were deleted."""
        names = ["a", "b", "c"]
        path = tmp_path / "all.yaml"
        path.write_text("".join(map(vm, names)))
        bounds = FilesSourceBounds(rescan_s=3600.0, rewrite_s=3600.0)
        async with told_by(tmp_path, bounds=bounds) as told:
            listed = len(told.events)
            path.write_text("")
            expected = dict.fromkeys(names, "10.0.0.1")
            for name in names:
                with path.open("a") as file:
                    file.write(vm(name, "10.0.0.2"))
                expected[name] = "10.0.0.2"
                await told.until_vms(expected)
            assert told.kinds(listed) == ["Apply"] * 3
            path.write_text(vm("a", "10.0.0.3"))
            await told.until(lambda: told.vms["a"] == "10.0.0.3")
            replace(path, vm("a", "10.0.0.4"))
            await told.until_vms({"a": "10.0.0.4"})

    async def test_what_a_file_is_left_without_goes_unless_it_cannot_be_read(
        self, tmp_path: Path
    ) -> None:
        """What cannot be parsed now may be about to define again what it let go of."""
        path, other = tmp_path / "a.yaml", tmp_path / "other.yaml"
        path.write_text(vm("a") + vm("b"))
        other.write_text(vm("c") + vm("d"))
        bounds = FilesSourceBounds(rescan_s=3600.0, rewrite_s=1.0)
        async with told_by(tmp_path, settle_s=0.05, bounds=bounds) as told:
            path.write_text(vm("a", "10.0.0.2"))
            await told.until(lambda: told.vms["a"] == "10.0.0.2")
            path.write_text("[")
            await told.until(lambda: told.standing != [])
            other.write_text(vm("c"))
            await told.until_vms({"a": "10.0.0.2", "b": "10.0.0.1", "c": "10.0.0.1"})
            path.write_text(vm("a", "10.0.0.3"))
            await told.until_vms({"a": "10.0.0.3", "c": "10.0.0.1"})

    async def test_what_a_file_lacks_goes_in_the_end_even_if_the_file_never_rests(
        self, tmp_path: Path
    ) -> None:
        """One to which a line was added ten times a second kept it for ever."""
        path = tmp_path / "a.yaml"
        path.write_text(vm("a") + vm("b"))
        bounds = FilesSourceBounds(
            rescan_s=3600.0, open_settle_s=3600.0, rewrite_s=3600.0, rewrite_max_s=1.0
        )
        async with told_by(tmp_path, settle_s=0.05, bounds=bounds) as told:
            path.write_text(vm("a", "10.0.0.2"))
            await told.until(lambda: told.vms["a"] == "10.0.0.2")
            with path.open("a") as file:
                file.write(vm("c"))
                file.flush()
                await told.until_vms({"a": "10.0.0.2"})

    @pytest.mark.parametrize("then", [None, "[", ""], ids=["nothing", "broken", "emptied"])
    async def test_what_a_file_lacks_goes_in_the_end_whatever_becomes_of_the_file(
        self, then: str | None, tmp_path: Path
    ) -> None:
        """One that was written every second kept for ever what it did not define any more."""
        path = tmp_path / "a.yaml"
        path.write_text(vm("a") + vm("b"))
        bounds = FilesSourceBounds(rescan_s=3600.0, rewrite_s=3600.0, rewrite_max_s=1.0)
        async with told_by(tmp_path, settle_s=0.05, bounds=bounds) as told:
            path.write_text(vm("a", "10.0.0.2"))
            await told.until(lambda: told.vms["a"] == "10.0.0.2")
            if then is not None:
                path.write_text(then)
            await told.until_vms({"a": "10.0.0.2"})

    @pytest.mark.parametrize("then", ["replaced", "the same, replaced", "removed", "a link"])
    async def test_what_a_file_lacks_goes_at_once_when_the_file_is_written_to_its_end(
        self, then: str, tmp_path: Path
    ) -> None:
        """It stayed until the end of the pause that it had been given as half a file."""
        path = tmp_path / "a.yaml"
        path.write_text(vm("a") + vm("b"))
        bounds = FilesSourceBounds(rescan_s=3600.0, rewrite_s=3600.0, rewrite_max_s=3600.0)
        async with told_by(tmp_path, bounds=bounds) as told:
            path.write_text(vm("a", "10.0.0.2"))
            await told.until(lambda: told.vms["a"] == "10.0.0.2")
            # Its lack has been seen by the time that another change is.
            (tmp_path / "b.yaml").write_text(vm("c"))
            await told.until(lambda: "c" in told.vms)
            expected = {"a": "10.0.0.2", "c": "10.0.0.1"}
            match then:
                case "replaced":
                    replace(path, vm("a", "10.0.0.3"))
                    expected["a"] = "10.0.0.3"
                case "the same, replaced":
                    replace(path, vm("a", "10.0.0.2"))
                case "removed":
                    path.unlink()
                    del expected["a"]
                case "a link":
                    path.unlink()
                    path.symlink_to("nowhere")
                    del expected["a"]
            await told.until_vms(expected)

    async def test_a_file_that_is_kept_open_is_taken_after_a_while(self, tmp_path: Path) -> None:
        bounds = FilesSourceBounds(rescan_s=3600.0, open_settle_s=0.3)
        async with told_by(tmp_path, settle_s=0.0, bounds=bounds) as told:
            with (tmp_path / "a.yaml").open("w") as file:
                for address in ("10.0.0.1", "10.0.0.2"):
                    file.seek(0)
                    file.write(vm("a", address))
                    file.flush()
                    await told.until_vms({"a": address})

    async def test_a_new_file_moved_into_place_is_taken_at_once(self, tmp_path: Path) -> None:
        async with told_by(tmp_path, settle_s=3600.0) as told:
            replace(tmp_path / "a.yaml", vm("a"))
            await told.until_vms({"a": "10.0.0.1"})

    async def test_a_new_file_written_in_pieces_is_taken_whole(self, tmp_path: Path) -> None:
        async with told_by(tmp_path, settle_s=1.0) as told:
            with (tmp_path / "new.yaml").open("w") as file:
                for piece in (vm("a"), vm("b"), vm("c")[:-30], vm("c")[-30:]):
                    await asyncio.sleep(0.1)
                    file.write(piece)
                    file.flush()
            await told.until(lambda: sorted(told.vms) == ["a", "b", "c"])
            assert told.source.files_read == 1
            assert told.reports == []

    async def test_renaming_a_file_tells_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(vm("a"))
        async with told_by(tmp_path) as told:
            listed = len(told.events)
            (tmp_path / "a.yaml").rename(tmp_path / "z.yaml")
            await told.until_read(2)
            (tmp_path / "end.yaml").write_text(vm("end"))
            await told.until(lambda: "end" in told.vms)
            assert told.kinds(listed) == ["Apply"]

    async def test_an_object_may_move_to_another_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(vm("a") + vm("moving"))
        (tmp_path / "b.yaml").write_text(vm("b"))
        async with told_by(tmp_path) as told:
            listed = len(told.events)
            (tmp_path / "a.yaml").write_text(vm("a"))
            (tmp_path / "b.yaml").write_text(vm("b") + vm("moving"))
            await told.until_read(4)
            (tmp_path / "end.yaml").write_text(vm("end"))
            await told.until(lambda: "end" in told.vms)
            assert told.kinds(listed) == ["Apply"]
            assert told.reports == []

    async def test_an_object_that_is_renamed_is_another(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(vm("old"))
        async with told_by(tmp_path) as told:
            listed = len(told.events)
            replace(tmp_path / "a.yaml", vm("new"))
            await told.until(lambda: list(told.vms) == ["new"])
            assert told.kinds(listed) == ["Apply", "Delete"]

    async def test_a_file_touched_or_made_anew_with_the_same_text_tells_nothing(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "a.yaml").write_text(vm("a"))
        async with told_by(tmp_path) as told:
            listed = len(told.events)
            (tmp_path / "a.yaml").touch()
            await told.until_read(2)
            (tmp_path / "a.yaml").unlink()
            (tmp_path / "a.yaml").write_text(vm("a"))
            await told.until_read(3)
            assert told.events[listed:] == []

    async def test_no_deletion_is_told_of_a_file_that_is_there_again(self, tmp_path: Path) -> None:
        """It is not read yet when the time of the deletion has come."""
        (tmp_path / "a.yaml").write_text(vm("a"))
        async with told_by(tmp_path, settle_s=1.0) as told:
            listed = len(told.events)
            (tmp_path / "a.yaml").unlink()
            await asyncio.sleep(0.25)
            (tmp_path / "a.yaml").write_text(vm("a"))
            await told.until_read(2)
            await asyncio.sleep(0.5)
            assert told.events[listed:] == []

    async def test_directories_come_go_and_move(self, tmp_path: Path) -> None:
        (tmp_path / "tree").mkdir()
        made = tmp_path / "made" / "deep"
        async with told_by(tmp_path / "tree") as told:
            made.mkdir(parents=True)
            (made / "a.yaml").write_text(vm("a"))
            (tmp_path / "made").rename(tmp_path / "tree" / "moved")
            await told.until(lambda: "a" in told.vms)
            (tmp_path / "tree" / "moved" / "deep" / "b.yaml").write_text(vm("b"))
            await told.until(lambda: "b" in told.vms)
            listed = len(told.events)
            (tmp_path / "tree" / "moved").rename(tmp_path / "tree" / "again")
            await told.until_read(4)
            (tmp_path / "tree" / "again" / "deep" / "c.yaml").write_text(vm("c"))
            await told.until(lambda: "c" in told.vms)
            assert told.kinds(listed) == ["Apply"]
            shutil.rmtree(tmp_path / "tree" / "again")
            await told.until(lambda: told.objects == {})

    @pytest.mark.parametrize("how", ["removed", "moved away", "another link"])
    async def test_nothing_goes_while_a_directory_is_built_anew(
        self, how: str, tmp_path: Path
    ) -> None:
        """However slowly: once its first file was there, all the others were taken for removed."""
        names = ["a", "b", "c", "d"]
        for folder in ("first", "second", "tree"):
            (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / "first" / f"{name}.yaml").write_text(vm(name))
        place = tmp_path / "tree" / "place"
        if how == "another link":
            place.symlink_to(tmp_path / "first")
        else:
            (tmp_path / "first").rename(place)
        bounds = FilesSourceBounds(rescan_s=3600.0, rewrite_s=3600.0, rewrite_max_s=3600.0)
        async with told_by(tmp_path / "tree", settle_s=0.05, bounds=bounds) as told:
            listed = len(told.events)
            match how:
                case "removed":
                    shutil.rmtree(place)
                    place.mkdir()
                case "moved away":
                    place.rename(tmp_path / "before")
                    place.mkdir()
                case "another link":
                    (tmp_path / "next").symlink_to(tmp_path / "second")
                    (tmp_path / "next").rename(place)
            expected = dict.fromkeys(names, "10.0.0.1")
            for name in ("b", "d", "a"):
                (place / f"{name}.yaml").write_text(vm(name, "10.0.0.2"))
                expected[name] = "10.0.0.2"
                await told.until_vms(expected)
            assert told.kinds(listed) == ["Apply"] * 3

    async def test_what_a_directory_lacks_goes_once_it_rests(self, tmp_path: Path) -> None:
        for name in ("gone", "other"):
            (tmp_path / name).mkdir()
            for file in ("a", "b"):
                (tmp_path / name / f"{file}.yaml").write_text(vm(f"{name}-{file}"))
        bounds = FilesSourceBounds(rescan_s=3600.0, rewrite_s=0.5)
        async with told_by(tmp_path, settle_s=0.05, bounds=bounds) as told:
            shutil.rmtree(tmp_path / "gone")
            shutil.rmtree(tmp_path / "other")
            (tmp_path / "other").mkdir()
            (tmp_path / "other" / "b.yaml").write_text(vm("other-b"))
            await told.until_vms({"other-b": "10.0.0.1"})

    async def test_names_that_are_no_text_do_no_harm(self, tmp_path: Path) -> None:
        (tmp_path / os.fsdecode(b"\xff.yaml")).write_text(vm("a"))
        async with told_by(tmp_path) as told:
            assert list(told.vms) == ["a"]
            (tmp_path / os.fsdecode(b"\xfe.yaml")).write_text("[")
            await told.until(lambda: any("\\xfe.yaml: line" in text for text in told.standing))
            (tmp_path / os.fsdecode(b"\xfd")).mkdir()
            (tmp_path / os.fsdecode(b"\xfd") / "c\n\x1b[31m.yaml").write_text(vm("c"))
            await told.until(lambda: "c" in told.vms)
            (tmp_path / "b.yaml").write_text(vm("b"))
            await told.until(lambda: "b" in told.vms)
            assert len(told.standing) == 1, "nothing else is wrong"

    async def test_a_file_elsewhere_that_a_link_leads_to(self, tmp_path: Path) -> None:
        (tmp_path / "tree").mkdir()
        (tmp_path / "elsewhere").write_text(vm("a"))
        async with told_by(tmp_path / "tree") as told:
            (tmp_path / "tree" / "a.yaml").symlink_to(tmp_path / "elsewhere")
            for number in range(1, 4):
                await told.until_vms({"a": f"10.0.0.{number}"})
                (tmp_path / "elsewhere").write_text(vm("a", f"10.0.0.{number + 1}"))
            await told.until_vms({"a": "10.0.0.4"})
            replace(tmp_path / "elsewhere", vm("a", "10.0.0.5"))
            await told.until_vms({"a": "10.0.0.5"})
            (tmp_path / "elsewhere").write_text(vm("a", "10.0.0.6"))
            await told.until_vms({"a": "10.0.0.6"})

    async def test_what_no_notice_tells_is_seen_later(self, tmp_path: Path) -> None:
        """Another file where a link leads through a link elsewhere."""
        for release in ("1", "2"):
            (tmp_path / release).mkdir()
            (tmp_path / release / "a.yaml").write_text(vm("a", f"10.0.0.{release}"))
        (tmp_path / "current").symlink_to("1")
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree" / "a.yaml").symlink_to(tmp_path / "current" / "a.yaml")
        async with told_by(tmp_path / "tree", bounds=FilesSourceBounds(rescan_s=0.3)) as told:
            (tmp_path / "next").symlink_to("2")
            (tmp_path / "next").rename(tmp_path / "current")
            await told.until_vms({"a": "10.0.0.2"})


def mount(directory: Path, version: int, files: dict[str, str]) -> None:
    """Bring a mounted ConfigMap to a version as the kubelet does, from the one before it.

    The files go into a new directory, and `..data` is renamed onto it.
    """
    fresh = directory / f"..2026_01_01_00_00_00.{version}"
    fresh.mkdir()
    for name, text in files.items():
        (fresh / name).write_text(text)
    before = (directory / "..data").readlink() if version else None
    (directory / "..data_tmp").symlink_to(fresh.name)
    (directory / "..data_tmp").rename(directory / "..data")
    for name in files:
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    for path in directory.glob("*.yaml"):
        if path.name not in files:
            path.unlink()
    if before:
        shutil.rmtree(directory / before)


class TestLargeFiles:
    """One that takes seconds to read costs the others nothing."""

    # Of all shapes, many small values in one document of YAML take the longest for their size:
    # half a minute for 16 MiB.
    SLOW = "[" + "1," * 4_000_000 + "]"

    async def test_others_are_taken_while_one_is_read(self, tmp_path: Path) -> None:
        """A file of 16 MiB kept every other file unread for 70 s."""
        (tmp_path / "a.yaml").write_text(vm("a"))
        async with told_by(tmp_path) as told:
            replace(tmp_path / "large.json", self.SLOW)
            await told.until_read(2)
            replace(tmp_path / "a.yaml", vm("a", "10.0.0.9"))
            replace(tmp_path / "b.yaml", vm("b", "10.0.0.2"))
            await told.until_vms({"a": "10.0.0.9", "b": "10.0.0.2"})
            assert told.standing == [], "the large one has not been read to its end yet"

    async def test_one_that_is_replaced_is_read_no_further(self, tmp_path: Path) -> None:
        async with told_by(tmp_path) as told:
            replace(tmp_path / "large.json", self.SLOW)
            await told.until_read(1)
            replace(tmp_path / "large.json", vm("a"))
            await told.until_vms({"a": "10.0.0.1"})
            assert told.standing == []

    async def test_one_that_is_removed_is_read_no_further(self, tmp_path: Path) -> None:
        async with told_by(tmp_path) as told:
            replace(tmp_path / "large.json", self.SLOW)
            await told.until_read(1)
            (tmp_path / "large.json").unlink()
            replace(tmp_path / "next.yaml", vm("a") + "#" * 200_000)
            await told.until_vms({"a": "10.0.0.1"})

    async def test_one_that_moves_takes_its_objects_along(self, tmp_path: Path) -> None:
        """However long it takes to read: they were deleted, and made again."""
        filling = f"---\nx: [{'1,' * 300_000}]\n"
        async with told_by(tmp_path, settle_s=0.05) as told:
            replace(tmp_path / "a.yaml", vm("a") + filling)
            await told.until_vms({"a": "10.0.0.1"})
            before = len(told.events)
            (tmp_path / "a.yaml").rename(tmp_path / "b.yaml")
            await told.until_in("b.yaml", "a")
            shutil.copy(tmp_path / "b.yaml", tmp_path / "c.yaml")
            (tmp_path / "b.yaml").unlink()
            await told.until_in("c.yaml", "a")
            assert told.kinds(before) == []
            (tmp_path / "c.yaml").unlink()
            await told.until_vms({})

    async def test_several_are_read_one_after_another(self, tmp_path: Path) -> None:
        async with told_by(tmp_path) as told:
            names = [f"vm-{n}" for n in range(4)]
            for name in names:
                replace(tmp_path / f"{name}.yaml", vm(name) + "#" * 200_000)
            await told.until_vms(dict.fromkeys(names, "10.0.0.1"))


class TestLinks:
    async def test_a_mounted_config_map_is_taken_at_once(self, tmp_path: Path) -> None:
        mount(tmp_path, 0, {"a.yaml": vm("a"), "b.yaml": vm("b")})
        async with told_by(tmp_path, settle_s=3600.0) as told:
            assert told.vms == {"a": "10.0.0.1", "b": "10.0.0.1"}
            for version in range(1, 4):
                address = f"10.0.0.{version + 1}"
                mount(tmp_path, version, {"a.yaml": vm("a", address), "b.yaml": vm("b", address)})
                await told.until_vms({"a": address, "b": address})
            assert told.reports == []

    async def test_files_of_a_mounted_config_map_come_and_go(self, tmp_path: Path) -> None:
        mount(tmp_path, 0, {"a.yaml": vm("a"), "b.yaml": vm("b")})
        async with told_by(tmp_path) as told:
            listed = len(told.events)
            mount(tmp_path, 1, {"b.yaml": vm("b"), "c.yaml": vm("c")})
            await told.until_vms({"b": "10.0.0.1", "c": "10.0.0.1"})
            assert sorted(told.kinds(listed)) == ["Apply", "Delete"]
            assert told.reports == []

    async def test_a_link_to_a_directory_is_swapped(self, tmp_path: Path) -> None:
        for release in ("1", "2"):
            (tmp_path / "releases" / release).mkdir(parents=True)
            (tmp_path / "releases" / release / "a.yaml").write_text(vm("a", f"10.0.0.{release}"))
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree" / "current").symlink_to("../releases/1")
        async with told_by(tmp_path / "tree", settle_s=3600.0) as told:
            (tmp_path / "tree" / ".next").symlink_to("../releases/2")
            (tmp_path / "tree" / ".next").rename(tmp_path / "tree" / "current")
            await told.until_vms({"a": "10.0.0.2"})

    async def test_the_directory_itself_may_be_a_link_that_is_swapped(self, tmp_path: Path) -> None:
        for release in ("1", "2"):
            (tmp_path / release).mkdir()
            (tmp_path / release / "a.yaml").write_text(vm("a", f"10.0.0.{release}"))
        (tmp_path / "current").symlink_to("1")
        bounds = FilesSourceBounds(rescan_s=3600.0, directory_check_s=0.1)
        async with told_by(tmp_path / "current", bounds=bounds) as told:
            (tmp_path / ".next").symlink_to("2")
            (tmp_path / ".next").rename(tmp_path / "current")
            await told.until_vms({"a": "10.0.0.2"})
            (tmp_path / "2" / "b.yaml").write_text(vm("b"))
            await told.until(lambda: "b" in told.vms)


@pytest.fixture
def unprivileged() -> Generator[Path]:
    """A directory to use without root's right to read what nobody may."""
    nobody = 65534
    codecs.lookup("utf-8-sig")  # Its module may be where only root may read.
    with TemporaryDirectory() as directory:
        if os.geteuid() != 0:
            yield Path(directory)
            return
        os.chown(directory, nobody, nobody)
        os.seteuid(nobody)
        try:
            yield Path(directory)
        finally:
            os.seteuid(0)


class TestProblems:
    async def test_a_broken_file_keeps_its_last_good_objects(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(vm("a"))
        async with told_by(tmp_path) as told:
            listed = len(told.events)
            (tmp_path / "a.yaml").write_text(vm("a", "10.0.0.2") + "---\nkind: [\n")
            await told.until(lambda: len(told.reports) == 1)
            assert told.standing == ["a.yaml: line 8, column 1: did not find expected node content"]
            assert told.vms == {"a": "10.0.0.1"}
            assert not told.source.all_read
            (tmp_path / "a.yaml").touch()
            await told.until_read(3)
            (tmp_path / "a.yaml").write_text(vm("a", "10.0.0.3"))
            await told.until_vms({"a": "10.0.0.3"})
            await told.until(lambda: len(told.reports) == 2)
            assert told.reports[1].resolved
            assert told.standing == []
            assert told.kinds(listed) == ["Apply"]
            await told.until(lambda: told.source.all_read)

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            pytest.param(
                b"a: \x00\n",
                "a.yaml: line 1, column 4: control characters are not allowed",
                id="what is no text",
            ),
            pytest.param(
                b"#" * 2001,
                "a.yaml: cannot be read: it holds more than 2000 bytes; split it",
                id="what is too big",
            ),
            pytest.param(
                b"just text\n",
                "a.yaml: document 1 (line 1): is not an object; "
                "it must be a mapping with apiVersion and kind",
                id="a document that is no mapping",
            ),
            pytest.param(
                b"# nothing here\n---\n---\n",
                None,
                id="documents that are empty",
            ),
        ],
    )
    async def test_reports(self, tmp_path: Path, content: bytes, problem: str | None) -> None:
        (tmp_path / "a.yaml").write_bytes(content)
        async with told_by(tmp_path, bounds=FilesSourceBounds(file_bytes_max=2000)) as told:
            assert told.standing == ([problem] if problem else [])

    async def test_what_may_not_be_read_keeps_what_was(self, unprivileged: Path) -> None:
        (unprivileged / "below").mkdir()
        (unprivileged / "a.yaml").write_text(vm("a"))
        (unprivileged / "below" / "b.yaml").write_text(vm("b"))
        async with told_by(unprivileged, bounds=FilesSourceBounds(rescan_s=0.2)) as told:
            listed = len(told.events)
            (unprivileged / "a.yaml").chmod(0)
            (unprivileged / "below").chmod(0)
            refused = ["a.yaml", "below"]
            await told.until(lambda: sorted(p.path for p in told.source.problems) == refused)
            (unprivileged / "a.yaml").chmod(0o600)
            (unprivileged / "below").chmod(0o700)
            await told.until(lambda: told.standing == [])
            assert told.events[listed:] == []

    async def test_a_link_to_a_place_where_we_may_not_look(self, unprivileged: Path) -> None:
        """It passed for a file that is no manifest: all beneath it was taken for removed."""
        tree, closed = unprivileged / "tree", unprivileged / "closed"
        (closed / "target").mkdir(parents=True)
        tree.mkdir()
        (tree / "a.yaml").write_text(vm("a"))
        (closed / "target" / "b.yaml").write_text(vm("b"))
        (tree / "link").symlink_to(closed / "target")
        async with told_by(tree, bounds=FilesSourceBounds(rescan_s=0.2)) as told:
            expected = {"a": "10.0.0.1", "b": "10.0.0.1"}
            assert told.vms == expected
            listed = len(told.events)
            closed.chmod(0)
            said = ["link: cannot be listed: Permission denied"]
            await told.until(lambda: told.standing == said)
            assert not told.source.all_read
            (tree / "another").symlink_to(closed / "target")
            (tree / "third.yaml").symlink_to(closed / "target" / "b.yaml")
            await told.until(lambda: len(told.standing) == 3)
            closed.chmod(0o700)
            await told.until(lambda: not any("denied" in text for text in told.standing))
            assert told.vms == expected
            assert "Delete" not in told.kinds(listed)

    async def test_one_bad_object_does_not_affect_the_others(self, tmp_path: Path) -> None:
        bad = vm("bad").replace("primaryIP4: 10.0.0.1", "primaryIP4: [1]")
        (tmp_path / "a.yaml").write_text(vm("a") + bad + vm("x").replace("name: x, ", "") + vm("b"))
        async with told_by(tmp_path) as told:
            assert sorted(told.vms) == ["a", "b"]
            assert told.malformed == {
                (Kind.VIRTUAL_MACHINE, Key("shop", "bad")): (
                    "status.network.primaryIP4: must be text, not a list"
                )
            }
            assert len(told.standing) == 1
            assert told.standing[0].startswith("a.yaml: document 3 (line 11): VirtualMachine")

    async def test_unknown_kinds_are_ignored_and_counted(self, tmp_path: Path) -> None:
        config_map = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
        (tmp_path / "a.yaml").write_text(config_map + vm("a") + config_map)
        async with told_by(tmp_path) as told:
            assert told.source.ignored == 2
            assert told.standing == []
            (tmp_path / "a.yaml").unlink()
            await told.until_vms({})
            assert told.source.ignored == 0

    async def test_of_two_files_with_one_object_the_first_counts_at_start(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "b.yaml").write_text(vm("a", "10.0.0.2"))
        (tmp_path / "c.yaml").write_text(vm("a", "10.0.0.3"))
        async with told_by(tmp_path) as told:
            assert told.vms == {"a": "10.0.0.2"}
            loser = (
                "c.yaml: document 1 (line 1): VirtualMachine shop/a is defined in b.yaml "
                "already, which counts; remove one of them"
            )
            assert told.standing == [loser]
            id_ = (Kind.VIRTUAL_MACHINE, Key("shop", "a"))
            assert list(map(str, told.source.losers(*id_))) == [loser]
            assert told.source.all_read, "nothing is hidden by that"
            (tmp_path / "b.yaml").unlink()
            await told.until_vms({"a": "10.0.0.3"})
            await told.until(lambda: told.standing == [])
            assert not list(told.source.losers(*id_))
            assert "Delete" not in told.kinds()

    @pytest.mark.parametrize("name", ["a-copy.yaml", "b.yaml.json", "z.yaml"])
    async def test_a_copy_that_appears_takes_over_nothing(self, tmp_path: Path, name: str) -> None:
        """The one that had it goes on having it, however it is saved."""
        live, copy = tmp_path / "b.yaml", tmp_path / name
        live.write_text(vm("a"))
        async with told_by(tmp_path) as told:
            listed = len(told.events)
            shutil.copy(live, copy)
            await told.until(lambda: len(told.standing) == 1)
            assert told.standing[0].startswith(f"{name}: document 1")
            assert ("after a restart this one would count" in told.standing[0]) == (copy < live)
            copy.write_text(vm("a", "10.6.6.6"))
            await told.until_read(3)
            # As an editor does that keeps what was, and writes what is anew.
            live.rename(tmp_path / "b.yaml~")
            await asyncio.sleep(SETTLE_S / 2)
            live.write_text(vm("a", "10.0.0.2"))
            await told.until_vms({"a": "10.0.0.2"})
            replace(live, vm("a", "10.0.0.3"))
            await told.until_vms({"a": "10.0.0.3"})
            assert told.kinds(listed) == ["Apply", "Apply"]
            live.unlink()
            await told.until_vms({"a": "10.6.6.6"})
            assert told.kinds(listed) == ["Apply"] * 3

    async def test_flaws_of_what_parses_hide_no_object(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(vm("a"))
        (tmp_path / "kustomization.yaml").write_text("resources: [a.yaml]\n")
        (tmp_path / "list.yaml").write_text("[1, 2]\n")
        (tmp_path / "text.yaml").write_text("just text\n---\n" + vm("x").replace("name: x, ", ""))
        (tmp_path / "self.yaml").symlink_to("self.yaml")
        (tmp_path / "loop").symlink_to("loop")
        async with told_by(tmp_path) as told:
            assert {problem.path for problem in told.source.problems} == {
                "kustomization.yaml",
                "list.yaml",
                "text.yaml",
                "self.yaml",
            }
            assert told.source.all_read
            (tmp_path / "text.yaml").write_text("{")
            await told.until(lambda: not told.source.all_read)

    @pytest.mark.parametrize(
        ("name", "all_read"),
        [
            pytest.param("below", False, id="manifests may be there"),
            pytest.param("lost+found", True, id="nobody keeps manifests there"),
        ],
    )
    async def test_a_directory_that_nobody_may_list(
        self, unprivileged: Path, name: str, all_read: bool
    ) -> None:
        (unprivileged / name).mkdir(0)
        async with told_by(unprivileged) as told:
            assert told.standing == [f"{name}: cannot be listed: Permission denied"]
            assert told.source.all_read == all_read
            (unprivileged / "a.yaml").write_text(vm("a"))
            await told.until_vms({"a": "10.0.0.1"})
            (unprivileged / name).chmod(0o700)
            await told.until(lambda: told.standing == [])
            (unprivileged / name / "b.yaml").write_text(vm("b"))
            await told.until(lambda: "b" in told.vms)

    async def test_a_directory_copied_whole_is_reported_in_few_lines(self, tmp_path: Path) -> None:
        text = "".join(vm(f"vm-{index}") for index in range(500))
        (tmp_path / "a.yaml").write_text(text)
        async with told_by(tmp_path) as told:
            (tmp_path / "copy.yaml").write_text(text)
            await told.until(lambda: len(told.standing) == 10)
            assert "copy.yaml: 491 more problems; mend these first" in told.standing
            assert len(told.reports) == 10

    async def test_a_directory_that_vanishes_leaves_its_last_good_state(
        self, tmp_path: Path
    ) -> None:
        directory = tmp_path / "tree"
        directory.mkdir()
        (directory / "a.yaml").write_text(vm("a"))
        bounds = FilesSourceBounds(rescan_s=3600.0, directory_check_s=0.1)
        async with told_by(directory, bounds=bounds) as told:
            listed = len(told.events)
            directory.rename(tmp_path / "away")
            away = [".: cannot be listed, what was last read stays: No such file or directory"]
            await told.until(lambda: told.standing == away)
            assert not told.source.all_read
            await asyncio.sleep(2 * SETTLE_S)  # As long as a deletion would have taken.
            (tmp_path / "away").rename(directory)
            await told.until(lambda: told.standing == [])
            assert told.events[listed:] == []
            (directory / "b.yaml").write_text(vm("b"))
            await told.until(lambda: "b" in told.vms)
            shutil.rmtree(directory)
            await told.until(lambda: told.standing == away)
            directory.mkdir()
            (directory / "b.yaml").write_text(vm("b", "10.0.0.2"))
            await told.until_vms({"b": "10.0.0.2"})
            assert told.kinds(listed) == ["Apply", "Apply", "Delete"]


class TestEmptied:
    """Emptiness is no news: neither of a file, nor of a directory."""

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param("", id="nothing"),
            pytest.param(" \n\n", id="blanks"),
            pytest.param("\ufeff", id="a byte order mark"),
            pytest.param("# all of them\n", id="comments"),
            pytest.param("---\n", id="a lone begin of a document"),
            pytest.param("---\nnull\n---\n~\n...\n", id="documents of nothing"),
            pytest.param("apiVersion: v1\nkind: List\nitems: []\n", id="an empty list"),
            pytest.param("[]", id="a list that is none of Kubernetes'"),
            pytest.param("apiVersion: vmoperator.vmware.com/v1alpha6\n", id="a first line"),
            pytest.param("just text\n", id="text"),
        ],
    )
    @pytest.mark.parametrize("write", [Path.write_text, replace])
    async def test_a_file_without_objects_keeps_what_it_held(
        self, tmp_path: Path, content: str, write: Callable[[Path, str], object]
    ) -> None:
        path = tmp_path / "a.yaml"
        path.write_text(vm("a") + vm("b"))
        async with told_by(tmp_path, settle_s=0.05) as told:
            listed = len(told.events)
            write(path, content)
            await told.until(lambda: len(told.reports) == 1)
            assert "holds no object any more" in told.standing[0]
            assert told.source.all_read, "what it held is known"
            path.touch()
            await told.until_read(3)
            (tmp_path / "copy.yaml").write_text(vm("a", "10.6.6.6"))
            await told.until_read(4)
            await asyncio.sleep(0.2)  # As long as a deletion would have taken, and longer.
            assert told.events[listed:] == []
            (tmp_path / "copy.yaml").unlink()
            path.write_text(vm("b", "10.0.0.2"))
            await told.until_vms({"b": "10.0.0.2"})
            await told.until(lambda: told.standing == [])
            path.write_text(content)
            await told.until(lambda: len(told.standing) == 1)
            path.unlink()
            await told.until_vms({})
            await told.until(lambda: told.standing == [])

    async def test_a_file_without_objects_of_ours_has_let_go_of_them(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(vm("a"))
        async with told_by(tmp_path) as told:
            (tmp_path / "a.yaml").write_text("apiVersion: v1\nkind: ConfigMap\n")
            await told.until_vms({})
            (tmp_path / "a.yaml").write_text("")
            await told.until_read(3)
            assert told.standing == []

    async def test_a_shell_empties_a_file_before_the_data_comes(self, tmp_path: Path) -> None:
        path = tmp_path / "all.yaml"
        path.write_text(vm("a") + vm("b"))
        async with told_by(tmp_path) as told:
            listed = len(told.events)
            (tmp_path / "a").write_text(vm("a"))
            (tmp_path / "b").write_text(vm("b", "10.0.0.2"))
            script = "{ sleep 0.7; cat a; sleep 0.7; cat b; sleep 0.7; } > all.yaml"
            shell = await asyncio.create_subprocess_shell(script, cwd=tmp_path)
            await shell.wait()
            await told.until_vms({"a": "10.0.0.1", "b": "10.0.0.2"})
            assert told.kinds(listed) == ["Apply"]
            assert told.reports == []

    async def test_a_config_map_whose_file_is_empty_now(self, tmp_path: Path) -> None:
        mount(tmp_path, 0, {"a.yaml": vm("a"), "b.yaml": vm("b")})
        async with told_by(tmp_path) as told:
            listed = len(told.events)
            mount(tmp_path, 1, {"a.yaml": "", "b.yaml": vm("b", "10.0.0.2")})
            await told.until(lambda: len(told.standing) == 1)
            await told.until(lambda: told.vms["b"] == "10.0.0.2")
            mount(tmp_path, 2, {"b.yaml": vm("b", "10.0.0.2")})
            await told.until_vms({"b": "10.0.0.2"})
            await told.until(lambda: told.standing == [])
            assert told.kinds(listed) == ["Apply", "Delete"]

    @pytest.mark.parametrize("below", [False, True])
    async def test_a_directory_in_whose_place_there_is_an_empty_one(
        self, tmp_path: Path, below: bool
    ) -> None:
        for name in ("full/deep", "empty/deep", "other", "tree"):
            (tmp_path / name).mkdir(parents=True)
        (tmp_path / "full" / "a.yaml").write_text(vm("a"))
        (tmp_path / "full" / "deep" / "b.yaml").write_text(vm("b"))
        (tmp_path / "other" / "b.yaml").write_text(vm("b"))
        link = tmp_path / "tree" / "current"

        def lead_to(name: str) -> None:
            (tmp_path / "next").symlink_to(tmp_path / name)
            (tmp_path / "next").rename(link)

        lead_to("full")
        bounds = FilesSourceBounds(rescan_s=3600.0, directory_check_s=0.1)
        async with told_by(tmp_path / "tree" if below else link, bounds=bounds) as told:
            listed = len(told.events)
            lead_to("empty")
            await told.until(lambda: told.standing != [])
            (said,) = told.standing
            assert said.startswith("current: is another" if below else ".: is another")
            await asyncio.sleep(2 * SETTLE_S)
            assert told.source.all_read
            lead_to("full")
            await told.until(lambda: told.standing == [])
            lead_to("empty")
            await told.until(lambda: told.standing == [said])
            assert told.events[listed:] == []
            (tmp_path / "empty" / "deep" / "b.yaml").write_text(vm("b"))
            await told.until_read(3)
            await told.until_vms({"b": "10.0.0.1"})
            await told.until(lambda: told.standing == [])
            lead_to("other")
            await told.until_read(4)
            (tmp_path / "other" / "b.yaml").unlink()
            await told.until_vms({})
            assert told.standing == [], "that one was removed"
            assert told.kinds(listed) == ["Delete", "Delete"]

    @pytest.mark.parametrize("emptied", ["below", "below/deep"])
    async def test_an_empty_one_in_place_of_one_that_could_not_be_listed(
        self, unprivileged: Path, emptied: str
    ) -> None:
        below = unprivileged / "below"
        (below / "deep").mkdir(parents=True)
        (below / "deep" / "a.yaml").write_text(vm("a"))
        async with told_by(unprivileged, bounds=FilesSourceBounds(rescan_s=0.1)) as told:
            listed = len(told.events)
            below.chmod(0)
            await told.until(
                lambda: told.standing == ["below: cannot be listed: Permission denied"]
            )
            below.chmod(0o700)
            (unprivileged / emptied).rename(unprivileged / ".away")
            (unprivileged / emptied).mkdir()
            await told.until(
                lambda: any(line.startswith(f"{emptied}: is another") for line in told.standing)
            )
            await asyncio.sleep(2 * SETTLE_S)  # As long as a deletion would have taken.
            assert told.events[listed:] == []
            (unprivileged / emptied).rmdir()
            await told.until_vms({})
            await told.until(lambda: told.standing == [])


class TestShared:
    """The output directory: the reconciler tells the cache itself what it writes there."""

    KEY = Key("shop", "web")

    def ip(self, told: Told) -> str | None:
        held = told.objects.get((Kind.ENDPOINTS, self.KEY))
        if held is None:
            return None
        assert isinstance(held, StoredEndpoints)
        return held.subsets[0].addresses[0].ip

    @asynccontextmanager
    async def held(self, tmp_path: Path) -> AsyncGenerator[tuple[Told, Path]]:
        path = tmp_path / "shop" / "web.endpoints.yaml"
        path.parent.mkdir()
        path.write_text(endpoints("web", "10.0.0.1"))
        async with told_by(tmp_path, OUTPUT, shared=True) as told:
            assert self.ip(told) == "10.0.0.1"
            yield told, path

    def write(self, told: Told, path: Path, ip: str) -> None:
        """As the reconciler does: into the directory, and of it to the source and the cache."""
        replace(path, endpoints("web", ip))
        object_ = parse(Kind.ENDPOINTS, yaml.safe_load(path.read_text()))
        told.source.written("shop/web.endpoints.yaml", Kind.ENDPOINTS, object_)
        told.objects[Kind.ENDPOINTS, self.KEY] = object_

    async def test_what_the_writer_tells_himself_is_not_read(self, tmp_path: Path) -> None:
        async with self.held(tmp_path) as (told, path):
            listed = len(told.events)
            self.write(told, path, "10.0.0.2")
            await asyncio.sleep(SETTLE_S)
            (tmp_path / "end.yaml").write_text(endpoints("end", "10.0.0.9"))
            await told.until(lambda: len(told.objects) == 2)
            assert told.kinds(listed) == ["Apply"]
            assert told.source.files_read == 2

    async def test_an_edit_back_to_what_was_read_before_is_told(self, tmp_path: Path) -> None:
        async with self.held(tmp_path) as (told, path):
            self.write(told, path, "10.0.0.2")
            replace(path, endpoints("web", "10.0.0.1"))
            await told.until(lambda: self.ip(told) == "10.0.0.1")

    async def test_the_removal_of_a_file_that_was_never_read_is_told(self, tmp_path: Path) -> None:
        async with self.held(tmp_path) as (told, path):
            path.unlink()
            await told.until(lambda: self.ip(told) is None)
            self.write(told, path, "10.0.0.2")
            path.unlink()
            await told.until(lambda: self.ip(told) is None)

    async def test_a_file_that_is_broken_by_hand_is_told(self, tmp_path: Path) -> None:
        async with self.held(tmp_path) as (told, path):
            path.write_text("{")
            await told.until(lambda: (Kind.ENDPOINTS, self.KEY) in told.malformed)
            replace(path, endpoints("web", "10.0.0.3"))
            await told.until(lambda: told.malformed == {})
            assert self.ip(told) == "10.0.0.3"


class TestCancellation:
    async def test_leaves_no_task_wherever_it_waits(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / f"{name}.yaml").write_text(vm(name) + vm(f"{name}-2"))
        bounds = FilesSourceBounds(slice_s=0.0)
        before = asyncio.all_tasks()
        for turns in range(60):
            source = FilesSource(tmp_path, INPUT, settle_s=0.0, bounds=bounds)
            running = asyncio.create_task(source.run(lambda _: None))
            for turn in range(turns):
                await asyncio.sleep(0)
                if turn == 20:
                    replace(tmp_path / "a.yaml", vm("a"))
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert running.cancelled()
            assert asyncio.all_tasks() == before

    async def test_what_emit_raises_ends_it(self, tmp_path: Path) -> None:
        class BrokenInvariantError(Exception):
            pass

        def emit(event: Event) -> None:
            raise BrokenInvariantError

        before = asyncio.all_tasks()
        with pytest.RaisesGroup(BrokenInvariantError):
            await FilesSource(tmp_path, INPUT).run(emit)
        assert asyncio.all_tasks() == before
