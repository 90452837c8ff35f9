"""What is known to have held up the event loop, each as a thing that can be done to it."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator

from envoy.service.status.v3 import csds_pb2
from google.protobuf.message import Message

from bench import dataset, servers
from bench.dataset import NAMESPACE, DataSet
from bench.servers import Load, loading
from bench.standstills.places import list_of
from bench.standstills.trial import Cause, Size, Stage
from vmsvc.v1 import endpoint_service_pb2 as pb

FULL = Size(
    data=DataSet(services=10_000, endpoints=2),
    envoys=100,
    ports=1_000,
    file_bytes=16 * 1024 * 1024,
    calls=20,
    absent_streams=1_000,
    absent_names=2_000,
    absent_s=20.0,
    clients=5_000,
    rest_s=60.0,
)
"""What the service is designed for."""

QUICK = Size(
    data=DataSet(services=1_000, endpoints=2),
    envoys=10,
    ports=200,
    file_bytes=2 * 1024 * 1024,
    calls=5,
    absent_streams=100,
    absent_names=200,
    absent_s=5.0,
    clients=500,
    rest_s=3.0,
)
"""A tenth of it, for a look in some seconds each."""

_STATUS = "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus"
_API = "/vmsvc.v1.EndpointService"
_NOTHING_S = 5.0


def _wait(_stage: Stage) -> None:
    time.sleep(_NOTHING_S)


def _envoys_connect(stage: Stage) -> None:
    stage.callers.ask("envoys", count=stage.size.envoys)
    _warm(stage, stage.size.data.services)


def _envoys_come_and_go(stage: Stage) -> None:
    _envoys_connect(stage)
    stage.callers.ask("part")


def _warm(stage: Stage, clusters: int) -> None:
    def warm() -> bool:
        answer = stage.callers.ask("warm", clusters=clusters)
        return bool(answer["warm"] or answer["ended"])

    stage.until(warm, "told to all Envoys")
    ended = stage.callers.ask("warm", clusters=clusters)["ended"]
    stage.wrong.extend(f"an Envoy's stream, with {text}" for text in ended)


def _ports_appear(stage: Stage) -> None:
    size = stage.size
    ports = [{"name": f"p{n}", "protocol": "TCP", "port": n + 1} for n in range(size.ports)]
    selector = {"app": dataset.service_name(0)}
    stage.directory.put("ports.json", _service("ports", selector, ports))
    _warm(stage, size.data.services + size.ports)


def _service(name: str, selector: dict[str, str], ports: list[dict[str, object]]) -> bytes:
    made = json.loads(dataset.service_json(0))
    made["metadata"] = {"name": name, "namespace": NAMESPACE}
    made["spec"] |= {"selector": selector, "ports": ports}
    return json.dumps(made).encode()


_NEARLY_ALL = "nearly-all"


def _nearly_all_match(stage: Stage) -> None:
    """Of a selector's three keys, all VMs have two as they should be."""
    selector = {"app": "none", "tier": "web", "topology.kubernetes.io/zone": dataset.ZONE}
    made = _service(_NEARLY_ALL, selector, [{"name": "http", "protocol": "TCP", "port": 80}])
    stage.directory.put("nearly-all.json", made)
    request = pb.ResolveEndpointsRequest(service=f"{NAMESPACE}/{_NEARLY_ALL}")
    stage.until(lambda: "OK" in _call(stage, "ResolveEndpoints", request, 1), "served")


def _explain(stage: Stage) -> None:
    request = pb.ExplainEndpointsRequest(service=f"{NAMESPACE}/{_NEARLY_ALL}")
    ends = _call(stage, "ExplainEndpoints", request, stage.size.calls)
    stage.wrong.extend(end for end in ends if end != "OK")


def _call(stage: Stage, method: str, request: Message, count: int) -> dict[str, int]:
    """How many of these calls of our own API ended how."""
    return _called(stage, f"{_API}/{method}", request, count)


def _called(stage: Stage, method: str, request: Message, count: int) -> dict[str, int]:
    encoded = base64.b64encode(request.SerializeToString()).decode()
    answer = stage.callers.ask("call", method=method, request=encoded, count=count)
    ends: dict[str, int] = answer["ends"]
    return ends


def _file_arrives(stage: Stage) -> None:
    """VMs of services that there are not: they cost being read, and being kept."""
    size = stage.size
    objects = list(_vms_of(size.data.services, size.file_bytes))
    last = json.loads(objects[-1])["metadata"]["labels"]["app"]
    port: list[dict[str, object]] = [{"name": "http", "protocol": "TCP", "port": 80}]
    objects.append(_service("from-the-file", {"app": last}, port))
    stage.directory.put("large.json", list_of(objects))
    request = pb.ResolveEndpointsRequest(service=f"{NAMESPACE}/from-the-file")
    stage.until(lambda: "OK" in _call(stage, "ResolveEndpoints", request, 1), "read")


def _vms_of(first_service: int, size: int) -> Iterator[bytes]:
    """VMs, one a service from there on, of so many bytes as a List, or a little less."""
    number, left = first_service, size - 2_000
    while (vm := dataset.vm_json(number, 0, (1 << 23) + number)) and len(vm) + 2 < left:
        left -= len(vm) + 2
        number += 1
        yield vm


def _relist_all(stage: Stage) -> None:
    _relist(stage, stage.size.data.services)


def _relist_half(stage: Stage) -> None:
    _relist(stage, stage.size.data.services // 2)


def _relist(stage: Stage, services: int) -> None:
    stage.api_server.relist(services)
    stage.until(stage.api_server.watched, "listed again")


def _absent_named(stage: Stage) -> None:
    size = stage.size
    # To be refused at a limit is right.
    stage.callers.ask(
        "absent",
        streams=size.absent_streams,
        names=size.absent_names,
        connections=min(100, size.absent_streams),
        for_s=size.absent_s,
    )


def _ask_status(stage: Stage) -> None:
    ends = _called(stage, _STATUS, csds_pb2.ClientStatusRequest(), stage.size.calls)
    stage.wrong.extend(end for end in ends if end not in ("OK", "RESOURCE_EXHAUSTED"))


def _clients_reconnect(stage: Stage) -> None:
    """Once knowing nothing, and once with the revision that they hold."""
    size = stage.size
    load = Load(size.clients, size.clients)
    with loading(servers.OURS, stage.address, size.data, load) as clients:
        for do, held in (("open", False), ("reopen", False), ("reopen", True)):
            opened = clients.ask(do, revision=held)
            stage.wrong.extend(["a client that reconnects"] * int(opened["failures"]))
            stage.wrong.extend(opened["errors"])


# 100 Envoys of one address, where 20 may ask for the endpoints of all: room for all clients.
_OF_MANY = ("--names-per-client-max=1500000", "--name-bytes-per-client-max=134217728")

CAUSES = (
    Cause("nothing", "nothing happens", _wait),
    Cause("envoys", "wildcard Envoys connect", _envoys_come_and_go, flags=_OF_MANY),
    Cause(
        "ports",
        "a VMService of many ports appears under them",
        _ports_appear,
        _envoys_connect,
        flags=_OF_MANY,
    ),
    Cause("explain", "Explains of what nearly all VMs match", _explain, _nearly_all_match),
    Cause("file", "a large file arrives", _file_arrives),
    Cause("relist", "everything is listed anew", _relist_all, from_api_server=True),
    Cause("relist-half", "the new list has half", _relist_half, from_api_server=True),
    Cause("absent", "streams name absent services", _absent_named),
    Cause(
        "status",
        "CSDS calls, beside as many Envoys",
        _ask_status,
        _envoys_connect,
        flags=_OF_MANY,
    ),
    Cause("reconnect", "clients reconnect", _clients_reconnect),
)
"""In the order of issue 10's list; the first is what the machine does by itself."""
