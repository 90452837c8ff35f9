"""Clients of deltas that come back with all that they hold: their requests are not too large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2 as pb

from tests.unit.objects import service, vm
from tests.unit.server.endpoint_service.watching import synced_cache
from tests.unit.server.xds.client import CDS, EDS, Release, XdsClient, node
from vmsvc_grpc.model.events import Apply, Delete
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.server.fields import counted, shape_of
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.xds.requests import RESUMING_FIELDS, asked_bytes, resuming_bytes
from vmsvc_grpc.server.xds.resources import TypeUrl, resource_version
from vmsvc_grpc.server.xds.shared import Form

LIMITS = Limits()
SHAPE = shape_of(pb.DeltaDiscoveryRequest.DESCRIPTOR)
# An Envoy lists its extensions with what it says of itself: some hundred KB.
NODE = node("envoy", "x" * 128 * 1024)


def resuming(type_url: TypeUrl, held: Sequence[str], asked: Sequence[str]) -> bytes:
    """The first request of a stream, of a client that holds these."""
    request: Any = pb.DeltaDiscoveryRequest(type_url=type_url.value, node=NODE)
    request.resource_names_subscribe.extend(asked)
    for number, name in enumerate(held):
        request.initial_resource_versions[name] = resource_version((number + 1) << 100)
    return bytes(request.SerializeToString())


def names(count: int) -> list[str]:
    return [f"service-{n // 4:05}.name-space:{8080 + n % 4}" for n in range(count)]


@pytest.mark.parametrize(
    ("type_url", "count", "by_name"),
    [
        pytest.param(CDS, 80_000, False, id="all clusters of 20,000 services with four ports"),
        pytest.param(EDS, LIMITS.xds_resources_max, True, id="as many as may be asked for"),
    ],
)
def test_by_default_all_that_a_client_may_hold_fits(
    type_url: TypeUrl, count: int, by_name: bool
) -> None:
    held = names(count)
    assert len(held[0]) == 29
    request = resuming(type_url, held, held if by_name else [])
    assert len(request) <= LIMITS.message_bytes_max
    *_, fields = counted(request, SHAPE)
    assert fields <= LIMITS.request_fields_max


class Measured(XdsClient):
    """A client whose requests are measured."""

    requests: list[int]

    def connect(self) -> None:
        super().connect()
        self.requests = []

    def _send(self, request: Any) -> None:
        self.requests.append(request.ByteSize())
        super()._send(request)


@pytest.mark.parametrize("form", Form, ids=lambda form: form.value)
@pytest.mark.parametrize("letter", ["a", "\u00e4"])
def test_names_are_followed_as_far_as_they_fit_when_their_client_comes_back(
    form: Form, letter: str
) -> None:
    """However long they are: a request that is too large would end its stream, again and again."""
    limits = Limits(message_bytes_max=40_000, names_per_client_max=1_000)
    long = [f"{letter * 150}-{number:03}" for number in range(300)]
    client = Measured(synced_cache(service(), vm("a", "10.0.0.1")), form, limits=limits)
    for number in range(0, len(long), 20):
        if form is Form.SOTW:
            client.ask(EDS, *long[: number + 20])
        else:
            client.change(EDS, long[number : number + 20])
        client.read_all()
    followed = client.stream.subscriptions[EDS].names
    # In the state of the world, each name is said once, and no version.
    size = asked_bytes(long[0]) if form is Form.SOTW else resuming_bytes(long[0])
    assert len(followed) == 40_000 * 15 // 16 // size
    assert client.counts.refusals["message_bytes_max"] >= len(long) - len(followed)
    assert client.excess[0][2] == "message_bytes_max"
    assert client.names.names == len(followed)
    # All of them held, in versions of ours, is the most that there can be.
    asked = client.asked(EDS)
    asked.names = set(followed)
    asked.versions = {name: resource_version(1 << 100) for name in followed}
    client.reconnect()
    assert max(client.requests) <= 40_000
    assert len(client.stream.subscriptions[EDS].names) == len(followed)


@pytest.mark.parametrize(("form", "followed"), [(Form.SOTW, 375), (Form.DELTA, 93)])
def test_a_name_takes_one_field_and_three_more_with_its_version(form: Form, followed: int) -> None:
    wanted = [f"n{number}.shop:80" for number in range(400)]
    client = XdsClient(synced_cache(), form, limits=Limits(request_fields_max=400))
    if form is Form.SOTW:
        client.ask(EDS, *wanted)
    else:
        client.change(EDS, wanted)
    client.read_all()
    assert len(client.stream.subscriptions[EDS].names) == followed
    assert client.counts.refusals == {"request_fields_max": 400 - followed}


@pytest.mark.parametrize(
    ("setting", "most"), [("message_bytes_max", 20_000), ("request_fields_max", 1_600)]
)
def test_names_beside_a_wildcard_are_followed_as_far_as_both_fit(setting: str, most: int) -> None:
    """An Envoy that asks for clusters on demand says again what it holds by the wildcard, too."""
    limits = Limits(**{setting: most})
    served = synced_cache(*(service(Key("shop", f"service-{number:04}")) for number in range(300)))
    client = Measured(served, Form.DELTA, limits=limits)
    client.change(CDS)
    client.read_all()
    wanted = [f"on-demand-{number:04}.shop:80" for number in range(400)]
    for name in wanted:
        client.change(CDS, [name])
        served.apply(Apply(service(Key("shop", name.partition(".")[0]))))
        client.read_all()
    followed = client.stream.subscriptions[CDS].names
    assert 50 < len(followed) < 300
    assert client.counts.refusals == {setting: len(wanted) - len(followed)}
    assert client.excess[0][2] == setting
    for name in wanted[len(followed) :]:
        served.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, Key("shop", name.partition(".")[0])))
    client.read_all()
    asked = client.asked(CDS)
    asked.names = set(followed)
    request = resuming(CDS, sorted(asked.versions), ["*", *followed])
    *_, fields = counted(request, SHAPE)
    said = len(request) - NODE.ByteSize() if setting == "message_bytes_max" else fields
    assert said <= most
    client.reconnect()
    assert client.stream.subscriptions[CDS].names.keys() == followed.keys()
    assert client.read_all() == []


@pytest.mark.parametrize(
    ("services", "settings", "fits"),
    [
        pytest.param(20_000, {}, True, id="20,000"),
        pytest.param(45_000, {}, True, id="45,000"),
        pytest.param(50_000, {}, False, id="50,000"),
        pytest.param(
            100_000,
            {
                "message_bytes_max": 16 * 1024 * 1024,
                "request_fields_max": 1_000_000,
                "xds_resources_max": 100_000,
            },
            True,
            id="100,000 by the settings in the README",
        ),
    ],
)
def test_how_many_services_an_envoy_can_follow(
    services: int, settings: dict[str, int], fits: bool
) -> None:
    """It has all clusters by the wildcard, and asks for the endpoints of each by name."""
    limits = Limits(**settings)
    held = names(services)
    # The names that a stream follows are bounded as `Intake` does, an Envoy's node aside.
    size = sum(map(resuming_bytes, held))
    fields = RESUMING_FIELDS * services
    assert fits is (
        services <= limits.xds_resources_max
        and size <= limits.message_bytes_max * 15 / 16
        and fields <= limits.request_fields_max * 15 / 16
    )
    for type_url, asked in ((CDS, []), (EDS, held)):
        request = resuming(type_url, held, asked)
        *_, fields = counted(request, SHAPE)
        if fits:
            assert len(request) <= limits.message_bytes_max
            assert fields <= limits.request_fields_max


def test_a_name_that_is_let_go_makes_room_for_another() -> None:
    limits = Limits(message_bytes_max=1_000)
    client = XdsClient(synced_cache(service()), Form.DELTA, limits=limits)
    first, second = "a" * 400, "b" * 400
    client.change(EDS, [first]).change(EDS, [first, second])
    assert list(client.stream.subscriptions[EDS].names) == [first]
    client.change(EDS, [], [first]).change(EDS, [second])
    assert list(client.stream.subscriptions[EDS].names) == [second]
    client.change(EDS, [], [second])
    assert client.stream.subscriptions[EDS].resuming_bytes == 0


def test_what_a_wildcard_holds_is_compared_however_much_it_is() -> None:
    """Names that are asked for have a bound, and what is held of a wildcard has none."""
    others = [service(Key("shop", f"s{number}")) for number in range(10)]
    served = synced_cache(*others)
    client = XdsClient(served, Form.DELTA, limits=Limits(xds_resources_max=3)).change(CDS)
    client.read_all()
    served.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, Key("shop", "s9")))
    client.reconnect()
    assert client.read_all() == [("Cluster", "-s9.shop:80")]
    assert len(client.held(CDS)) == 9
    assert client.counts.refusals == {}


@pytest.mark.parametrize("type_url", TypeUrl, ids=lambda type_url: type_url.label)
@pytest.mark.parametrize("who", ["envoy", "gRPC Go"])
@pytest.mark.parametrize("looks_max", [1, 128])
@pytest.mark.parametrize("asked", [[], ["*"], ["gone.shop:80"], ["other.shop:80", "*"]], ids=str)
def test_what_is_held_and_does_not_exist_is_removed(
    type_url: TypeUrl, who: str, looks_max: int, asked: list[str]
) -> None:
    """An Envoy kept a listener of another server: we have none for it, and said nothing."""
    served = synced_cache(service(), vm("a", "10.0.0.1"))
    client = XdsClient(served, Form.DELTA, who=node(who), looks_max=looks_max)
    stale = ["gone.shop:80", "listener_0", "", "xdstp://a/b?c=d", "web.shop:99"]
    client.change(type_url, asked, held=dict.fromkeys(stale, "1"))
    told = [name for one in client.read_all() for name in one[1:]]
    assert {f"-{name}" for name in stale} <= set(told)
    has_any = who != "envoy" or type_url is not TypeUrl.LISTENER
    assert ("web.shop:80" in told) is (has_any and ("*" in asked or not asked))
    assert not client.stream.subscriptions[type_url].claimed
    assert client.read_all() == []
    client.close()


@pytest.mark.parametrize(
    ("before", "after", "breaks"),
    [
        pytest.param(1, 3, False, id="versions that say nothing of clusters"),
        pytest.param(0, 2, True, id="a stream that breaks before the endpoints come"),
    ],
)
def test_a_cluster_of_another_release_brings_its_endpoints(
    before: int, after: int, breaks: bool
) -> None:
    """The property machine seldom comes here: each has one way alone to be known."""
    served = synced_cache(service(), vm("a", "10.0.0.1"))
    client = XdsClient(served, Form.DELTA, who=node("envoy"), resources=Release(before))
    client.change(CDS, ["web.shop:80"]).read_all()
    client.change(EDS, ["web.shop:80"]).read_all()
    for topic in served._topics._topics.values():
        topic.current.encoded.clear()  # Releases share no process.
    client.upgrade(Release(after))
    if breaks:
        client.reconnect()
        client.read()
        assert client.warming
    client.reconnect(between=3)
    client.read_all()
    assert client.warming == set()
    client.close()


@pytest.mark.parametrize("digest", [0, 1, 1 << 63, 1 << 64, (1 << 128) - 1])
def test_a_version_has_11_characters(digest: int) -> None:
    assert len(resource_version(digest)) == 11
