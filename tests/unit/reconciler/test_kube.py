"""What an API server's refusal of a write means."""

from __future__ import annotations

import pytest

from vmsvc_grpc.kube.client import ApiServerError
from vmsvc_grpc.model.objects import Key, ObjectMeta, StoredService, VirtualMachineService
from vmsvc_grpc.reconciler.kube import _refused_change
from vmsvc_grpc.reconciler.plan import Change
from vmsvc_grpc.reconciler.store import ChangeError, Conflict, Gone

META = ObjectMeta(key=Key("shop", "web"), uid="u", resource_version="1")
SERVICE = StoredService(meta=META)
VMSERVICE = VirtualMachineService(meta=META, spec=None)

CREATE = Change(None, SERVICE)
UPDATE = Change(SERVICE, SERVICE)
DELETE = Change(SERVICE, None)
STATUS = Change(VMSERVICE, VMSERVICE)

ABSENT = ApiServerError(404, 'services "web" not found', reason="NotFound")
PAGE = ApiServerError(404, "404 page not found")


@pytest.mark.parametrize(
    ("change", "error", "meaning"),
    [
        pytest.param(UPDATE, ABSENT, Gone, id="an object that is not there is gone"),
        pytest.param(DELETE, ABSENT, Gone, id="the same of one that is to be deleted"),
        pytest.param(UPDATE, PAGE, ChangeError, id="a proxy's 404 says nothing of the object"),
        pytest.param(DELETE, PAGE, ChangeError, id="nor does it of one to be deleted"),
        pytest.param(CREATE, ABSENT, ChangeError, id="a namespace that is not there"),
        pytest.param(STATUS, ABSENT, Conflict, id="a VMService: the watch tells"),
        pytest.param(STATUS, PAGE, Conflict, id="a version that is served no more: the same"),
        pytest.param(UPDATE, ApiServerError(409, "changed"), Conflict, id="somebody was first"),
    ],
)
def test_a_refusal(change: Change, error: ApiServerError, meaning: type[Exception]) -> None:
    assert type(_refused_change(change, error)) is meaning
