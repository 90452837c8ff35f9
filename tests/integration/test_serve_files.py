"""The whole program on directories in which something is wrong: it costs itself only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
