"""Whatever happens in whatever order: a client of xDS ends with what the cache holds."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import pytest
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3 import discovery_pb2 as pb
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.gate import RightsGate
from tests.unit.leavings import leavings
from tests.unit.objects import service, spec, vm
from tests.unit.server.endpoint_service.test_watch_property import events
from tests.unit.server.endpoint_service.watching import KINDS, emptied, listed
from tests.unit.server.xds.client import (
    CDS,
    EDS,
    LDS,
    RDS,
    WHOLE,
    Release,
    Told,
    XdsClient,
    node,
    truth,
    unpacked,
)
from vmsvc_grpc.cache import changes, evaluation, membership
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.endpoints import EndpointSet, FilterClass
from vmsvc_grpc.model.events import Apply, Event, Init, InitDone
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.server.access.needs import Need, endpoints_everywhere, endpoints_in
from vmsvc_grpc.server.call import LATER, Code, Later, RpcError
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.xds import assignments, listing, news, resources
from vmsvc_grpc.server.xds.following import XdsScope
from vmsvc_grpc.server.xds.listing import Listings
from vmsvc_grpc.server.xds.names import CLUSTER_LOCAL, canonical_names
from vmsvc_grpc.server.xds.resources import Resources, TypeUrl
from vmsvc_grpc.server.xds.shared import LOOKS_MAX, Form

NAMES = ["s1.n1:80", "s1.n1:81", "s1.n1", "s2.n1:80", "s2.n1.svc:p", "s1.n2:80", "xdstp://x"]
CLASSES = {"": FilterClass.READY_ONLY, "all": FilterClass.ALL}

# With these, one endpoint makes a service large, and each of its VMs is a piece of work.
_PIECES: dict[ModuleType, dict[str, int]] = {
    evaluation: dict.fromkeys(("MATCHED_MAX", "_SORTED_MAX", "_COMPARED_MAX", "_LATE_MAX"), 1),
    membership: {"MATCHED_MAX": 1},
    assignments: {"AT_ONCE": 0, "_LOCATED_A_STEP": 1, "_ENCODED_A_STEP": 1},
    resources: {"AT_ONCE": 0},
    listing: {"STEPS_BESIDE": 1},
    news: {"STEPS_BESIDE": 1},
}

types = st.sampled_from([CDS, EDS, LDS, RDS])
names = st.lists(st.sampled_from([*NAMES, "*"]), unique=True, max_size=4)
seldom = st.integers(0, 5).map(lambda number: number == 5)


RIGHTS = [endpoints_in("watch", "n1"), endpoints_in("watch", "n2"), endpoints_everywhere("watch")]
USER = "user-of-t"

rights = st.none() | st.sets(st.sampled_from(RIGHTS))
"""Those that a client has at first; None: it need have none."""


class Entitled(XdsClient):
    """A client that comes back once a right is taken away, and is sent nothing without a right."""

    def __init__(self, *args: Any, rights: RightsGate | None, **kwargs: Any) -> None:
        self.rights = rights
        super().__init__(*args, gate=rights, **kwargs)

    def connect(self) -> None:
        self.bereft = False
        """Whether a right was taken away since the stream began."""
        self.baffled = self.rights is not None and self.rights.away
        """Whether since then nobody could say what it may hear of."""
        super().connect()

    def _asked(self) -> bytes | Later | None:
        try:
            message = super()._asked()
        except RpcError as error:
            self._come_back(error)
            return LATER
        if isinstance(message, bytes):
            self._check_rights(message)
        return message

    def _come_back(self, error: RpcError) -> None:
        assert self.rights is not None
        if error.code is Code.PERMISSION_DENIED:
            assert self.bereft, "only what was taken away ends a stream"
        else:
            assert error.code is Code.UNAVAILABLE
            assert self.baffled
            self.can_say()
        self.reconnect()

    def can_say(self) -> None:
        """From now on, rights are known at once."""
        if self.rights is not None:
            self.rights.away = False
            self.rights.answer()

    def may_see(self, name: str) -> bool:
        """Whether it may hear of what has a name."""
        asked = CLUSTER_LOCAL.of(name)
        if self.rights is None or asked is None:
            return True
        return self.rights.allows(USER, endpoints_in("watch", asked.service.namespace))

    def _check_rights(self, message: bytes) -> None:
        kind = pb.DiscoveryResponse if self.form is Form.SOTW else pb.DeltaDiscoveryResponse
        for resource in kind.FromString(message).resources:
            name, content = unpacked(resource if self.form is Form.SOTW else resource.resource)
            emptied = isinstance(content, ClusterLoadAssignment) and not content.endpoints
            assert emptied or self.may_see(name)


class Client:
    """One client, and what it should hold."""

    def __init__(
        self,
        cache: Cache,
        form: Form,
        agent: str,
        readiness: str,
        scope: XdsScope,
        limit: int,
        looks_max: int,
        rights: Iterable[Need] | None,
        shared: tuple[Resources, Listings],
        *,
        looks_min: int,
    ) -> None:
        """`looks_min`: a turn of one look finds a large service, and has none left for it."""
        who = node(agent, readiness=readiness, namespace="n1")
        self.gate = None if rights is None else RightsGate()
        if self.gate is not None:
            self.gate.admit("t", *rights or ())
        self.xds = Entitled(
            cache,
            form,
            who=who,
            scope=scope,
            limits=Limits(response_bytes_max=limit),
            resources=shared[0],
            listings=shared[1],
            looks_max=max(looks_min, looks_max),
            rights=self.gate,
        )
        self.scope = scope
        self.envoy = agent == "envoy"
        self.release = 0
        self.filter_class = CLASSES[readiness]

    def truth(self, cache: Cache, type_url: TypeUrl) -> dict[str, Any]:
        """What it should hold of a type."""
        asked = self.xds.asked(type_url)
        wanted = set(asked.names)
        if asked.wildcard:
            for key in cache.services:
                state = cache.state(key, self.filter_class).state
                if isinstance(state, EndpointSet):
                    wanted.update(canonical_names(key, state.ports))
        if self.envoy and type_url is LDS:
            return {}
        seen = (
            name
            for name in wanted
            if self.xds.may_see(name) and (self.scope is XdsScope.ALL or ".n2" not in name)
        )
        known = {name: truth(cache, type_url, name, self.filter_class) for name in seen}
        expected = {name: message for name, message in known.items() if message is not None}
        if type_url is CDS:
            for message in expected.values():
                message.CopyFrom(Release.cluster(message.SerializeToString(), self.release))
        return expected

    def holds(self, cache: Cache, type_url: TypeUrl) -> None:
        """Fail unless it holds what it should, but for what it has refused itself."""
        held, expected = dict(self.xds.held(type_url)), self.truth(cache, type_url)
        for name in self.xds.asked(type_url).refused:
            held.pop(name, None)
            expected.pop(name, None)
        if self.xds.form is Form.SOTW and type_url in (EDS, RDS):
            # No response says that one is gone; an assignment is emptied instead.
            for name in [name for name in held if name not in expected]:
                gone = held.pop(name)
                assert type_url is RDS or not gone.endpoints
        assert held == expected


def told(responses: list[Told], type_url: TypeUrl) -> set[str]:
    """The names that these tell of, be it that they are gone."""
    names = (name for label, *names in responses if label == type_url.label for name in names)
    return {name.removeprefix("-") for name in names}


class Following(RuleBasedStateMachine):
    """Objects come and go; clients ask, acknowledge, refuse, lag, leave and come back."""

    form: Form

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[Client] = []
        self.patch = pytest.MonkeyPatch()

    @initialize(
        unsynced=seldom,
        large=st.booleans(),
        changes_kept=st.sampled_from([1, 3, changes.CHANGES_KEPT]),
        agents=st.lists(
            st.tuples(
                st.sampled_from(["envoy", "gRPC Go"]),
                st.sampled_from(sorted(CLASSES)),
                st.sampled_from(list(XdsScope)),
                st.sampled_from([1, 400, 4_000_000]),
                st.sampled_from([1, 2, LOOKS_MAX]),
                rights,
            ),
            min_size=2,
            max_size=3,
        ),
    )
    def begin(
        self,
        unsynced: bool,
        large: bool,
        changes_kept: int,
        agents: list[tuple[str, str, XdsScope, int, int, set[Need] | None]],
    ) -> None:
        """`large`: all services are, so that each is evaluated and encoded in slices."""
        self.patch.setattr(changes, "CHANGES_KEPT", changes_kept)
        if large:
            for module, bounds in _PIECES.items():
                for bound, most in bounds.items():
                    self.patch.setattr(module, bound, most)
        self.cache = Cache(AddressRules())
        if not unsynced:
            keys = [Key("n1", "s1"), Key("n1", "s2"), Key("n2", "s1")]
            members = [vm("a", "10.0.0.1", namespace="n1", labels={"app": "x"})]
            listed(self.cache, *(service(key, spec({"app": "x"})) for key in keys), *members)
        made = Resources(ServerCounts(), shared_from=1)
        self.listings = Listings(self.cache, made)
        shared = made, self.listings
        self.clients = [
            Client(self.cache, self.form, *agent, shared, looks_min=2 if large else 1)
            for agent in agents
        ]

    @rule(told=st.lists(st.tuples(events, st.integers(0, 15)), min_size=1, max_size=8))
    def change_between_slices(self, told: list[tuple[Event, int]]) -> None:
        """After each event some clients have one turn, which may not be enough to say all.

        The cache may have none, and then has not evaluated a large service to its end.
        """
        for event, lucky in told:
            self.cache.take_in(event)
            for number, client in enumerate(self.clients):
                if lucky & 1 << number:
                    client.xds.turn()
            if lucky & 8:
                self.cache.proceed()

    @rule(number=st.integers(0, 2), granted=st.sampled_from(RIGHTS))
    def grant(self, number: int, granted: Need) -> None:
        if (gate := self.clients[number % len(self.clients)].gate) is not None:
            gate.grant(USER, granted)

    @rule(number=st.integers(0, 2), revoked=st.sampled_from(RIGHTS))
    def revoke(self, number: int, revoked: Need) -> None:
        client = self.clients[number % len(self.clients)]
        if client.gate is not None:
            client.xds.bereft = True
            client.gate.revoke(USER, revoked)

    @rule(number=st.integers(0, 2), away=st.booleans())
    def nobody_says_what_is_allowed(self, number: int, away: bool) -> None:
        """Not now, or not yet: what has been known stays."""
        client = self.clients[number % len(self.clients)]
        if client.gate is not None:
            client.gate.away, client.gate.open = away, False
            client.xds.baffled |= away

    @rule(number=st.integers(0, 2))
    def somebody_says_what_is_allowed(self, number: int) -> None:
        self.clients[number % len(self.clients)].xds.can_say()

    @rule(changes=st.lists(st.tuples(events, st.integers(0, 7)), min_size=1, max_size=8))
    def change(self, changes: list[tuple[Event, int]]) -> None:
        """After each event some clients read what there is (a bit for each), others wait."""
        for event, keen in changes:
            self.cache.apply(event)
            for number, client in enumerate(self.clients):
                if keen & 1 << number:
                    client.xds.read_all()

    @rule(number=st.integers(0, 2), type_url=types, wanted=names)
    def ask(self, number: int, type_url: TypeUrl, wanted: list[str]) -> None:
        xds = self.clients[number % len(self.clients)].xds
        if xds.form is Form.SOTW:
            self._ask_sotw(xds, type_url, wanted)
        else:
            xds.change(type_url, wanted)

    def _ask_sotw(
        self, xds: XdsClient, type_url: TypeUrl, wanted: list[str], **fields: Any
    ) -> None:
        asked = xds.asked(type_url)
        if not set(wanted) >= asked.names or asked.wildcard:
            # A state of the world that takes a name back and gives it again before the server
            # sees either cannot be told from one that does neither.
            xds.read_all()
        xds.ask(type_url, *wanted, **fields)

    @precondition(lambda self: self.cache.synced)
    @rule(number=st.integers(0, 2), type_url=types, wanted=names)
    def what_is_newly_asked_for_is_answered(
        self, number: int, type_url: TypeUrl, wanted: list[str]
    ) -> None:
        """Delta: whatever is named. State of the world: what is new in it, if it exists."""
        client = self.clients[number % len(self.clients)]
        client.xds.can_say()
        client.xds.read_all()
        new, by_name = set(wanted) - {"*"}, set(client.xds.asked(type_url).names)
        if self.form is Form.SOTW:
            client.xds.ask(type_url, *wanted)
            new = (new - by_name) & client.truth(self.cache, type_url).keys()
        else:
            client.xds.change(type_url, wanted)
            if "*" in wanted:
                new |= client.truth(self.cache, type_url).keys() - by_name
        assert told(client.xds.read_all(), type_url) >= new

    @rule(number=st.integers(0, 2), type_url=types, unwanted=names)
    def unsubscribe(self, number: int, type_url: TypeUrl, unwanted: list[str]) -> None:
        xds = self.clients[number % len(self.clients)].xds
        if xds.form is Form.DELTA and type_url in xds.types:
            xds.change(type_url, [], unwanted)

    @precondition(lambda self: self.form is Form.DELTA and self.cache.synced)
    @rule(number=st.integers(0, 2), type_url=types, unwanted=st.sampled_from(NAMES))
    def what_is_left_to_a_wildcard_is_answered(
        self, number: int, type_url: TypeUrl, unwanted: str
    ) -> None:
        """The client cannot know whether that covers the name."""
        xds = self.clients[number % len(self.clients)].xds
        xds.can_say()
        xds.change(type_url, ["*", unwanted])
        xds.read_all()
        xds.change(type_url, [], [unwanted])
        assert unwanted in told(xds.read_all(), type_url)

    @precondition(lambda self: self.cache.synced)
    @rule(
        number=st.integers(0, 2),
        type_url=st.sampled_from([EDS, EDS, CDS]),
        wanted=st.lists(st.sampled_from(NAMES), unique=True, min_size=2),
        agent=st.integers(0, 3),
        turns=st.integers(1, 4),
        kept=st.integers(1, 3),
    )
    def drop_between_slices(
        self,
        number: int,
        type_url: TypeUrl,
        wanted: list[str],
        agent: int,
        turns: int,
        kept: int,
    ) -> None:
        """A request comes when some of the news has been found, and the rest has not."""
        client = self.clients[number % len(self.clients)]
        xds = client.xds
        xds.can_say()
        xds.read_all()
        every = ["*"] if xds.asked(type_url).wildcard else []
        if xds.form is Form.SOTW:
            xds.ask(type_url, *wanted, *every)
        else:
            xds.change(type_url, wanted)
        if type_url is EDS:
            xds.read_all()
            self.cache.apply(_moved(agent))
        for _ in range(turns):
            xds.turn()
        if xds.form is Form.SOTW:
            xds.ask(type_url, *wanted[:kept], *every)
        else:
            xds.change(type_url, [], sorted(xds.asked(type_url).names - set(wanted[:kept])))
        xds.read_all()
        client.holds(self.cache, type_url)

    @rule(number=st.integers(0, 2), count=st.integers(1, 3))
    def pump(self, number: int, count: int) -> None:
        """Responses leave the server, and are not read yet."""
        for _ in range(count):
            self.clients[number % len(self.clients)].xds.pump()

    @rule(number=st.integers(0, 2), refuse=st.lists(seldom, min_size=1, max_size=3))
    def read(self, number: int, refuse: list[bool]) -> None:
        for refused in refuse:
            self.clients[number % len(self.clients)].xds.read("no" if refused else "")

    @rule(number=st.integers(0, 2), agent=st.integers(0, 3))
    def refuse_a_change(self, number: int, agent: int) -> None:
        """A NACK is followed by silence, until something changes."""
        client = self.clients[number % len(self.clients)]
        client.xds.can_say()
        client.xds.read_all()
        self.cache.apply(_moved(agent))
        if (refused := client.xds.read(refuse="no")) is not None:
            label, *about = refused
            others = [names for other, *names in client.xds.read_all() if other == label]
            # A state of the world of clusters says all of them each time.
            if self.form is Form.DELTA or label not in {type_url.label for type_url in WHOLE}:
                assert not {name for names in others for name in names} & set(about)
            assert client.xds.read() is None

    @rule(
        number=st.integers(0, 2),
        type_url=types,
        wanted=names,
        nonce=st.sampled_from(["C0", "C1", "C7", "E0", "E1", "E7", "stale"]),
    )
    def send_a_stale_nonce(
        self, number: int, type_url: TypeUrl, wanted: list[str], nonce: str
    ) -> None:
        """Whatever it acknowledges, what it asks for counts."""
        xds = self.clients[number % len(self.clients)].xds
        if xds.form is Form.DELTA:
            xds.change(type_url, wanted, response_nonce=nonce)
        else:
            self._ask_sotw(xds, type_url, wanted, response_nonce=nonce)

    @rule(number=st.integers(0, 2), between=st.integers(0, 3))
    def reconnect(self, number: int, between: int) -> None:
        self.clients[number % len(self.clients)].xds.reconnect(between)

    @rule(
        number=st.integers(0, 2),
        releases=st.lists(st.integers(0, 3), min_size=1, max_size=3),
        between=st.integers(0, 3),
        cut_after=st.sampled_from([None, 0, 1, 2]),
    )
    def reconnect_to_other_releases(
        self, number: int, releases: list[int], between: int, cut_after: int | None
    ) -> None:
        """One after the other; the last stream may break after some messages.

        Only where its versions of load assignments tell of their clusters: else nobody could know
        that the client still waits for one.
        """
        client = self.clients[number % len(self.clients)]
        for release in releases:
            client.xds.read_all()
            for topic in self.cache._topics._topics.values():
                topic.current.encoded.clear()  # Releases share no process.
            client.release = release
            client.xds.upgrade(Release(release))
            client.xds.reconnect(between)
        if releases[-1] % 2:
            client.xds.read_all()
        elif cut_after is not None:
            for _ in range(cut_after):
                client.xds.read()
            client.xds.reconnect(between)

    @precondition(lambda self: self.cache.synced)
    @invariant()
    def marks_are_bounded(self) -> None:
        for client in self.clients:
            for subscription in client.xds.stream.subscriptions.values():
                assert len(subscription.pending) <= 40
                told = (
                    subscription.digests.keys() - subscription.names - subscription.leaving.keys()
                )
                assert told <= subscription.pending.keys(), "of what a wildcard has, none is kept"

    @rule()
    def everybody_catches_up(self) -> None:
        for client in self.clients:
            client.xds.can_say()
            client.xds.read_all()
            assert client.xds.read_all() == []
            if self.cache.synced and client.xds.stream.node is not None:
                assert client.xds.stream.quiet
            for type_url in client.xds.types:
                if self.cache.synced:
                    client.holds(self.cache, type_url)
            assert client.xds.warming == set()

    def teardown(self) -> None:
        self.patch.undo()
        self.everybody_catches_up()
        for client in self.clients:
            client.xds.close()
        assert not self.listings._open
        emptied(self.cache)
        for kind in KINDS:
            self.cache.apply(Init(kind))
            self.cache.apply(InitDone(kind))
        assert leavings(self.cache) == []


def _moved(number: int) -> Event:
    return Apply(vm("a", f"10.0.0.{number}", namespace="n1", labels={"app": "x"}))


class FollowingSotw(Following):
    form = Form.SOTW


class FollowingDelta(Following):
    form = Form.DELTA


TestSotw, TestDelta = FollowingSotw.TestCase, FollowingDelta.TestCase
TestSotw.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)
TestDelta.settings = TestSotw.settings
