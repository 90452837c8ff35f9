"""What an API server's refusal of a write means."""

from __future__ import annotations

import pytest

from vmsvc_grpc.kube.errors import NAMESPACE_TERMINATING, ApiServerError
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
CHANGED = ApiServerError(409, "the object has been modified", reason="Conflict")
GOING = ApiServerError(
    403, "unable to create", reason="Forbidden", causes=frozenset({NAMESPACE_TERMINATING})
)
WEBHOOK = 'admission webhook "w.example.com" denied the request: not today'


def denied(status: int, reason: str) -> ApiServerError:
    """What a webhook of somebody's says, with a status of its own choice."""
    return ApiServerError(status, WEBHOOK, reason=reason)


@pytest.mark.parametrize(
    ("change", "error", "meaning", "said"),
    [
        pytest.param(UPDATE, ABSENT, Gone, "", id="an object that is not there is gone"),
        pytest.param(DELETE, ABSENT, Gone, "", id="the same of one that is to be deleted"),
        pytest.param(
            UPDATE,
            PAGE,
            ChangeError,
            "cannot update Service shop/web: 404 page not found",
            id="a proxy's 404 says nothing of the object",
        ),
        pytest.param(
            DELETE,
            PAGE,
            ChangeError,
            "cannot delete Service shop/web: 404 page not found",
            id="nor does it of one to be deleted",
        ),
        pytest.param(
            CREATE, ABSENT, ChangeError, "cannot create Service shop/web: ", id="no such namespace"
        ),
        pytest.param(
            STATUS, ABSENT, Conflict, "it is not there any more", id="a VMService: the watch tells"
        ),
        pytest.param(
            STATUS,
            PAGE,
            Conflict,
            "it is not served as v1alpha6 (404 page not found)",
            id="a version that is served no more: the same",
        ),
        pytest.param(
            UPDATE,
            CHANGED,
            Conflict,
            "it was not as we had read it (the object has been modified)",
            id="somebody was first",
        ),
        pytest.param(
            CREATE,
            GOING,
            Conflict,
            "namespace shop is being deleted",
            id="a namespace that is being deleted",
        ),
        pytest.param(
            UPDATE,
            denied(404, "NotFound"),
            ChangeError,
            WEBHOOK,
            id="a webhook's 404 is no absence",
        ),
        pytest.param(
            UPDATE,
            denied(409, "Conflict"),
            ChangeError,
            WEBHOOK,
            id="a webhook's 409 is no conflict",
        ),
        pytest.param(
            STATUS, denied(404, "NotFound"), ChangeError, WEBHOOK, id="a webhook on VMServices"
        ),
        pytest.param(UPDATE, denied(403, "Forbidden"), ChangeError, WEBHOOK, id="a webhook's 403"),
        *(
            pytest.param(
                UPDATE,
                ApiServerError(status, "in the API server's words", reason=reason),
                ChangeError,
                "cannot update Service shop/web: in the API server's words",
                id=f"{status} {reason}",
            )
            for status, reason in (
                (400, "BadRequest"),
                (401, "Unauthorized"),
                (403, "Forbidden"),
                (410, "Expired"),
                (413, "RequestEntityTooLarge"),
                (422, "Invalid"),
                (429, "TooManyRequests"),
                (500, "InternalError"),
                (503, "ServiceUnavailable"),
                (504, "Timeout"),
                (0, ""),
            )
        ),
    ],
)
def test_a_refusal(
    change: Change, error: ApiServerError, meaning: type[Exception], said: str
) -> None:
    found = _refused_change(change, error)
    assert type(found) is meaning
    assert said in str(found)
