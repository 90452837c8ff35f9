"""A stream that says something else than the held objects fails, and so does a broken stream."""

from dataclasses import replace
from typing import Any

import pytest

from tests.conformance.expectation import ACCEPTED
from tests.conformance.told import (
    ContractError,
    Fold,
    NotTold,
    Told,
    ToldEndpoint,
    ToldPort,
    content,
    disagreements,
    disagreements_on_server,
    ready_only,
)
from vmsvc.v1 import endpoint_service_pb2 as pb

HTTP = pb.Port(name="http", port=80, target_port=9376, protocol="TCP")
DNS = pb.Port(name="dns", port=53, target_port=5353, protocol="UDP")


def endpoint(number: int, *, ready: bool = True, uid: str = "") -> pb.Endpoint:
    return pb.Endpoint(
        address=f"10.0.0.{number}",
        vm_name=f"web-{number}",
        vm_uid=uid or f"u-{number}",
        ready=ready,
        zone="a",
    )


def snapshot(version: int, *endpoints: pb.Endpoint) -> pb.WatchEndpointsResponse:
    return pb.WatchEndpointsResponse(
        snapshot=pb.EndpointSet(
            service="shop/web", version=version, ports=[HTTP, DNS], endpoints=endpoints
        )
    )


def delta(version: int, **changes: Any) -> pb.WatchEndpointsResponse:
    return pb.WatchEndpointsResponse(delta=pb.Delta(service="shop/web", version=version, **changes))


def absent(reason: pb.Absent.Reason) -> pb.WatchEndpointsResponse:
    return pb.WatchEndpointsResponse(
        absent=pb.Absent(service="shop/web", reason=reason, message="spec.type: no")
    )


def folded(*messages: pb.WatchEndpointsResponse) -> Told | NotTold:
    fold = Fold()
    for message in messages:
        fold.take(message)
    return fold.services["shop/web"]


def addresses(state: Told | NotTold) -> list[tuple[str, bool]]:
    assert isinstance(state, Told)
    return sorted((e.address, e.ready) for e in state.endpoints)


def test_a_delta_removes_before_it_adds() -> None:
    moved = delta(
        2,
        removed=[pb.EndpointKey(address="10.0.0.1", vm_uid="u-1")],
        upserted=[endpoint(1, uid="u-9"), endpoint(2, ready=False)],
    )
    state = folded(snapshot(1, endpoint(1), endpoint(2)), moved)
    assert addresses(state) == [("10.0.0.1", True), ("10.0.0.2", False)]
    assert isinstance(state, Told)
    assert {e.vm_uid for e in state.endpoints} == {"u-9", "u-2"}


def test_a_delta_changes_ports_only_where_it_says_so() -> None:
    kept = folded(snapshot(1), delta(2))
    changed = folded(snapshot(1), delta(2, ports_changed=True, ports=[DNS]))
    assert isinstance(kept, Told)
    assert [port.name for port in kept.ports] == ["http", "dns"]
    assert isinstance(changed, Told)
    assert [port.name for port in changed.ports] == ["dns"]


def test_absence_ends_what_was_told_and_keeps_the_reason_of_a_refusal() -> None:
    assert folded(snapshot(1), absent(pb.Absent.REASON_NOT_FOUND)) == NotTold(None)
    assert folded(snapshot(1), absent(pb.Absent.REASON_REFUSED)) == NotTold("spec.type: no")


SYNCED = pb.WatchEndpointsResponse(synced=pb.Synced())


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([delta(1)], id="a delta without a snapshot"),
        pytest.param(
            [snapshot(1), absent(pb.Absent.REASON_NOT_FOUND), delta(2)],
            id="a delta after absence",
        ),
        pytest.param([snapshot(2), snapshot(2)], id="a version twice"),
        pytest.param([snapshot(2), delta(1)], id="a version that falls"),
        pytest.param(
            [snapshot(1), delta(2, removed=[pb.EndpointKey(address="10.0.0.1", vm_uid="u-1")])],
            id="a removal of what is not held",
        ),
        pytest.param([snapshot(1), delta(2, ports=[DNS])], id="ports that have not changed"),
        pytest.param([SYNCED, SYNCED], id="synced twice"),
        pytest.param(
            [pb.WatchEndpointsResponse(current=pb.Current(service="shop/web"))],
            id="current, though no revision was sent",
        ),
        pytest.param([pb.WatchEndpointsResponse()], id="a message with nothing in it"),
    ],
)
def test_what_the_contract_does_not_allow_is_an_error(
    messages: list[pb.WatchEndpointsResponse],
) -> None:
    with pytest.raises(ContractError):
        folded(*messages)


PORTS = (ToldPort("http", 80, 9376, "TCP"), ToldPort("dns", 53, 5353, "UDP"))
ENDPOINTS = frozenset(
    {
        ToldEndpoint("10.0.0.1", "u-1", "web-1", ready=True),
        ToldEndpoint("10.0.0.2", "u-2", "web-2", ready=False),
    }
)
TOLD = Told(7, "r", PORTS, ENDPOINTS)
HELD_SERVICE: dict[str, Any] = {
    "spec": {
        "ports": [
            {"name": "http", "port": 80, "targetPort": 9376, "protocol": "TCP"},
            {"name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP"},
        ]
    }
}


def address(number: int, uid: str = "") -> dict[str, Any]:
    target = {"name": f"web-{number}", "uid": uid or f"u-{number}"}
    return {"ip": f"10.0.0.{number}", "targetRef": target}


def held(**changes: Any) -> dict[str, Any]:
    subset = {
        "addresses": [address(1)],
        "notReadyAddresses": [address(2)],
        "ports": [
            {"name": "dns", "port": 5353, "protocol": "UDP"},
            {"name": "http", "port": 9376, "protocol": "TCP"},
        ],
    }
    return {"subsets": [{**subset, **changes}]}


NOTHING = Told(7, "r", PORTS, frozenset())


@pytest.mark.parametrize(
    ("state", "service", "endpoints"),
    [
        pytest.param(TOLD, HELD_SERVICE, held(), id="the same"),
        pytest.param(
            TOLD,
            HELD_SERVICE,
            {
                "subsets": [
                    held(ports=[{"name": "http", "port": 9376, "protocol": "TCP"}])["subsets"][0],
                    held(ports=[{"name": "dns", "port": 5353, "protocol": "UDP"}])["subsets"][0],
                ]
            },
            id="the same, packed in another way",
        ),
        pytest.param(NOTHING, HELD_SERVICE, {"subsets": []}, id="no endpoints"),
        pytest.param(NOTHING, HELD_SERVICE, {}, id="no subsets"),
        pytest.param(NOTHING, HELD_SERVICE, None, id="no selector, so no Endpoints of ours"),
        pytest.param(NotTold(None), None, None, id="nothing told, nothing held"),
        pytest.param(
            Told(7, "r", (), ENDPOINTS),
            {"spec": {}},
            held(ports=None),
            id="headless without ports",
        ),
    ],
)
def test_what_says_the_same_agrees(state: Any, service: Any, endpoints: Any) -> None:
    assert list(disagreements(state, service, endpoints)) == []


@pytest.mark.parametrize(
    ("state", "service", "endpoints"),
    [
        pytest.param(TOLD, HELD_SERVICE, None, id="no Endpoints held"),
        pytest.param(TOLD, None, held(), id="no Service held"),
        pytest.param(NotTold(None), HELD_SERVICE, None, id="a Service held of nothing"),
        pytest.param(NotTold("spec.type: no"), None, held(), id="an Endpoints held of nothing"),
        pytest.param(NOTHING, HELD_SERVICE, held(), id="addresses that are not told"),
        pytest.param(TOLD, HELD_SERVICE, {"subsets": []}, id="addresses that are not held"),
        pytest.param(TOLD, HELD_SERVICE, held(addresses=[address(3)]), id="another address"),
        pytest.param(TOLD, HELD_SERVICE, held(addresses=[address(1, "x")]), id="another uid"),
        pytest.param(
            TOLD,
            HELD_SERVICE,
            held(addresses=[address(1), address(2)], notReadyAddresses=[]),
            id="ready in one, and not in the other",
        ),
        pytest.param(
            TOLD,
            HELD_SERVICE,
            held(ports=[{"name": "http", "port": 9376, "protocol": "TCP"}]),
            id="a port missing in the Endpoints",
        ),
        pytest.param(
            Told(7, "r", PORTS[:1], ENDPOINTS), HELD_SERVICE, held(), id="a port missing in gRPC"
        ),
        pytest.param(
            Told(7, "r", PORTS[::-1], ENDPOINTS), HELD_SERVICE, held(), id="ports in another order"
        ),
    ],
)
def test_what_says_something_else_does_not_agree(state: Any, service: Any, endpoints: Any) -> None:
    assert list(disagreements(state, service, endpoints)) != []


def owned(manifest: dict[str, Any], uid: str = "u-web", **changes: Any) -> dict[str, Any]:
    owner = {"kind": "VirtualMachineService", "name": "web", "uid": uid, "controller": True}
    return {**manifest, "metadata": {"ownerReferences": [{**owner, **changes}]}}


VM_SERVICE: dict[str, Any] = {"spec": {"selector": {"app": "web"}}}
NO_SELECTOR: dict[str, Any] = {"spec": {}}
FAILING: dict[str, Any] = {
    **VM_SERVICE,
    "status": {"conditions": [{"type": ACCEPTED, "status": "False"}]},
}
ACCEPTING: dict[str, Any] = {
    **VM_SERVICE,
    "status": {"conditions": [{"type": ACCEPTED, "status": "True"}]},
}
GONE = NotTold(None)
FREE: dict[str, Any] = {**HELD_SERVICE, "metadata": {}}


@pytest.mark.parametrize(
    ("state", "vm_service", "service", "endpoints", "agrees"),
    [
        pytest.param(TOLD, VM_SERVICE, owned(HELD_SERVICE), owned(held()), True, id="the same"),
        pytest.param(
            TOLD, VM_SERVICE, owned(HELD_SERVICE), owned({"subsets": []}), False, id="not the same"
        ),
        pytest.param(
            TOLD, VM_SERVICE, owned(HELD_SERVICE), owned(held(), "u-x"), False, id="others' hold it"
        ),
        pytest.param(
            TOLD, FAILING, owned(HELD_SERVICE), owned(held(), "u-x"), True, id="and we say so"
        ),
        pytest.param(
            TOLD, FAILING, owned({"spec": {}}), owned(held(), "u-x"), False, id="but no ports"
        ),
        pytest.param(
            TOLD,
            VM_SERVICE,
            owned(HELD_SERVICE),
            owned(held(), controller=False),
            False,
            id="owned, but not controlled",
        ),
        pytest.param(TOLD, VM_SERVICE, owned({"spec": {}}, "u-x"), None, True, id="in the way"),
        pytest.param(TOLD, VM_SERVICE, FREE, owned(held()), True, id="not adopted"),
        pytest.param(TOLD, VM_SERVICE, None, None, False, id="no Service, and nobody says why"),
        pytest.param(TOLD, ACCEPTING, None, None, False, id="no Service, and we say it is well"),
        pytest.param(TOLD, FAILING, None, None, True, id="no Service, and we say why"),
        pytest.param(
            TOLD, FAILING, owned(HELD_SERVICE), owned({}), False, id="we fail, but hold a Service"
        ),
        pytest.param(
            NOTHING, NO_SELECTOR, owned(HELD_SERVICE), owned(held()), True, id="as they were"
        ),
        pytest.param(
            TOLD, NO_SELECTOR, owned(HELD_SERVICE), owned(held()), False, id="nothing to select"
        ),
        pytest.param(GONE, None, owned(HELD_SERVICE), None, False, id="a Service left behind"),
        pytest.param(GONE, None, None, owned(held()), False, id="an Endpoints left behind"),
        pytest.param(GONE, None, owned(HELD_SERVICE, "u-x"), FREE, True, id="others' are left"),
        pytest.param(GONE, None, None, None, True, id="all is gone"),
    ],
)
def test_what_others_have_says_nothing_of_ours(
    state: Any, vm_service: Any, service: Any, endpoints: Any, agrees: bool
) -> None:
    found = list(disagreements_on_server(state, vm_service, {"u-web"}, service, endpoints))
    assert (found == []) is agrees


def test_an_address_without_a_target_is_none_of_ours() -> None:
    edited = {"subsets": [{"addresses": [{"ip": "10.0.0.1"}]}]}
    assert list(disagreements(TOLD, HELD_SERVICE, edited)) != []


def test_a_class_shows_its_own_part_of_the_same() -> None:
    ready = ready_only(TOLD)
    assert addresses(ready) == [("10.0.0.1", True)]
    assert isinstance(ready, Told)
    assert content(ready) == content(replace(ready, version=8, revision="s"))
    assert content(ready) != content(TOLD)
    assert ready_only(GONE) == content(GONE) == GONE
