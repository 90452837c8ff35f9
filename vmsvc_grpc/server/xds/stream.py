"""One stream of xDS, in either form: its subscriptions, nonces, ACKs and NACKs.

The stream notes which services may have something new. What to send is worked out when
the transport asks, from what is newest then, so nothing waits here for a client that
does not read. The rules are those of Envoy's `xds_protocol` page.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.topic import Topic
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.call import LATER, Code, EndOfStream, Later, RpcError, Wake
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.followed import StreamNames
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.xds import requests as xds_requests
from vmsvc_grpc.server.xds.bodies import BodyReader
from vmsvc_grpc.server.xds.following import Following, XdsScope
from vmsvc_grpc.server.xds.names import WILDCARD, References
from vmsvc_grpc.server.xds.requests import DeltaRequest, Node, SotwRequest
from vmsvc_grpc.server.xds.resources import Resource, Resources, TypeUrl, response, version_text
from vmsvc_grpc.server.xds.subscription import ABSENT, NAME_BYTES, UNKNOWN, XdsSubscription

LOOKS_MAX = 128
"""How many names a stream looks at before others have their turn: some ms, as the first to look
at one encodes it. Also how many resources make a response that is worth a turn of its own."""


class Form(Enum):
    """The two forms of the protocol."""

    SOTW = "state of the world"
    DELTA = "delta"


@dataclass(frozen=True, slots=True)
class Nack:
    """A NACK: which content a client refuses, and its words.

    `names` are those in the rejected response that have not been sent again since; `version`
    is a digest of what was sent.
    """

    node: str
    type_url: TypeUrl
    names: Sequence[str]
    version: str
    message: str
    client: str


OnExcess = Callable[[str, str, str], None]
"""Told each name that is not followed: the client, the name, the setting. Must only take note."""

OnNack = Callable[[Nack], None]
"""Told each NACK. Must only take note."""


@dataclass(frozen=True, slots=True)
class XdsShared:
    """What all streams of a server have in common."""

    cache: Cache
    resources: Resources
    scope: XdsScope
    references: References
    limits: Limits
    counts: ServerCounts
    on_refusal: OnNack
    on_excess: OnExcess
    looks_max: int = LOOKS_MAX


_TYPES = {type_url.value: type_url for type_url in TypeUrl}

# To take in a name that is asked for costs so much less than to look at one.
_NAMES_A_LOOK = 4

# Make before break: what others refer to comes first, and goes last.
_ORDER = (TypeUrl.CLUSTER, TypeUrl.ENDPOINT, TypeUrl.LISTENER, TypeUrl.ROUTE)
_REMOVAL_ORDER = (TypeUrl.LISTENER, TypeUrl.ROUTE, TypeUrl.CLUSTER, TypeUrl.ENDPOINT)

# In the state of the world, a response with these has all of them: absence is deletion.
_WHOLE = frozenset({TypeUrl.CLUSTER, TypeUrl.LISTENER})

# Of characters. An xdstp name may be long; those of services take 209 at most.
_NAME_MAX = 1_024


class XdsStream:
    """The stream of one call: a `call.Stream`."""

    __slots__ = (
        "_claimed",
        "_clusters_sent",
        "_expired",
        "_following",
        "_form",
        "_half_closed",
        "_implied",
        "_looks_left",
        "_names",
        "_node",
        "_nonces",
        "_own_turn",
        "_shared",
        "_subscriptions",
        "_taking",
        "_taking_order",
        "_telling_order",
        "_wake",
    )

    def __init__(
        self,
        form: Form,
        implied: TypeUrl | None,
        shared: XdsShared,
        names: StreamNames,
        wake: Wake,
    ) -> None:
        """`implied` is the type of a service that has one; None for the aggregated one.

        What it follows by name counts in `names`.
        """
        self._form = form
        self._implied = implied
        self._shared = shared
        self._names = names
        self._claimed: list[str] = []  # For which there is room in `names` until compared.
        self._wake = wake
        self._following = Following(shared.cache, shared.scope, shared.limits, wake)
        self._node: Node | None = None
        self._subscriptions: dict[TypeUrl, XdsSubscription] = {}
        self._telling_order: tuple[XdsSubscription, ...] = ()
        self._taking_order: tuple[XdsSubscription, ...] = ()
        # Before the client says which load assignments it holds: what it says of theirs is not
        # taken for an answer.
        self._clusters_sent: set[str] = set()
        self._nonces = 0
        # How many names may yet be looked at in this call; and whether the transport gave this
        # stream the turn, so that it may do at once what takes some ms.
        self._looks_left = 0
        self._own_turn = False
        self._taking: Iterator[None] | None = None  # The request that is being taken in.
        self._half_closed = False
        self._expired = False

    @property
    def node(self) -> Node | None:
        """Who asks; None before the first request."""
        return self._node

    @property
    def subscriptions(self) -> Mapping[TypeUrl, XdsSubscription]:
        """What it has asked for and been told. Read it only."""
        return self._subscriptions

    # -- What the transport calls --

    def receive(self, request: bytes) -> None:
        """Take in a request. Raises RpcError (INVALID_ARGUMENT) for one that is none.

        No name and no number of them ends the stream, whoever made an Envoy ask for it: a name
        that is too long, and one too many, is of nothing. Of one with many names the rest is
        taken in when the stream is asked for messages, before it says any.
        """
        assert self._taking is None, "the transport hands in no request while one is taken in"
        asked: SotwRequest | DeltaRequest
        read = xds_requests.sotw if self._form is Form.SOTW else xds_requests.delta
        asked = read(request)
        if self._node is None:
            self._node = xds_requests.node(asked.node)
            self._following.begin(self._node)
        type_url = self._type_of(asked.type_url)
        if type_url is None:
            return
        if (subscription := self._subscriptions.get(type_url)) is None:
            subscription = self._begin(type_url)
        if asked.nonce:
            self._hear(self._node, subscription, asked)
        if not (subscription.begun and _changes_nothing(asked)):
            self._taking = self._take(subscription, asked)
            self._take_in()

    def _take_in(self) -> bool:
        """Take in as much of the request as one turn is for; whether that was all."""
        assert self._taking is not None
        most = self._shared.looks_max * _NAMES_A_LOOK
        if sum(1 for _ in islice(self._taking, most)) == most:
            return False
        self._taking = None
        return True

    def half_close(self) -> None:
        """The client only listens now: it is told what is due, and then the stream ends."""
        self._half_closed = True

    def next_message(self) -> bytes | Later | None:
        """The next response. Raises EndOfStream at the stream's age, or after `half_close`."""
        if self._expired:
            raise EndOfStream
        if self._taking is not None and not self._take_in():
            return LATER
        if self._node is not None:
            self._following.settle(self._needs)
            # Part of a wildcard's answer would delete what it lacks: nothing until all is there.
            if not self._shared.cache.synced:
                return None
            self._looks_left = self._shared.looks_max
            message = self._next_response(self._node)
            self._own_turn = message is LATER
            if self._claimed:
                self._end_claims()
            if message is not None:
                return message
        if self._half_closed:
            raise EndOfStream
        return None

    def close(self) -> None:
        """Let go of everything."""
        self._names.close()
        self._following.close()
        self._subscriptions.clear()
        self._telling_order = self._taking_order = ()
        self._taking = None
        self._claimed.clear()

    def expire(self) -> None:
        """End the stream soon, with OK: it is old enough."""
        self._expired = True
        self._wake()

    # -- What the client asks --

    def _type_of(self, type_url: str) -> TypeUrl | None:
        """The type that a request is about; None for one that we do not have."""
        if self._implied is None:
            if not type_url:
                text = "the request has no type_url, which an aggregated stream needs"
                raise RpcError(Code.INVALID_ARGUMENT, text)
            return _TYPES.get(type_url)
        if type_url not in ("", self._implied.value):
            if type_url not in _TYPES:
                return None
            raise RpcError(
                Code.INVALID_ARGUMENT,
                f"type_url is {type_url!r}, but this service has only {self._implied.value}; "
                "use the aggregated service for several types",
            )
        return self._implied

    def _begin(self, type_url: TypeUrl) -> XdsSubscription:
        subscriptions = self._subscriptions
        begun = subscriptions[type_url] = XdsSubscription(type_url, self._shared.references)
        if self._form is Form.SOTW and type_url in _WHOLE:
            begun.all_told = self._shared.resources.all_of(type_url)
        self._telling_order = tuple(subscriptions[url] for url in _ORDER if url in subscriptions)
        self._taking_order = tuple(
            subscriptions[url] for url in _REMOVAL_ORDER if url in subscriptions
        )
        return begun

    def _hear(
        self, node: Node, subscription: XdsSubscription, asked: SotwRequest | DeltaRequest
    ) -> None:
        """Note an ACK or NACK: it is a NACK if it says so, whatever version it names."""
        names = subscription.heard(asked.nonce, asked.refusal)
        if names is None:
            return
        counts, type_url = self._shared.counts, subscription.type_url
        if asked.refusal is None:
            counts.xds_acks[type_url.label] += 1
            return
        counts.xds_nacks[type_url.label] += 1
        version = version_text(subscription.digest_of(names))
        refusal = Nack(node.id, type_url, names, version, asked.refusal, self._names.client)
        self._shared.on_refusal(refusal)

    def _take(
        self, subscription: XdsSubscription, asked: SotwRequest | DeltaRequest
    ) -> Iterator[None]:
        """Take in what a request asks for, a name at a time.

        Whatever its nonce: requests come in order, so these names are the newest that the
        client has said. Only what it acknowledges may be old.
        """
        if isinstance(asked, DeltaRequest):
            yield from self._take_delta(subscription, asked)
        else:
            yield from self._take_sotw(subscription, asked)
        subscription.begun = True
        if subscription.type_url is TypeUrl.ENDPOINT:
            self._clusters_sent.clear()

    def _take_sotw(self, subscription: XdsSubscription, asked: SotwRequest) -> Iterator[None]:
        names = dict.fromkeys(asked.names)
        wildcard = WILDCARD in names or not (names or subscription.named)
        subscription.named = subscription.named or bool(names)
        names.pop(WILDCARD, None)
        if not subscription.begun:
            subscription.answer_due = subscription.type_url in _WHOLE
        elif names.keys() == subscription.names.keys() and wildcard == subscription.wildcard:
            return  # As every ACK.
        if wildcard:
            self._set_wildcard(subscription, True)
        for name in [name for name in subscription.names if name not in names]:
            self._unsubscribe(subscription, name)
            yield
        for name in names:
            if name not in subscription.names:
                # Told also if the wildcard had it: the client may have let go of that.
                self._subscribe(subscription, name, forced=True)
                yield
        if not wildcard:
            # Last, so that what is asked for by name now stays told.
            self._set_wildcard(subscription, False)

    def _take_delta(self, subscription: XdsSubscription, asked: DeltaRequest) -> Iterator[None]:
        if not subscription.begun:
            yield from self._take_held(subscription, asked.held)
            self._set_wildcard(subscription, not asked.subscribe)
        for name in asked.subscribe:
            if name == WILDCARD:
                self._subscribe_to_all(subscription)
            else:
                self._subscribe(subscription, name, forced=name not in subscription.claimed)
            yield
        if WILDCARD in asked.unsubscribe:
            self._set_wildcard(subscription, False)
        for name in asked.unsubscribe:
            self._unsubscribe(subscription, name, forced=True)
            yield

    def _take_held(self, subscription: XdsSubscription, held: Sequence[bytes]) -> Iterator[None]:
        """What the client says that it holds: compared once, and what is gone is told."""
        assignments = subscription.type_url is TypeUrl.ENDPOINT
        for one in held:
            if (known := xds_requests.held_version(one)) is None:
                yield
                continue
            name, version = known
            if name in subscription.claimed:
                subscription.claim(name, version)  # The last of several counts.
            elif self._has_room(subscription.claimed, name):
                self._claimed.append(name)
                subscription.claim(name, version)
                # A cluster that was sent waits for its endpoints, be they the same.
                subscription.note(name, forced=assignments and name in self._clusters_sent)
            else:
                self._deny(subscription, name)
            yield

    def _has_room(self, names: Mapping[str, object], name: str) -> bool:
        """Whether one more is followed; room in `StreamNames` is taken then."""
        if len(name) > _NAME_MAX:
            return False
        setting = "xds_resources_max"
        if len(names) < self._shared.limits.xds_resources_max:
            if not (setting := self._names.take(name)):
                return True
        else:
            self._shared.counts.refusals[setting] += 1
        self._shared.on_excess(self._names.client, name, setting)
        return False

    def _end_claims(self) -> None:
        """Give back the room of what the client claimed, once all of it has been compared."""
        if not any(subscription.claimed for subscription in self._subscriptions.values()):
            for name in self._claimed:
                self._names.give_back(name)
            self._claimed.clear()

    def _deny(self, subscription: XdsSubscription, name: str) -> None:
        """Tell the client that there is nothing of a name; only deltas can say so."""
        if self._form is Form.DELTA:
            subscription.deny(name, self._shared.limits.response_bytes_max)

    def _set_wildcard(self, subscription: XdsSubscription, wildcard: bool) -> None:
        if wildcard == subscription.wildcard:
            return
        subscription.wildcard = wildcard
        if wildcard:
            # An Envoy waits for its first answer, also where there is nothing.
            whole = subscription.type_url in _WHOLE or self._form is Form.DELTA
            subscription.answer_due |= whole and not subscription.claimed
        else:
            for name in [name for name in subscription.told if name not in subscription.names]:
                self._forget(subscription, name)
        everything = any(s.wildcard for s in self._subscriptions.values())
        if wildcard or not everything:
            self._following.cover(everything)

    def _subscribe_to_all(self, subscription: XdsSubscription) -> None:
        """Delta: all is told again, as with any name that is subscribed to once more."""
        if subscription.wildcard:
            subscription.answer_due = True
            for name in subscription.told:
                if name not in subscription.names:
                    subscription.note(name, forced=True)
        self._set_wildcard(subscription, True)

    def _subscribe(self, subscription: XdsSubscription, name: str, *, forced: bool) -> None:
        if name not in subscription.names and not self._has_room(subscription.names, name):
            self._deny(subscription, name)
            return
        subscription.ask(name)
        subscription.note(name, forced=forced)
        if (asked := self._shared.references.of(name)) is not None:
            # Also if it does not exist: the stream is to hear when it does.
            self._following.follow(asked.service)

    def _unsubscribe(
        self, subscription: XdsSubscription, name: str, *, forced: bool = False
    ) -> None:
        known = name in subscription.names or name in subscription.told
        if name in subscription.names:
            self._names.give_back(name)
        subscription.drop(name)
        if subscription.wildcard and known:
            # It may be one of those that the wildcard has; the client cannot know.
            subscription.note(name, forced=forced)
        elif subscription.wildcard:
            self._deny(subscription, name)
        else:
            self._forget(subscription, name)

    def _forget(self, subscription: XdsSubscription, name: str) -> None:
        subscription.forget(name)
        if (asked := self._shared.references.of(name)) is not None:
            self._following.loosen((asked.service,))

    def _needs(self, service: Key) -> bool:
        return any(subscription.concerns(service) for subscription in self._subscriptions.values())

    # -- What to tell --

    def _next_response(self, node: Node) -> bytes | Later | None:
        while True:
            if self._following.noted and self._may_mark() and not self._mark_noted(node):
                return LATER
            for told in self._telling_order:
                due = (told.pending or told.answer_due) and not self._waits(told)
                if due and (message := self._upserts(node, told)) is not None:
                    return message
            for taken in self._taking_order:
                gone = (taken.leaving or taken.denied) and not self._waits(taken)
                if gone and (message := self._removals(node, taken)) is not None:
                    return message
            if not (self._following.noted or self._under_way()):
                return None

    def _may_mark(self) -> bool:
        """Whether it is time for what is noted.

        What has begun is ended first, so that removals come, however much changes. But a first
        answer is all there is: what it lacked, its client would delete.
        """
        for subscription in self._telling_order:
            if subscription.answer_due:
                return True
        return not self._under_way()

    def _under_way(self) -> bool:
        # A loop, as any() takes three times as long, and it is asked twice for each message.
        for subscription in self._telling_order:
            if subscription.under_way and not self._waits(subscription):
                return True
        return False

    def _waits(self, subscription: XdsSubscription) -> bool:
        """Whether the client is to acknowledge what it was sent before it is sent more of a type.

        So one that is far away has one response of load assignments under way, and not one for
        each change. The other types change seldom, and an Envoy acknowledges clusters only once
        all of them, those of other servers too, have their endpoints.
        """
        if self._form is Form.DELTA or subscription.type_url is not TypeUrl.ENDPOINT:
            return False
        return subscription.unheard and not self._half_closed

    def _mark_noted(self, node: Node) -> bool:
        """Mark what is noted; False if others are to have their turn before all is."""
        for topic in self._following.take_noted():
            self._mark(node, topic)
            self._looks_left -= 1
            if self._looks_left <= 0:
                return False
        return True

    def _mark(self, node: Node, topic: Topic) -> None:
        """Mark each name of a service, those that a wildcard covers now among them."""
        for subscription in self._telling_order:
            for name in subscription.names_of(topic.service):
                subscription.note(name)
            if subscription.wildcard and _has(node, subscription.type_url):
                for name in self._shared.resources.names(topic.current):
                    subscription.note(name)

    def _resource(self, node: Node, subscription: XdsSubscription, name: str) -> Resource | None:
        """The resource of a name as this client may see it now; None if there is none."""
        resources, type_url = self._shared.resources, subscription.type_url
        asked = self._shared.references.of(name)
        topic = self._following.topic(asked.service) if asked is not None else None
        if asked is None or topic is None or not _has(node, type_url):
            return None
        publication = topic.current
        if name not in subscription.names and not (
            subscription.wildcard and name in resources.names(publication)
        ):
            return None
        if type_url is TypeUrl.ENDPOINT:
            return resources.endpoints(publication, name, asked.port)
        if resources.port(publication, asked.port) is None:
            return None
        return resources.static(type_url, name)

    def _upserts(self, node: Node, subscription: XdsSubscription) -> bytes | Later | None:
        """A response with what is new of a type, as much of it as one may hold.

        What is found until others are to have their turn is kept in the subscription's draft.
        """
        all_told, parts = subscription.all_told, subscription.draft
        size = 0 if all_told else sum(map(len, parts.values()))
        while subscription.pending:
            if self._looks_left <= 0:
                return LATER
            self._looks_left -= 1
            name, forced = subscription.pending.popitem(last=False)
            resource = self._resource(node, subscription, name)
            if resource is None and self._is_awaited(subscription, name, forced=forced):
                resource = self._empty(name)
            if resource is None:
                self._gone(subscription, name, forced)
                continue
            part = resource.sotw if self._form is Form.SOTW else resource.delta
            full = size + len(part) > self._shared.limits.response_bytes_max
            if full and parts and not all_told:
                subscription.pending[name] = forced
                subscription.pending.move_to_end(name, last=False)
                break
            forced = subscription.leaving.pop(name, False) or forced
            if not subscription.owes(resource, forced=forced):
                self._shared.counts.xds_resources_skipped[subscription.type_url.label] += 1
                continue
            if subscription.type_url is TypeUrl.CLUSTER:
                self._cluster_told(subscription, resource)
            subscription.tell(name, resource.digest)
            parts[name] = part
            size += len(part)
        if not (parts or (subscription.answer_due and not subscription.pending)):
            return None
        if all_told:
            return self._whole(subscription, all_told)
        subscription.draft = {}
        return self._response(subscription, parts, tuple(parts.values()))

    def _is_awaited(self, subscription: XdsSubscription, name: str, *, forced: bool) -> bool:
        """Whether a client waits for a load assignment of a service that does not exist (yet).

        An Envoy holds back its listeners, or a changed cluster, for 15 s otherwise. As deltas
        it is told that there is none.
        """
        if self._form is Form.DELTA or subscription.type_url is not TypeUrl.ENDPOINT:
            return False
        if name not in subscription.names or self._shared.references.of(name) is None:
            return False
        return forced or name not in subscription.told

    def _removals(self, node: Node, subscription: XdsSubscription) -> bytes | Later | None:
        """A response that takes away what is gone of a type."""
        endpoints = subscription.type_url is TypeUrl.ENDPOINT
        if endpoints and (message := self._emptied(node, subscription)) is not None:
            return message
        for name in subscription.take_denied():
            subscription.leaving[name] = True
        size = 0
        removed: list[str] = []
        while subscription.leaving and size < self._shared.limits.response_bytes_max:
            name, forced = subscription.leaving.popitem(last=False)
            if self._resource(node, subscription, name) is not None:
                subscription.note(name, forced=forced)  # It has come back.
                continue
            if name not in subscription.names:
                self._forget(subscription, name)
            elif self._form is Form.DELTA:
                subscription.tell(name, ABSENT)
            elif subscription.all_told is not None:
                self._forget(subscription, name)
            removed.append(name)
            size += len(name.encode()) + NAME_BYTES
        if not removed or (endpoints and self._form is Form.SOTW):
            return None
        if subscription.all_told is not None:
            return self._whole(subscription, subscription.all_told)
        return self._response(subscription, removed, (), removed)

    def _emptied(self, node: Node, subscription: XdsSubscription) -> bytes | None:
        """A response that empties load assignments that are gone, where the client holds more.

        In the state of the world nothing else says that they are gone. As deltas, those that
        are asked for by name are removed after it: an Envoy goes on with the endpoints of one
        that is only removed.
        """
        names: list[str] = []
        parts: list[bytes] = []
        size = 0
        asked = subscription.names if self._form is Form.DELTA else subscription.told
        for name in subscription.leaving:
            told = subscription.told.get(name)
            if not told or name not in asked or size >= self._shared.limits.response_bytes_max:
                continue
            empty = self._empty(name)
            if told != empty.digest and self._resource(node, subscription, name) is None:
                subscription.tell(name, empty.digest)
                part = empty.sotw if self._form is Form.SOTW else empty.delta
                names.append(name)
                parts.append(part)
                size += len(part)
        return self._response(subscription, names, parts) if names else None

    def _gone(self, subscription: XdsSubscription, name: str, forced: bool) -> None:
        """There is no such resource: note that the client must be told, or that it need not."""
        if subscription.claimed.pop(name, None) is not None:
            forced = True
            if self._shared.references.of(name) is not None:  # What has none is not from here.
                subscription.tell(name, UNKNOWN)
        told = subscription.told.get(name)
        if self._form is Form.DELTA:
            due = bool(told) or forced or (told is None and name in subscription.names)
        elif subscription.type_url is TypeUrl.ENDPOINT:
            due = bool(told) and told != self._empty(name).digest
        else:
            # No response could say so of a route. Its listener goes, and with it this.
            due = bool(told) and subscription.type_url is not TypeUrl.ROUTE
        if due:
            subscription.leaving[name] = forced
        elif name not in subscription.names or subscription.type_url is TypeUrl.ROUTE:
            self._forget(subscription, name)

    def _cluster_told(self, clusters: XdsSubscription, cluster: Resource) -> None:
        """A changed cluster waits until its endpoints come again, even if they are the same."""
        name, assignments = cluster.name, self._subscriptions.get(TypeUrl.ENDPOINT)
        if clusters.told.get(name) == cluster.digest:
            return
        if assignments is None:
            if self._form is Form.DELTA and self._implied is None:
                self._clusters_sent.add(name)
        elif name in assignments.names or name in assignments.told or name in assignments.claimed:
            assignments.note(name, forced=True)

    def _empty(self, name: str) -> Resource:
        """The load assignment that says that there are no endpoints (any more)."""
        return self._shared.resources.empty(name)

    def _whole(self, subscription: XdsSubscription, all_told: BodyReader) -> bytes | Later:
        """A response with everything that the client is to hold of a type."""
        told, whole = subscription.told, None
        if self._own_turn or len(told) <= self._shared.looks_max:
            whole = all_told.read(subscription.digest, told, subscription.nonce)
        if whole is None:
            subscription.answer_due = True
            return LATER
        subscription.draft = {}
        self._sends(subscription, whole.nonce, None)
        return whole.message

    def _response(
        self,
        subscription: XdsSubscription,
        names: Collection[str],
        parts: Sequence[bytes],
        removed: Sequence[str] = (),
    ) -> bytes:
        """A response about these names."""
        self._nonces += 1
        self._sends(subscription, self._nonces, names)
        return response(subscription.type_url, subscription.digest, self._nonces, parts, removed)

    def _sends(
        self, subscription: XdsSubscription, nonce: int, names: Collection[str] | None
    ) -> None:
        """Note a response about these names, or about all that the client is told (None)."""
        subscription.answer_due = False
        subscription.sent(nonce, names)
        sent = self._shared.counts.xds_resources_sent
        sent[subscription.type_url.label] += len(subscription.told if names is None else names)


def _changes_nothing(asked: SotwRequest | DeltaRequest) -> bool:
    """Whether a request that is not a stream's first asks for nothing anew, as every delta ACK."""
    return isinstance(asked, DeltaRequest) and not (asked.subscribe or asked.unsubscribe)


def _has(node: Node, type_url: TypeUrl) -> bool:
    """Whether there are resources of a type for a client.

    Envoy needs listeners that have an address, and we know none.
    """
    return not (node.envoy and type_url is TypeUrl.LISTENER)
