"""The examples give what they say that they give.

`VMSVC_UPDATE_GOLDEN=1` writes the golden files anew, and fails, so that it is never done
in passing: read the difference, and run again without it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from tests.program import serving
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc.v1 import endpoint_service_pb2_grpc as api

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in (".yaml", ".json"))

REFUSAL = (
    "VirtualMachineService office/intranet: spec.type: NodePort is not supported, as node ports "
    "are not allocated for VMs; use ClusterIP or LoadBalancer"
)


def rendered(path: str) -> subprocess.CompletedProcess[str]:
    """`vmsvc-grpc render` of a path in the project's root."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("VMSVC_")}
    return subprocess.run(
        [sys.executable, "-m", "vmsvc_grpc", "render", path],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def as_golden(name: str, text: str) -> None:
    golden = GOLDEN / name
    if os.environ.get("VMSVC_UPDATE_GOLDEN"):
        golden.write_text(text)
        pytest.fail(f"{golden.name} is written; read it, and run again without the variable")
    assert text == golden.read_text()


@pytest.mark.parametrize("name", [name for name in FILES if name != "refused.yaml"])
def test_render_of_an_example_gives_its_golden_file_and_no_problems(name: str) -> None:
    result = rendered(f"examples/{name}")
    assert (result.returncode, result.stderr) == (0, "")
    as_golden(name, result.stdout)


def test_render_of_the_refused_one_says_why_in_a_line_and_ends_with_1() -> None:
    result = rendered("examples/refused.yaml")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"examples/refused.yaml: line 10: {REFUSAL}\n"


def test_render_of_all_of_them_gives_each_and_ends_with_1() -> None:
    result = rendered("examples")
    assert result.returncode == 1
    assert result.stderr == f"examples/refused.yaml: line 10: {REFUSAL}\n"
    each = [document for golden in GOLDEN.iterdir() for document in documents(golden.read_text())]
    assert documents(result.stdout) == sorted(each, key=sort_key)


def documents(text: str) -> list[Any]:
    return list(yaml.safe_load_all(text))


def sort_key(manifest: Any) -> tuple[str, str, bool]:
    """By namespace and name, the Service first."""
    meta = manifest["metadata"]
    return meta["namespace"], meta["name"], manifest["kind"] != "Service"


def test_there_is_no_golden_file_without_an_example() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {*FILES} - {"refused.yaml"}


def test_served_they_are_what_their_comments_say(tmp_path: Path) -> None:
    verdict = pb.VirtualMachineExplanation.Verdict
    arguments: list[str | Path] = ["--manifests", EXAMPLES, "--output", tmp_path / "out"]
    with (
        serving([*arguments, "--drain-s", "0"], tmp_path / "log") as program,
        grpc.insecure_channel(program.grpc) as channel,
    ):
        stub = api.EndpointServiceStub(channel)
        request = pb.ExplainEndpointsRequest(service="shop/web")
        explained = stub.ExplainEndpoints(request, wait_for_ready=True, timeout=10)
        listed = stub.ListServices(pb.ListServicesRequest(), timeout=10).services
    assert {vm.vm_name: vm.verdict for vm in explained.virtual_machines} == {
        "web-1": verdict.VERDICT_READY,
        "web-2": verdict.VERDICT_READY,
        "web-3": verdict.VERDICT_NOT_READY,
        "web-4": verdict.VERDICT_NO_ADDRESS,
        "web-5": verdict.VERDICT_DELETING,
        "web-canary": verdict.VERDICT_LABELS_DIFFER,
    }
    assert [(of.service, of.type, of.ready, of.not_ready, of.refused) for of in listed] == [
        ("data/db", "ClusterIP", 2, 1, False),
        ("office/intranet", "NodePort", 0, 0, True),
        ("shop/checkout", "LoadBalancer", 1, 1, False),
        ("shop/web", "ClusterIP", 2, 1, False),
    ]
    ingress = {of.service: list(of.load_balancer_ingress) for of in listed}
    assert ingress["shop/checkout"] == ["203.0.113.80"]
