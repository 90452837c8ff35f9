"""Which Events are recorded for a person, and which are not."""

from __future__ import annotations

import pytest

from tests.unit.objects import WEB, service
from vmsvc_grpc.model.objects import (
    ObjectMeta,
    StoredAddress,
    StoredEndpoints,
    StoredService,
    Subset,
)
from vmsvc_grpc.reconciler import notice
from vmsvc_grpc.reconciler.held import Failure
from vmsvc_grpc.reconciler.notice import Notice
from vmsvc_grpc.reconciler.plan import Change

META = ObjectMeta(key=WEB, uid="u")
SERVICE = StoredService(meta=META)
ENDPOINTS = StoredEndpoints(meta=META)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(
            Change(None, SERVICE),
            Notice(False, "CreateService", "CreateK8sServiceSuccess", "CreateK8sService success"),
            id="a Service created",
        ),
        pytest.param(
            Change(SERVICE, SERVICE),
            Notice(False, "UpdateService", "UpdateK8sServiceSuccess", "UpdateK8sService success"),
            id="a Service changed",
        ),
        pytest.param(
            Change(SERVICE, None),
            Notice(False, "DeleteService", "DeleteK8sServiceSuccess", "DeleteK8sService success"),
            id="a Service deleted",
        ),
        pytest.param(Change(None, ENDPOINTS), None, id="Endpoints, which change all the time"),
        pytest.param(Change(service(), service()), None, id="the VMService itself"),
    ],
)
def test_changes(change: Change, told: Notice | None) -> None:
    assert notice.of_change(change) == told


def test_failures() -> None:
    failure = Failure("Invalid", "spec.type: is not supported")
    assert notice.of_failure(failure) == Notice(True, "Reconcile", *failure)


def endpoints(*subsets: tuple[int, int]) -> StoredEndpoints:
    one = StoredAddress("10.0.0.1", None)
    return StoredEndpoints(
        meta=META, subsets=tuple(Subset((one,) * m, (one,) * n, ()) for m, n in subsets)
    )


@pytest.mark.parametrize(
    ("held", "told"),
    [
        pytest.param(None, False, id="no Endpoints"),
        pytest.param(endpoints(), False, id="no addresses"),
        pytest.param(endpoints((1000, 0)), False, id="as many as are mirrored"),
        pytest.param(endpoints((999, 2)), True, id="more, ready and not"),
        pytest.param(endpoints((700, 0), (700, 0)), False, id="more, in two subsets"),
    ],
)
def test_sizes(held: StoredEndpoints | None, told: bool) -> None:
    size = notice.of_size(held)
    assert (size is not None) == told
    assert size is None or (size.warning and "--endpoint-slices=direct" in size.note)
