"""What the tests of xDS ask about: a cache with the service `web`, and what happens to it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.objects import WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import synced_cache
from tests.unit.server.xds.client import CDS, EDS, LDS, RDS, Told, XdsClient, node
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply, Delete
from vmsvc_grpc.model.objects import Key, Kind, ServicePort
from vmsvc_grpc.server.xds.resources import TypeUrl
from vmsvc_grpc.server.xds.shared import Form

NAME = "web.shop:80"
API = Key("shop", "api")
OTHER = Key("lab", "web")
ENVOY = node("envoy")

C, E, L, R = (type_url.label for type_url in (CDS, EDS, LDS, RDS))
BOTH = pytest.mark.parametrize("form", Form, ids=lambda form: form.value)


def cache(*others: Any) -> Cache:
    return synced_cache(service(), vm("a", "10.0.0.1"), *others)


def ask(client: XdsClient, type_url: TypeUrl, *names: str) -> XdsClient:
    """Ask for names in the client's form."""
    if client.form is Form.SOTW:
        return client.ask(type_url, *names)
    return client.change(type_url, names)


def move(served: Cache, address: str) -> None:
    served.apply(Apply(vm("a", address)))


def remove(served: Cache, key: Key = WEB) -> None:
    served.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, key))


def ports(*numbers: int) -> Any:
    return spec(ports=tuple(ServicePort(f"p{n}", "TCP", n, 9000 + n) for n in numbers))


def nothing(form: Form, label: str) -> list[Told]:
    """The answer to a wildcard that covers nothing: not each Envoy takes an empty one of it."""
    return [(label, "-*")] if (form, label) == (Form.DELTA, C) else [(label,)]
