"""Which stored object is ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from vmsvc_grpc.model.objects import (
    GROUP,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    NEWEST_API_VERSION,
    SERVICE_NAME_LABEL,
    Key,
    Kind,
    ObjectMeta,
    OwnerReference,
    StoredAddress,
    StoredEndpoints,
    StoredEndpointSlice,
    StoredService,
    Subset,
    made_uid,
)
from vmsvc_grpc.model.ownership import (
    Obstacle,
    endpoints_trace,
    is_adoptable,
    is_controlled,
    is_controlled_by,
    is_left_behind,
    is_our_slice,
    is_owned,
    is_to_nobody,
    is_vmservice,
    obstacle,
    service_of_slice,
    service_trace,
)

WEB = Key("shop", "web")
UID = "u1"


def owner(
    uid: str = UID,
    *,
    api_version: str = NEWEST_API_VERSION,
    kind: str = "VirtualMachineService",
    name: str = "web",
    controller: bool = True,
) -> OwnerReference:
    return OwnerReference(api_version, kind, name, uid, controller)


OURS = owner()
FORMER = owner("u0")
OF_ANOTHER_NAME = owner(name="db")
NOT_CONTROLLING = owner(controller=False)
OLD_VERSION = owner(api_version=f"{GROUP}/v1alpha1")
NEWER_THAN_KNOWN = owner(api_version=f"{GROUP}/v2")
OTHER_GROUP = owner(api_version="example.com/v1alpha6")
GROUP_AS_PREFIX = owner(api_version=f"{GROUP}.example.com/v1")
NO_GROUP = owner(api_version="v1")
OTHER_KIND = owner(kind="VirtualMachine")
POD_SET = owner("u2", api_version="apps/v1", kind="ReplicaSet")


def meta(*owners: OwnerReference, key: Key = WEB) -> ObjectMeta:
    return ObjectMeta(key=key, uid="u9", owner_references=owners)


def service(
    *owners: OwnerReference, key: Key = WEB, selector: Mapping[str, str] | None = None
) -> StoredService:
    return StoredService(meta=meta(*owners, key=key), selector=selector or {})


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        pytest.param(OURS, True, id="ours"),
        pytest.param(OLD_VERSION, True, id="an older version"),
        pytest.param(NEWER_THAN_KNOWN, True, id="a newer version than is known"),
        pytest.param(OF_ANOTHER_NAME, True, id="another name"),
        pytest.param(OTHER_GROUP, False, id="another group"),
        pytest.param(GROUP_AS_PREFIX, False, id="a group that begins like ours"),
        pytest.param(NO_GROUP, False, id="the core group"),
        pytest.param(OTHER_KIND, False, id="another kind of the group"),
        pytest.param(POD_SET, False, id="something else"),
    ],
)
def test_which_owner_is_a_vmservice(reference: OwnerReference, expected: bool) -> None:
    assert is_vmservice(reference) is expected


MADE_UP = owner(made_uid(Kind.VIRTUAL_MACHINE_SERVICE, WEB))


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        pytest.param(MADE_UP, True, id="by the uid that we made up"),
        pytest.param(MADE_UP._replace(controller=False), True, id="not as the controller"),
        pytest.param(OURS, False, id="by a uid that was given"),
        pytest.param(OURS._replace(uid=""), False, id="by none"),
        pytest.param(OF_ANOTHER_NAME._replace(uid=MADE_UP.uid), False, id="by another's"),
        pytest.param(OTHER_KIND._replace(uid=MADE_UP.uid), False, id="to another kind"),
    ],
)
def test_which_reference_is_to_nobody(reference: OwnerReference, expected: bool) -> None:
    assert is_to_nobody(reference, meta(reference)) is expected


@pytest.mark.parametrize(
    ("owners", "owned", "controlled", "by_this_one", "left_behind"),
    [
        pytest.param((), False, False, False, False, id="nobody's"),
        pytest.param((OURS,), True, True, True, False, id="this VMService's"),
        pytest.param((POD_SET._replace(controller=False), OURS), True, True, True, False, id="two"),
        pytest.param((OLD_VERSION,), True, True, True, False, id="by an older version"),
        pytest.param((FORMER,), True, True, False, True, id="a former one's of the name"),
        pytest.param((OF_ANOTHER_NAME,), True, False, False, False, id="another VMService's"),
        pytest.param((NOT_CONTROLLING,), True, False, False, False, id="owned, not controlled"),
        pytest.param((POD_SET, NOT_CONTROLLING), True, False, False, False, id="shared"),
        pytest.param((OTHER_GROUP,), False, False, False, False, id="a namesake's"),
        pytest.param((OTHER_KIND,), False, False, False, False, id="a VM's"),
        pytest.param((POD_SET,), False, False, False, False, id="somebody else's"),
    ],
)
def test_whose_an_object_is(
    owners: tuple[OwnerReference, ...],
    owned: bool,
    controlled: bool,
    by_this_one: bool,
    left_behind: bool,
) -> None:
    held = meta(*owners)
    assert is_owned(held) is owned
    assert is_controlled(held) is controlled
    assert is_controlled_by(held, UID) is by_this_one
    assert is_left_behind(held, UID) is left_behind


@pytest.mark.parametrize(
    ("child", "expected"),
    [
        pytest.param(service(), None, id="nobody's: adopted"),
        pytest.param(service(OURS), None, id="ours"),
        pytest.param(service(OURS, selector={"a": "b"}), None, id="ours, given a selector"),
        pytest.param(service(FORMER, selector={"a": "b"}), None, id="a former one's"),
        pytest.param(
            service(NOT_CONTROLLING, selector={"a": "b"}), None, id="owned by us, with a selector"
        ),
        pytest.param(
            service(owner("u0", controller=False), selector={"a": "b"}),
            Obstacle.SELECTOR,
            id="owned by a former one, with a selector",
        ),
        pytest.param(service(selector={"a": "b"}), Obstacle.SELECTOR, id="it serves pods"),
        pytest.param(service(POD_SET), Obstacle.CONTROLLER, id="somebody's"),
        pytest.param(
            service(POD_SET, NOT_CONTROLLING), Obstacle.CONTROLLER, id="somebody's, owned by us too"
        ),
        pytest.param(service(OF_ANOTHER_NAME), Obstacle.CONTROLLER, id="another VMService's"),
        pytest.param(service(OTHER_GROUP), Obstacle.CONTROLLER, id="a namesake's"),
        pytest.param(
            service(key=Key("default", "kubernetes")),
            Obstacle.API_SERVER,
            id="the API server's own, though nobody controls it",
        ),
        pytest.param(
            StoredEndpoints(meta=meta(key=Key("default", "kubernetes"))),
            Obstacle.API_SERVER,
            id="the API server's own Endpoints",
        ),
        pytest.param(
            StoredEndpoints(meta=meta(owner(name="kubernetes"), key=Key("default", "kubernetes"))),
            Obstacle.API_SERVER,
            id="or what a VMService has taken of them",
        ),
        pytest.param(StoredEndpoints(meta=meta()), None, id="Endpoints of nobody"),
        pytest.param(StoredEndpoints(meta=meta(OURS)), None, id="our Endpoints"),
        pytest.param(StoredEndpoints(meta=meta(FORMER)), None, id="a former one's Endpoints"),
        pytest.param(
            StoredEndpoints(meta=meta(POD_SET)), Obstacle.CONTROLLER, id="somebody's Endpoints"
        ),
    ],
)
def test_what_is_in_the_way(
    child: StoredService | StoredEndpoints, expected: Obstacle | None
) -> None:
    assert obstacle(child, UID) is expected


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        pytest.param(service(), True, id="nobody's, with no selector"),
        pytest.param(service(POD_SET._replace(controller=False)), True, id="owned, not controlled"),
        pytest.param(service(selector={"a": "b"}), False, id="with a selector"),
        pytest.param(service(POD_SET), False, id="controlled"),
    ],
)
def test_which_service_may_be_adopted(stored: StoredService, expected: bool) -> None:
    assert is_adoptable(stored) is expected


FULL = ObjectMeta(
    key=WEB,
    uid="u9",
    resource_version="7",
    labels={"a": "b"},
    annotations={"c": "d"},
    finalizers=("example.com/f",),
)
ADDRESSES = (Subset((StoredAddress("192.0.2.1", None),), (), ()),)


def full_service(*owners: OwnerReference, **fields: Any) -> StoredService:
    held = replace(FULL, owner_references=owners)
    return StoredService(meta=held, type="ClusterIP", ip_families=("IPv6",), **fields)


def full_endpoints(*owners: OwnerReference) -> StoredEndpoints:
    return StoredEndpoints(meta=replace(FULL, owner_references=owners), subsets=ADDRESSES)


@pytest.mark.parametrize(
    "held",
    [
        pytest.param(full_service(OURS), id="ours"),
        pytest.param(full_service(FORMER, selector={"a": "b"}), id="a former one's"),
        pytest.param(full_service(NOT_CONTROLLING, selector={"a": "b"}), id="owned"),
        pytest.param(full_service(OF_ANOTHER_NAME), id="of a VMService of another name"),
        pytest.param(full_service(), id="it may be adopted"),
        pytest.param(full_service(POD_SET._replace(controller=False)), id="and has another owner"),
    ],
)
def test_a_service_that_is_ours_or_may_be_is_kept_whole(held: StoredService) -> None:
    assert service_trace(held) == held


@pytest.mark.parametrize("owners", [(OURS,), (FORMER,), (POD_SET, NOT_CONTROLLING)])
def test_endpoints_that_a_vmservice_owns_are_kept_whole(owners: tuple[OwnerReference, ...]) -> None:
    assert endpoints_trace(full_endpoints(*owners)) == full_endpoints(*owners)


def _controlled(*owners: OwnerReference) -> ObjectMeta:
    return ObjectMeta(key=WEB, uid="", resource_version="7", owner_references=owners)


@pytest.mark.parametrize(
    ("held", "kept"),
    [
        pytest.param(
            full_service(POD_SET, POD_SET._replace(uid="u3", controller=False)),
            StoredService(meta=_controlled(POD_SET), ip_families=("IPv6",)),
            id="who controls it, and its families",
        ),
        pytest.param(
            full_service(POD_SET, selector={"a": "b"}, cluster_ip="10.0.0.1"),
            StoredService(meta=_controlled(POD_SET), selector={"": ""}, ip_families=("IPv6",)),
            id="that it selects something",
        ),
        pytest.param(
            full_service(selector={"a": "b", "c": "d"}),
            StoredService(meta=_controlled(), selector={"": ""}, ip_families=("IPv6",)),
            id="nobody's, and it selects something",
        ),
        pytest.param(
            full_service(OTHER_GROUP),
            StoredService(meta=_controlled(OTHER_GROUP), ip_families=("IPv6",)),
            id="a namesake's",
        ),
    ],
)
def test_of_anothers_service_a_trace_is_kept(held: StoredService, kept: StoredService) -> None:
    assert service_trace(held) == kept
    assert service_trace(kept) == kept
    assert obstacle(kept, UID) is obstacle(held, UID)
    assert obstacle(held, UID) is not None


def test_of_anothers_endpoints_a_trace_is_kept() -> None:
    held = full_endpoints(POD_SET, POD_SET._replace(uid="u3", controller=False))
    kept = endpoints_trace(held)
    assert kept == StoredEndpoints(meta=_controlled(POD_SET))
    assert endpoints_trace(kept) == kept
    assert obstacle(kept, UID) is obstacle(held, UID) is Obstacle.CONTROLLER


def test_of_endpoints_of_nobody_all_is_kept_that_adoption_keeps() -> None:
    other = POD_SET._replace(controller=False)
    whole = replace(FULL, owner_references=(other,))
    kept = endpoints_trace(full_endpoints(other))
    assert kept == StoredEndpoints(meta=replace(whole, labels={}, annotations={}))
    assert obstacle(kept, UID) is None


def slice_(*owners: OwnerReference, **labels: str) -> StoredEndpointSlice:
    given = {"name": SERVICE_NAME_LABEL, "managed_by": MANAGED_BY_LABEL}
    held = ObjectMeta(
        key=Key("shop", "web-ipv4-0"),
        uid="u9",
        labels={given[label]: value for label, value in labels.items()},
        owner_references=owners,
    )
    return StoredEndpointSlice(meta=held, address_type="IPv4")


@pytest.mark.parametrize(
    ("held", "of", "ours"),
    [
        pytest.param(slice_(OURS, name="web", managed_by=MANAGED_BY), "web", True, id="ours"),
        pytest.param(slice_(FORMER, managed_by=MANAGED_BY), "web", True, id="a former one's"),
        pytest.param(slice_(OURS, name="db", managed_by=MANAGED_BY), "web", True, id="relabelled"),
        pytest.param(slice_(OURS, name="web"), "web", False, id="without the managed-by label"),
        pytest.param(
            slice_(OURS, name="web", managed_by="somebody"), "web", False, id="managed by another"
        ),
        pytest.param(
            slice_(name="web", managed_by=MANAGED_BY), "web", False, id="without a controller"
        ),
        pytest.param(
            slice_(NOT_CONTROLLING, name="db", managed_by=MANAGED_BY),
            "db",
            False,
            id="owned, not controlled",
        ),
        pytest.param(
            slice_(POD_SET, name="db", managed_by=MANAGED_BY), "db", False, id="somebody else's"
        ),
        pytest.param(
            slice_(OTHER_GROUP, name="db", managed_by=MANAGED_BY), "db", False, id="a namesake's"
        ),
        pytest.param(slice_(), "", False, id="of no service"),
    ],
)
def test_whose_a_slice_is(held: StoredEndpointSlice, of: str, ours: bool) -> None:
    assert service_of_slice(held) == Key("shop", of)
    assert is_our_slice(held) is ours
