"""How much is followed by name, for each client and in all."""

from __future__ import annotations

from collections import Counter
from sys import getsizeof

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.objects import service
from tests.unit.server.endpoint_service.watching import Watcher, emptied, synced_cache
from tests.unit.server.xds.client import CDS, EDS, XdsClient
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.server.call import Code, RpcError
from vmsvc_grpc.server.followed import FollowedNames, StreamNames, kept_bytes
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.xds.shared import Form


def room(**limits: int) -> FollowedNames:
    return FollowedNames(Limits(**limits), Counter())


@pytest.mark.parametrize(
    ("setting", "most", "others_too"),
    [
        pytest.param("names_per_client_max", 3, False, id="names of a client"),
        pytest.param("name_bytes_per_client_max", 9, False, id="bytes of a client"),
        pytest.param("names_max", 3, True, id="names in all"),
        pytest.param("name_bytes_max", 9, True, id="bytes in all"),
    ],
)
def test_at_each_bound_names_are_refused_until_others_are_let_go(
    setting: str, most: int, others_too: bool
) -> None:
    refusals: Counter[str] = Counter()
    followed = FollowedNames(Limits(**{setting: most}), refusals)
    streams = [followed.of("a"), followed.of("a")]
    assert [streams[number % 2].take(f"n{number}é") for number in range(3)] == ["", "", ""]
    assert streams[0].take("n3é") == setting
    assert streams[1].take_all(1, 3) == setting
    assert refusals == {setting: 1}
    assert followed.of("b").take("n4é") == (setting if others_too else "")
    streams[1].give_back("n1é")
    assert streams[0].take("n3é") == ""
    for stream in streams:
        stream.close()
        stream.close()
    assert followed.of("a").take_all(3, 9) in ("", setting if others_too else "")


@pytest.mark.parametrize("widest", ["x", "é", "\ufffd", "😀"])
def test_a_name_counts_for_what_it_takes_in_memory(widest: str) -> None:
    """A single wide character has Python keep all the others as wide."""
    name = "x" * 1_000 + widest
    without_text = 100
    assert 0 <= getsizeof(name) - kept_bytes(name) < without_text
    followed = room()
    watcher = Watcher(synced_cache(service()), _watch_holding(name), names=followed)
    assert followed.name_bytes == kept_bytes(name) + len("shop/web")
    watcher.close()


def _watch_holding(revision: str) -> pb.WatchEndpointsRequest:
    held = pb.WatchedService(service="shop/web", revision=revision)
    return pb.WatchEndpointsRequest(services=[held])


def test_nothing_is_taken_where_not_all_has_room() -> None:
    followed = room(names_per_client_max=10)
    stream = followed.of("a")
    assert stream.take_all(11, 50) == "names_per_client_max"
    assert (followed.names, followed.name_bytes) == (0, 0)


# In bytes of memory, by PEP 393.
_TAKES = {"x": 1, "yy": 2, "é": 1, "\ud800": 2, "x😀": 8}


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(sorted(_TAKES)))))
def test_what_is_counted_is_what_is_followed(steps: list[tuple[int, str]]) -> None:
    """Each step has a stream take a name, or give it back where it has it; then all close."""
    followed = room(names_per_client_max=2, name_bytes_max=9)
    streams = [followed.of(client) for client in ("a", "a", "b", "c")]
    held: list[Counter[str]] = [Counter() for _ in streams]

    def give_or_take(stream: StreamNames, has: Counter[str], name: str) -> None:
        if has[name]:
            has[name] -= 1
            stream.give_back(name)
        elif not stream.take(name):
            has[name] += 1

    for number, name in steps:
        give_or_take(streams[number], held[number], name)
        assert followed.names == sum(has.total() for has in held)
        size = sum(_TAKES[name] * count for has in held for name, count in has.items())
        assert followed.name_bytes == size <= 9
        assert held[0].total() + held[1].total() <= 2
    for stream in streams:
        stream.close()
    assert (followed.names, followed.name_bytes) == (0, 0)
    assert not followed._names._of_client
    assert not followed._bytes._of_client


def _watch(*names: str, **fields: object) -> pb.WatchEndpointsRequest:
    services = [pb.WatchedService(service=name) for name in names]
    return pb.WatchEndpointsRequest(services=services, **fields)  # type: ignore[arg-type]  # its fields


def test_a_watch_that_names_too_much_is_refused_and_others_are_not() -> None:
    cache = synced_cache(service())
    followed = room(names_per_client_max=2)
    first = Watcher(cache, _watch("shop/web", "shop/none"), names=followed)
    with pytest.raises(RpcError, match="names_per_client_max") as refusal:
        Watcher(cache, _watch("shop/web"), names=followed)
    assert (refusal.value.code, refusal.value.limit) == (
        Code.RESOURCE_EXHAUSTED,
        "names_per_client_max",
    )
    everything = Watcher(cache, _watch(all_services=True), names=followed)
    assert everything.stream.next_message() is not None, "it names nothing"
    everything.close()
    first.close()
    assert (followed.names, followed.name_bytes) == (0, 0)
    emptied(cache)


def test_the_names_of_namespaces_count_too() -> None:
    followed = room(names_per_client_max=2)
    with pytest.raises(RpcError, match="names_per_client_max"):
        Watcher(synced_cache(), _watch(namespaces=["a", "b", "c"]), names=followed)


@pytest.mark.parametrize("form", Form, ids=lambda form: form.value)
def test_a_name_too_many_is_one_of_nothing_and_ends_no_stream(form: Form) -> None:
    cache = synced_cache(service())
    followed = room(names_per_client_max=3)
    client, other = (XdsClient(cache, form, names=followed) for _ in range(2))
    ask(client, EDS, "a.b:1", "c.d:1", "web.shop:80")
    assert followed.names == 3
    ask(other, EDS, "web.shop:80")
    assert [setting for _, _, setting in other.excess] == ["names_per_client_max"]
    other.read()
    assert not other.held(EDS)
    client.read()
    assert "web.shop:80" in client.held(EDS)
    client.close()
    assert (followed.names, followed.name_bytes) == (0, 0)
    other.reconnect()
    other.read()
    assert "web.shop:80" in other.held(EDS), "there is room again"
    other.close()
    emptied(cache)


@pytest.mark.parametrize("form", Form, ids=lambda form: form.value)
def test_a_name_that_is_asked_for_no_more_leaves_its_room(form: Form) -> None:
    cache = synced_cache(service())
    followed = room(names_per_client_max=2)
    client = XdsClient(cache, form, names=followed)
    for number in range(20):
        ask(client, EDS, f"n{number}.b:1", f"m{number}.b:1")
        client.read()
        assert followed.names == 2
        if form is Form.DELTA:
            client.change(EDS, unsubscribe=[f"n{number}.b:1", f"m{number}.b:1"])
            client.change(EDS, unsubscribe=[f"n{number}.b:1", "never.b:1"])
            client.read()
            assert followed.names == 0
    assert not client.excess
    client.close()
    assert (followed.names, followed.name_bytes) == (0, 0)


def test_a_wildcard_takes_no_names() -> None:
    followed = room(names_per_client_max=1)
    client = XdsClient(synced_cache(service()), Form.DELTA, names=followed)
    client.change(CDS)
    client.read()
    assert client.held(CDS)
    assert followed.names == 0


@pytest.mark.parametrize("how", ["too long", "no room in the stream", "held", "let go"])
def test_a_name_of_nothing_takes_room_until_it_is_sent(how: str) -> None:
    """A client that does not read kept 1 MiB of them for each type and stream."""
    names = [
        f"n{number:03}".ljust(1_100 if how == "too long" else 10, "x") for number in range(100)
    ]
    followed = FollowedNames(Limits(), Counter())
    client = XdsClient(
        synced_cache(), Form.DELTA, names=followed, limits=Limits(xds_resources_max=0)
    )
    client.change(CDS)
    client.read_all()
    if how == "let go":
        client.change(CDS, [], names)
    elif how == "held":
        client.reconnect()
        client.change(EDS, ["*"], held=dict.fromkeys(names, "x"))
    else:
        client.change(CDS, names)
    assert followed.names == 100
    assert followed.name_bytes == sum(map(kept_bytes, names))
    removed = {name for one in client.read_all() for name in one[1:]}
    assert removed - {"-*"} == {f"-{n}" for n in names}
    assert (followed.names, followed.name_bytes) == (0, 0)
    client.change(CDS, names)
    client.close()
    assert (followed.names, followed.name_bytes) == (0, 0)


def test_a_client_at_its_bound_is_answered_one_name_at_a_time() -> None:
    followed = room(names_per_client_max=2)
    client = XdsClient(synced_cache(), Form.DELTA, names=followed).change(EDS, ["a.b:1", "c.d:1"])
    client.read_all()
    for number in range(5):
        name = f"n{number}.b:1"
        client.change(EDS, [name])
        assert client.read_all() == [("ClusterLoadAssignment", f"-{name}")]
    assert followed.names == 2
    client.change(EDS, [f"n{number}.b:1" for number in range(50)])
    assert client.read_all() == [("ClusterLoadAssignment", "-n0.b:1")]
    client.change(EDS, [], ["a.b:1"])
    assert followed.names == 1


def test_what_a_client_holds_from_before_takes_room_until_it_is_compared() -> None:
    followed = room(names_per_client_max=50)
    client = XdsClient(synced_cache(service()), Form.DELTA, names=followed)
    client.change(EDS, ["web.shop:80"], held={f"n{number}.b:1": "1" for number in range(100)})
    assert followed.names == 50
    client.read()
    assert followed.names == 0
    client.change(EDS, ["web.shop:80"])
    assert followed.names == 1
    client.close()
    assert (followed.names, followed.name_bytes) == (0, 0)


def ask(client: XdsClient, type_url: object, *names: str) -> None:
    if client.form is Form.SOTW:
        client.ask(type_url, *names)  # type: ignore[arg-type]  # a TypeUrl
    else:
        client.change(type_url, names)  # type: ignore[arg-type]  # a TypeUrl
