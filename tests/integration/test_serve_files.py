"""The whole program on directories in which something is wrong: it costs itself only."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import grpc
import pytest

from tests.integration.test_serve import SERVICE, VM, http
from tests.program import Program, awaited, serving
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc.v1 import endpoint_service_pb2_grpc as pb_grpc

WEB = "shop/web"


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    directory = tmp_path / "manifests"
    directory.mkdir()
    (directory / "web.yaml").write_text(f"{SERVICE}---\n{VM}")
    return directory


@contextmanager
def stub_of(program: Program) -> Iterator[pb_grpc.EndpointServiceStub]:
    with grpc.insecure_channel(program.grpc) as channel:
        yield pb_grpc.EndpointServiceStub(channel)


def addresses(stub: pb_grpc.EndpointServiceStub) -> list[str]:
    answer = stub.ResolveEndpoints(pb.ResolveEndpointsRequest(service=WEB))
    return [endpoint.address for endpoint in answer.endpoint_set.endpoints]


def served(stub: pb_grpc.EndpointServiceStub, count: int) -> bool:
    return len(addresses(stub)) == count


def explained(stub: pb_grpc.EndpointServiceStub) -> pb.ExplainEndpointsResponse:
    answer = stub.ExplainEndpoints(pb.ExplainEndpointsRequest(service=WEB))
    assert isinstance(answer, pb.ExplainEndpointsResponse)
    return answer


def left_by_an_earlier_run(manifests: Path, output: Path, log: Path) -> tuple[Path, Path]:
    """Objects of a VirtualMachineService that is in no manifest any more."""
    (manifests / "old.yaml").write_text(SERVICE.replace("name: web", "name: old"))
    held = output / "shop" / "old.service.yaml", output / "shop" / "old.endpoints.yaml"
    with serving(["--manifests", manifests, "--output", output, "--drain-s", "0"], log):
        assert awaited(lambda: all(path.exists() for path in held))
    (manifests / "old.yaml").unlink()
    return held


def test_flaws_of_other_files_keep_no_orphans(manifests: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    held = left_by_an_earlier_run(manifests, output, tmp_path / "log")
    (manifests / "kustomization.yaml").write_text("resources: [web.yaml]\n")
    (manifests / "notes.yaml").write_text("just text\n--- [a, list]\n")
    (manifests / "self.yaml").symlink_to("self.yaml")
    arguments: list[str | Path] = ["--manifests", manifests, "--output", output, "--drain-s", "0"]
    with serving(arguments, tmp_path / "log") as program:
        assert awaited(lambda: not any(path.exists() for path in held))
        assert (output / "shop" / "web.service.yaml").exists()
        assert "kustomization.yaml" in program.said()


def test_what_does_not_parse_keeps_orphans_until_it_does(manifests: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    held = left_by_an_earlier_run(manifests, output, tmp_path / "log")
    broken = manifests / "broken.yaml"
    broken.write_text("kind: [")
    arguments: list[str | Path] = ["--manifests", manifests, "--output", output, "--drain-s", "0"]
    with serving(arguments, tmp_path / "log") as program:
        assert awaited(lambda: "the objects of shop/old stay" in program.said())
        assert all(path.exists() for path in held)
        broken.write_text("kind: Kustomization\n")
        assert awaited(lambda: not any(path.exists() for path in held))


def test_explain_and_readyz_name_a_copy_that_does_not_count(
    manifests: Path, tmp_path: Path
) -> None:
    with (
        serving(["--manifests", manifests, "--drain-s", "0"], tmp_path / "log") as program,
        stub_of(program) as stub,
    ):
        assert http(program, "/readyz") == (200, "ok\n")
        copy = manifests / "a-copy.yaml"
        copy.write_text((manifests / "web.yaml").read_text().replace("10.0.0.1", "10.6.6.6"))
        assert awaited(lambda: "a-copy.yaml" in http(program, "/readyz")[1])
        assert addresses(stub) == ["10.0.0.1"]
        loser = (
            "a-copy.yaml: document 2 (line 5): VirtualMachine shop/web-1 is defined in web.yaml "
            "already, which counts; remove one of them; after a restart this one would count, as "
            "the first in path order"
        )
        status, page = http(program, "/readyz")
        assert (status, page.splitlines()[0]) == (200, "ok")
        assert f"{manifests}: {loser}" in page.splitlines()
        found = explained(stub)
        assert loser in found.virtual_machines[0].reasons
        assert [problem.field for problem in found.problems] == ["(file)"]
        assert "a-copy.yaml: document 1" in found.problems[0].message
        copy.unlink()
        assert awaited(lambda: http(program, "/readyz") == (200, "ok\n"))
        assert not explained(stub).problems


def test_explain_and_readyz_say_what_could_not_be_written(manifests: Path, tmp_path: Path) -> None:
    """The log has ten lines a minute about a file, which may define many services."""
    output = tmp_path / "out"
    output.mkdir()
    (output / "shop").write_text("in the way\n")
    arguments: list[str | Path] = ["--manifests", manifests, "--output", output, "--drain-s", "0"]
    with serving(arguments, tmp_path / "log") as program, stub_of(program) as stub:
        failure = "objects of shop/web: FileNotWritten: cannot create Service shop/web: "
        assert awaited(lambda: failure in http(program, "/readyz")[1])
        [problem] = explained(stub).problems
        assert problem.message.startswith(failure)
        assert addresses(stub) == ["10.0.0.1"]
        (output / "shop").unlink()
        assert awaited(lambda: http(program, "/readyz") == (200, "ok\n"))
        assert not explained(stub).problems


def limited(kind: str, limit: int) -> list[str]:
    """A command that runs another one with a limit of inotify, which is a user namespace's own."""
    script = f'echo {limit} > /proc/sys/user/max_inotify_{kind} && exec "$@"'
    return ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"]


@pytest.mark.parametrize(
    ("kind", "limit", "said"),
    [
        pytest.param(
            *("watches", 3, "the system's limit fs.inotify.max_user_watches is reached"),
            id="of directories that may be watched",
        ),
        pytest.param(
            *("instances", 0, "the system's limit fs.inotify.max_user_instances is reached"),
            id="of programs that may watch",
        ),
    ],
)
def test_beyond_the_systems_limit_changes_are_seen_soon(
    manifests: Path, tmp_path: Path, kind: str, limit: int, said: str
) -> None:
    for name in "abcdefgh":
        (manifests / name).mkdir()
    arguments = ["--manifests", str(manifests), "--drain-s", "0", "--rescan-s", "3600"]
    with (
        serving(arguments, tmp_path / "log", within=limited(kind, limit)) as program,
        stub_of(program) as stub,
    ):
        assert said in http(program, "/readyz")[1]
        (manifests / "h" / "web-2.yaml").write_text(VM.replace("web-1", "web-2"))
        assert awaited(lambda: len(addresses(stub)) == 2)
        (manifests / "h" / "web-2.yaml").unlink()
        for name in "abcdefgh":
            (manifests / name).rmdir()
        if kind == "watches":
            assert awaited(lambda: http(program, "/readyz") == (200, "ok\n"))


def test_what_costs_itself_holds_nothing_up(manifests: Path, tmp_path: Path) -> None:
    """Everything else is seen at once: without notices it would be seen after an hour."""
    os.mkfifo(manifests / "pipe.yaml")
    (manifests / "nowhere.yaml").symlink_to("gone")
    (manifests / "zero.yaml").symlink_to("/dev/zero")
    (manifests / os.fsdecode(b"\xff")).mkdir()
    (manifests / os.fsdecode(b"\xfe.yaml")).write_text("{")
    (manifests / "forged\n2026 ERROR \x1b[31m.yaml").write_text("{")
    arguments = ["--manifests", str(manifests), "--drain-s", "0", "--rescan-s", "3600"]
    with serving(arguments, tmp_path / "log") as program, stub_of(program) as stub:
        for number in range(2, 5):
            (manifests / os.fsdecode(b"\xff") / f"{number}.txt").touch()
            (manifests / os.fsdecode(b"\xfd\xfc%d.yaml" % number)).write_text("{")
            vm = VM.replace("web-1", f"web-{number}").replace("10.0.0.1", f"10.0.0.{number}")
            (manifests / f"web-{number}.yaml").write_text(vm)
            assert awaited(partial(served, stub, number))
        page = http(program, "/readyz")[1]
        assert "pipe.yaml: this is a FIFO, not a file; it is left out" in page
        assert "\n2026 ERROR" not in page + program.said()


def test_an_emptied_file_keeps_what_is_served_and_held(manifests: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    arguments = ["--manifests", str(manifests), "--output", str(output), "--drain-s", "0"]
    with serving(arguments, tmp_path / "log") as program, stub_of(program) as stub:
        held = output / "shop" / "web.service.yaml"
        assert awaited(held.exists)
        (manifests / "web.yaml").write_text("# to be filled\n")
        assert awaited(lambda: "web.yaml: holds no object any more" in http(program, "/readyz")[1])
        time.sleep(1.0)  # Longer than a deletion would have taken.
        assert addresses(stub) == ["10.0.0.1"]
        assert held.exists()
        # What is held is not theirs to empty: it is put right.
        held.write_text("")
        assert awaited(lambda: held.read_text() != "")
        (manifests / "web.yaml").unlink()
        assert awaited(lambda: not held.exists())
        assert http(program, "/readyz") == (200, "ok\n")


def test_a_file_system_that_is_unmounted_keeps_what_is_served(
    manifests: Path, tmp_path: Path
) -> None:
    mounted, unmount = tmp_path / "mounted", tmp_path / "unmount"
    mounted.mkdir()
    script = (
        f"mount -t tmpfs none {mounted} && cp {manifests}/web.yaml {mounted} || exit; "
        f"(until [ -e {unmount} ]; do sleep 0.05; done; umount -l {mounted}) & "
        'exec "$@"'
    )
    within = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    arguments = ["--manifests", str(mounted), "--drain-s", "0"]
    with (
        serving(arguments, tmp_path / "log", within=within) as program,
        stub_of(program) as stub,
    ):
        assert addresses(stub) == ["10.0.0.1"]
        unmount.touch()
        assert awaited(lambda: "is another directory than before" in http(program, "/readyz")[1])
        time.sleep(1.0)  # Longer than a deletion would have taken.
        assert addresses(stub) == ["10.0.0.1"]
        (mounted / "web.yaml").write_text(f"{SERVICE}---\n{VM.replace('10.0.0.1', '10.0.0.2')}")
        assert awaited(lambda: addresses(stub) == ["10.0.0.2"])
        assert awaited(lambda: http(program, "/readyz") == (200, "ok\n"))


REFUSED = SERVICE.replace("port: 80", "port: 0")
UNNAMED = "apiVersion: vmoperator.vmware.com/v1alpha6\nkind: VirtualMachine\n"


def test_whatever_is_wrong_in_a_file_the_log_has_few_lines_of_it(
    manifests: Path, tmp_path: Path
) -> None:
    log, bad = tmp_path / "log", manifests / "bad.yaml"

    def write(turn: int) -> None:
        refused = [REFUSED.replace("name: web", f"name: bad-{turn}-{n}") for n in range(100)]
        beside = tmp_path / "beside.yaml"
        beside.write_text("---\n".join([*refused, *[UNNAMED] * 100]))
        beside.replace(bad)

    write(0)
    with serving(["--manifests", manifests, "--drain-s", "0"], log) as program:
        assert "refused: shop/bad-0-0, " in log.read_text()
        assert len(max(log.read_text().splitlines(), key=len)) < 1_000
        with stub_of(program) as stub:
            for turn in range(1, 6):
                write(turn)
                assert awaited(partial(lists, stub, f"shop/bad-{turn}-0", f"shop/bad-{turn - 1}-0"))
        (manifests / "other.yaml").write_text(REFUSED.replace("name: web", "name: other"))
        assert awaited(lambda: "VirtualMachineService shop/other is refused" in log.read_text())
        bad.unlink()
        with stub_of(program) as stub:
            assert awaited(partial(lists, stub, WEB, "shop/bad-5-0"))
    lines = [line for line in log.read_text().splitlines() if "bad" in line]
    of_objects = [line for line in lines if "refused: shop/bad-0-0, " not in line]
    assert len(of_objects) == 11
    assert "lines left out: " in of_objects[-1]


def lists(stub: pb_grpc.EndpointServiceStub, present: str, absent: str) -> bool:
    answer = stub.ListServices(pb.ListServicesRequest(page_size=1_000))
    names = {found.service for found in answer.services}
    return present in names and absent not in names


def test_a_file_may_hold_so_much(manifests: Path, tmp_path: Path) -> None:
    arguments = ["--manifests", str(manifests), "--drain-s", "0", "--manifest-bytes-max", "1000"]
    with serving(arguments, tmp_path / "log") as program, stub_of(program) as stub:
        (manifests / "web.yaml").write_text("#" * 1001)
        told = "web.yaml: cannot be read: it holds more than 1000 bytes; split it"
        assert awaited(lambda: told in http(program, "/readyz")[1])
        assert addresses(stub) == ["10.0.0.1"]


def test_objects_without_a_namespace_go_where_they_are_told(
    manifests: Path, tmp_path: Path
) -> None:
    (manifests / "web.yaml").write_text(f"{SERVICE}---\n{VM}".replace(", namespace: shop", ""))
    (manifests / "lab.yaml").write_text(SERVICE.replace("shop", "lab"))
    arguments = ["--manifests", str(manifests), "--drain-s", "0", "--namespace", "shop"]
    with serving(arguments, tmp_path / "log") as program, stub_of(program) as stub:
        assert addresses(stub) == ["10.0.0.1"]
        listed = stub.ListServices(pb.ListServicesRequest())
        assert [service.service for service in listed.services] == ["lab/web", "shop/web"]
        answer = stub.ExplainEndpoints(pb.ExplainEndpointsRequest(service="lab/web"))
        (problem,) = answer.problems
        assert problem.message.endswith("but of others, where a service selects none: shop/web-1")
