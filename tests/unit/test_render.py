"""What `render` writes for manifests, and what it says of those that it cannot use."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from vmsvc_grpc.__main__ import main
from vmsvc_grpc.model.objects import IPFamily
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.reconciler.copying import Copying
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.render import render


class Rendered(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        return list(yaml.safe_load_all(self.out))

    @property
    def names(self) -> list[str]:
        return [
            f"{o['kind']} {o['metadata']['namespace']}/{o['metadata']['name']}"
            for o in self.objects
        ]


def rendered(path: Path | str, *, held: Rules | None = None, **rules: Any) -> Rendered:
    out, err = io.StringIO(), io.StringIO()
    status = render(str(path), rules=AddressRules(**rules), held=held or Rules(), out=out, err=err)
    return Rendered(status, out.getvalue(), err.getvalue())


def vm(name: str, address: str = "10.20.0.11") -> str:
    return f"""\
---
apiVersion: vmoperator.vmware.com/v1alpha3
kind: VirtualMachine
metadata: {{name: {name}, namespace: shop, uid: uid-{name}, labels: {{app: web}}}}
status: {{network: {{primaryIP4: {address}}}}}
"""


def vmservice(name: str, namespace: str = "shop", spec: str = "") -> str:
    return f"""\
---
apiVersion: vmoperator.vmware.com/v1alpha3
kind: VirtualMachineService
metadata: {{name: {name}, namespace: {namespace}, uid: uid-{name}}}
spec: {{{spec or "selector: {app: web}, ports: [{name: http, port: 80, targetPort: 9376}]"}}}
"""


def written(path: Path, *texts: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(texts))
    return path


def test_a_service_and_its_endpoints(tmp_path: Path) -> None:
    result = rendered(written(tmp_path / "web.yaml", vmservice("web"), vm("web-1")))
    assert (result.status, result.err) == (0, "")
    assert result.out == (
        """\
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  ownerReferences:
  - apiVersion: vmoperator.vmware.com/v1alpha6
    kind: VirtualMachineService
    name: web
    uid: uid-web
    controller: true
    blockOwnerDeletion: true
spec:
  type: ClusterIP
  ports:
  - name: http
    protocol: TCP
    port: 80
    targetPort: 9376
---
apiVersion: v1
kind: Endpoints
metadata:
  name: web
  namespace: shop
  ownerReferences:
  - apiVersion: vmoperator.vmware.com/v1alpha6
    kind: VirtualMachineService
    name: web
    uid: uid-web
    controller: true
    blockOwnerDeletion: true
subsets:
- addresses:
  - ip: 10.20.0.11
    targetRef:
      apiVersion: vmoperator.vmware.com/v1alpha6
      kind: VirtualMachine
      namespace: shop
      name: web-1
      uid: uid-web-1
  ports:
  - name: http
    port: 9376
    protocol: TCP
"""
    )


def test_of_a_service_without_uid_no_object_refers_to_an_owner(tmp_path: Path) -> None:
    """Kubernetes would delete them at once, as nothing has the uid that stands for it here."""
    bare = vmservice("web").replace(", uid: uid-web", "")
    result = rendered(written(tmp_path / "web.yaml", bare, vm("web-1")))
    assert (result.status, result.err) == (0, "")
    assert result.names == ["Service shop/web", "Endpoints shop/web"]
    assert [o["metadata"].keys() for o in result.objects] == [{"name", "namespace"}] * 2
    note = (
        "# No owner reference: VirtualMachineService shop/web has no metadata.uid in its manifest"
    )
    assert [line.startswith(note) for line in result.out.splitlines()].count(True) == 2


def test_objects_come_by_namespace_and_name_whatever_file_they_are_in(tmp_path: Path) -> None:
    written(tmp_path / "a.yaml", vmservice("web"), vmservice("api"))
    written(tmp_path / "below" / "b.yml", vmservice("ledger", "bank"))
    written(tmp_path / "c.json", '{"apiVersion": "v1", "kind": "ConfigMap"}')
    written(tmp_path / ".hidden.yaml", vmservice("hidden"))
    result = rendered(tmp_path)
    assert (result.status, result.err) == (0, "")
    assert result.names == [
        "Service bank/ledger",
        "Endpoints bank/ledger",
        "Service shop/api",
        "Endpoints shop/api",
        "Service shop/web",
        "Endpoints shop/web",
    ]


def test_vms_in_one_file_are_those_of_a_service_in_another(tmp_path: Path) -> None:
    written(tmp_path / "a.yaml", vmservice("web"))
    written(tmp_path / "b.yaml", vm("web-1"), vm("web-2", "10.20.0.12"))
    (addresses,) = [o["subsets"][0]["addresses"] for o in rendered(tmp_path).objects[1:]]
    assert [address["ip"] for address in addresses] == ["10.20.0.11", "10.20.0.12"]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (vmservice("web") + vm("web-1")).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert rendered("-").names == ["Service shop/web", "Endpoints shop/web"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment\n",
        "---\n---\n",
        "kind: List\napiVersion: v1\nitems: []\n",
        '{"apiVersion": "v1", "kind": "ConfigMap"}',
    ],
)
def test_what_holds_nothing_that_is_rendered_is_an_error(text: str, tmp_path: Path) -> None:
    """Who pipes it into kubectl has likely lost his manifests on the way here."""
    path = written(tmp_path / "a.yaml", text)
    told = "there is no VirtualMachine and no VirtualMachineService here\n"
    assert rendered(path) == (1, "", f"{path}: {told}")
    assert rendered(tmp_path) == (1, "", f"{tmp_path}: {told}")


def test_an_empty_directory_and_an_empty_input_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rendered(tmp_path).status == 1
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert rendered("-").err.startswith("standard input: there is no VirtualMachine ")


def test_vms_alone_are_something(tmp_path: Path) -> None:
    assert rendered(written(tmp_path / "a.yaml", vm("web-1"))) == (0, "", "")


def test_without_selector_there_are_no_endpoints_to_hold(tmp_path: Path) -> None:
    result = rendered(written(tmp_path / "a.yaml", vmservice("web", spec="ports: [{port: 80}]")))
    assert (result.status, result.names) == (0, ["Service shop/web"])


def test_the_settings_are_those_of_serve(tmp_path: Path) -> None:
    load_balancer = vmservice(
        "web", spec="type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]"
    ).replace(
        "uid: uid-web",
        "annotations: {virtualmachineservice.vmoperator.vmware.com/"
        "service.externalTrafficPolicy: Local}",
    )
    both = vm("web-1", "10.20.0.11, primaryIP6: '::1'")
    result = rendered(
        written(tmp_path / "a.yaml", load_balancer, both),
        held=Rules(load_balancer_provider="nsx-t-lb", copying=Copying(denied_annotations=("*",))),
        cluster_families=(IPFamily.IPV6,),
        allow_loopback=True,
    )
    service, endpoints = result.objects
    assert service["metadata"]["labels"] == {"service.kubernetes.io/service-proxy-name": "nsx-t"}
    assert "annotations" not in service["metadata"]
    assert service["spec"]["externalTrafficPolicy"] == "Local"
    assert [a["ip"] for a in endpoints["subsets"][0]["addresses"]] == ["::1"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param(
            vmservice("bad", spec="type: NodePort, ports: [{port: 80}]"),
            "FILE: line 15: VirtualMachineService shop/bad: spec.type: NodePort is not supported",
            id="a refused VMService",
        ),
        pytest.param(
            vmservice("bad", spec="ports: [{port: eighty}]"),
            "FILE: line 15: VirtualMachineService shop/bad: spec.ports[0].port: must be a whole "
            "number, not 'eighty'",
            id="a VMService of the wrong shape",
        ),
        pytest.param(
            vm("bad").replace("v1alpha3", "v9"),
            "FILE: line 12: VirtualMachine shop/bad: apiVersion: ",
            id="a VM of an unknown version",
        ),
        pytest.param(
            vm("web-1", "10.20.0.99"),
            "FILE: document 3 (line 11): VirtualMachine shop/web-1 is defined in "
            "document 2 (line 6) already",
            id="an object that is defined twice",
        ),
        pytest.param(
            vmservice("bad").replace("kind: VirtualMachineService", "kind: VirtualMachineServices"),
            "FILE: document 3 (line 11): there is no kind 'VirtualMachineServices' in "
            "vmoperator.vmware.com; did you mean VirtualMachineService?",
            id="a kind that is misspelt",
        ),
        pytest.param("--- just text\n", "FILE: document 3 (line 11): ", id="no object"),
        pytest.param(
            vm("bad").replace("name: bad, ", ""),
            "FILE: line 14: VirtualMachine (unnamed): metadata.name: ",
            id="an object without a name",
        ),
    ],
)
def test_what_is_refused_is_a_line_and_a_status_and_hides_nothing_else(
    text: str, line: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.yaml", vmservice("web"), vm("web-1"), text)
    result = rendered(path)
    assert result.status == 1
    assert result.err.startswith(line.replace("FILE", str(path)))
    assert result.err.count("\n") == 1
    assert result.names == ["Service shop/web", "Endpoints shop/web"]
    assert [a["ip"] for a in result.objects[1]["subsets"][0]["addresses"]] == ["10.20.0.11"]


FLAWED = """\
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachineService
metadata:
  name: web
  namespace: shop
  labels:
    a b: c
  lables: {}
spec:
  type: NodePort
  ports:
  - name: HTTP
    port: 80
    targetport: 9376
    protocol: tcp
  - name: b
    port: "81"
  - name: b
    port: 82
  selektor: {app: web}
"""

TOLD = """\
6: metadata.labels: key 'a b' is not a key
8: metadata.lables: is not a field here; did you mean labels, which
10: spec.type: NodePort is not supported
12: spec.ports[0].name: 'HTTP' is not a DNS label
14: spec.ports[0].targetport: is not a field here; did you mean targetPort?
15: spec.ports[0].protocol: 'tcp' is not known
17: spec.ports[1].port: must be a whole number, not '81'
18: spec.ports[2].name: 'b' is also the name of spec.ports[1]
20: spec.selektor: is not a field here; did you mean selector?
"""


@pytest.mark.parametrize("field", ["clusterIp", "clusterIP"])
def test_a_cluster_address_is_told_as_it_is_spelt(field: str, tmp_path: Path) -> None:
    """The one that the documents have was told by the other's name, at the line of `spec`."""
    spec = f"ports: [{{name: http, port: 80}}],\n  {field}: foo"
    result = rendered(written(tmp_path / "web.yaml", vmservice("web", spec=spec)))
    assert "line 6: VirtualMachineService shop/web: " in result.err
    assert f" spec.{field}: 'foo' is not an IP address" in result.err


def test_every_flaw_of_an_object_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.yaml", FLAWED)
    result = rendered(path)
    assert result.status == 1
    for line, told in zip(result.err.splitlines(), TOLD.splitlines(), strict=True):
        number, _, problem = told.partition(": ")
        beginning = f"{path}: line {number}: VirtualMachineService shop/web: {problem}"
        assert line.startswith(beginning)


def test_lines_are_those_of_the_file_in_a_list_in_json_and_in_later_documents(
    tmp_path: Path,
) -> None:
    item = vmservice("web", spec="ports: [{port: 80}],\n  slector: {a: b}").removeprefix("---\n")
    listed = "  " + item.replace("\n", "\n    ").rstrip(" ")
    head = "apiVersion: v1\nkind: List\nitems:\n"
    path = written(
        tmp_path / "a.yaml",
        f"{head}- apiVersion: v1\n  kind: List\n  items:\n  -{listed[1:]}",
        f"--- # more\n# more\n{item.replace('name: web', 'name: db')}",
    )
    told = "spec.slector: is not a field here; did you mean selector?\n"
    assert rendered(path).err == (
        f"{path}: line 11: VirtualMachineService shop/web: {told}"
        f"{path}: line 18: VirtualMachineService shop/db: {told}"
    )
    objects = [
        {**yaml.safe_load(item), "spec": {"ports": [{"port": 80}], "slector": {"a": "b"}}}
        for item in (item, item.replace("name: web", "name: db"))
    ]
    path = written(tmp_path / "a.json", "\n".join(json.dumps(o, indent="\t") for o in objects))
    text = path.read_text().splitlines()
    lines = [number for number, line in enumerate(text, 1) if "slector" in line]
    assert rendered(path).err == (
        f"{path}: line {lines[0]}: VirtualMachineService shop/web: {told}"
        f"{path}: line {lines[1]}: VirtualMachineService shop/db: {told}"
    )


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(vmservice("bad") + "metadata: {name: worse}\n", id="of the object"),
        pytest.param(
            vmservice("bad", spec="ports: [{port: 80}],\n  ports: [{port: 81}]"), id="below it"
        ),
    ],
)
def test_a_key_that_occurs_twice_is_refused_where_it_does_again(text: str, tmp_path: Path) -> None:
    """kubectl takes the last one, if it does not validate strictly."""
    path = written(tmp_path / "a.yaml", text)
    result = rendered(path)
    assert (result.status, result.out) == (1, "")
    assert result.err.startswith(f"{path}: line 6")
    assert result.err.count("\n") == 1


def test_what_is_refused_for_a_field_that_means_nothing_is_not_rendered(tmp_path: Path) -> None:
    good, bad = vm("web-1"), vm("web-2", "10.20.0.12").replace("status:", "statu: {}\nstatus:")
    path = written(
        tmp_path / "a.yaml", vmservice("web"), good, bad, "---\n" + FLAWED.replace("web", "flawed")
    )
    result = rendered(path)
    assert result.status == 1
    assert result.names == ["Service shop/web", "Endpoints shop/web"]
    assert [a["ip"] for a in result.objects[1]["subsets"][0]["addresses"]] == ["10.20.0.11"]


def test_of_an_object_in_two_files_the_first_in_path_order_counts(tmp_path: Path) -> None:
    first = written(tmp_path / "a.yaml", vmservice("web"), vm("web-1"))
    second = written(tmp_path / "b.yaml", vm("web-1", "10.20.0.99"))
    result = rendered(tmp_path)
    assert result.status == 1
    assert result.err == (
        f"{second}: document 1 (line 1): VirtualMachine shop/web-1 is defined in {first} "
        "document 2 (line 6) already, which counts; remove one of them\n"
    )
    assert [a["ip"] for a in result.objects[1]["subsets"][0]["addresses"]] == ["10.20.0.11"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"a: [", "line ", id="no YAML"),
        pytest.param(b"a: \x00", "control characters", id="no text"),
    ],
)
def test_a_file_that_cannot_be_read_hides_no_other(
    content: bytes, words: str, tmp_path: Path
) -> None:
    bad = tmp_path / "a.yaml"
    bad.write_bytes(content)
    written(tmp_path / "b.yaml", vmservice("web"))
    result = rendered(tmp_path)
    assert result.status == 1
    assert result.err.startswith(f"{bad}: ")
    assert words in result.err
    assert result.names == ["Service shop/web", "Endpoints shop/web"]


def test_what_is_told_is_one_printable_line_whatever_a_file_is_called(tmp_path: Path) -> None:
    bad = written(tmp_path / "a\n\x1b[2J\u202e.yaml", "a: [")
    result = rendered(bad)
    assert result.status == 1
    assert result.err.startswith(f"{tmp_path}/a\\n\\x1b[2J\\u202e.yaml: line ")
    assert result.err.count("\n") == 1


def test_standard_input_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\x00")))
    result = rendered("-")
    assert (result.status, result.out) == (1, "")
    assert result.err.startswith("standard input: line 1, column 1: ")


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "nothing.yaml"
    assert rendered(path) == (1, "", f"{path}: cannot be read: No such file or directory\n")


def test_an_address_that_cannot_be_used_is_told_and_refuses_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "a.yaml", vmservice("web"), vm("a", "127.0.0.1"), vm("b"))
    result = rendered(path)
    assert result.status == 0
    told = f"{path}: line 10: VirtualMachine shop/a: status.network.primaryIP4: '127.0.0.1' "
    assert result.err.startswith(told)
    assert [a["ip"] for a in result.objects[1]["subsets"][0]["addresses"]] == ["10.20.0.11"]


def test_what_is_too_large_is_refused_by_the_bound_of_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also standard input, which may never end."""
    text = vmservice("web")
    path = written(tmp_path / "a.yaml", text)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    monkeypatch.setenv("VMSVC_GRPC_MANIFEST_BYTES_MAX", str(len(text) - 1))
    told = f"cannot be read: it holds more than {len(text) - 1} bytes; split it\n"
    for name, shown in ((path, path), (tmp_path, path), ("-", "standard input")):
        assert main(["render", str(name)]) == 1
        assert capsys.readouterr() == ("", f"{shown}: {told}")
    assert main(["render", f"--manifest-bytes-max={len(text)}", str(path)]) == 0


def test_a_pipe_that_is_named_is_read_and_one_in_a_directory_is_not(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, vmservice("web").encode())
    os.close(writer)
    try:
        assert rendered(f"/dev/fd/{reader}").names == ["Service shop/web", "Endpoints shop/web"]
    finally:
        os.close(reader)
    os.mkfifo(tmp_path / "a.yaml")
    told = f"{tmp_path / 'a.yaml'}: cannot be read: it is not a regular file\n"
    assert rendered(tmp_path) == (1, "", told)
