"""What is left behind in a cache is found, wherever it is."""

from __future__ import annotations

import pytest

from tests.unit.leavings import leavings
from tests.unit.objects import WEB, service, vm
from tests.unit.server.endpoint_service.watching import emptied, synced_cache
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.resolve import AddressRules


@pytest.mark.parametrize(
    "cache",
    [
        pytest.param(Cache(AddressRules()), id="new"),
        pytest.param(synced_cache(), id="synced"),
    ],
)
def test_a_cache_without_objects_has_none(cache: Cache) -> None:
    assert leavings(cache) == []


def test_an_entry_without_content_is_one() -> None:
    cache = synced_cache(service(), vm("a", "10.0.0.1"))
    assert "Cache.services" in leavings(cache)
    emptied(cache)
    assert leavings(cache) == []
    cache.vms._by_label["shop", "app"] = {}
    assert [path.rpartition(".")[2] for path in leavings(cache)] == ["_by_label"]
    del cache.vms._by_label["shop", "app"]
    cache._objects._unreadable[service().kind, "shop"] = {WEB: None}
    assert leavings(cache) == ["Cache._objects._unreadable"]
