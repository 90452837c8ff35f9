"""One stream of xDS, in either form: its subscriptions, nonces, ACKs and NACKs.

The stream notes which services may have news. What to send is worked out when the transport asks,
from the newest state, so that nothing piles up here for a client that does not read. The rules
are those of Envoy's `xds_protocol` page.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain, islice
from typing import NamedTuple

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.call import LATER, Code, EndOfStream, Later, RpcError, Wake
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.followed import StreamNames
from vmsvc_grpc.server.leaving import LetGo
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.xds import requests as xds_requests
from vmsvc_grpc.server.xds.bodies import BodyReader
from vmsvc_grpc.server.xds.following import Following, XdsScope
from vmsvc_grpc.server.xds.listing import DIGESTS, ListedDue, Listings, Wildcard
from vmsvc_grpc.server.xds.names import WILDCARD, References
from vmsvc_grpc.server.xds.requests import DeltaRequest, Node, SotwRequest
from vmsvc_grpc.server.xds.resources import Resource, Resources, TypeUrl, response, version_text
from vmsvc_grpc.server.xds.subscription import ABSENT, UNKNOWN, XdsSubscription, removed_bytes

LOOKS_MAX = 128
"""How many names a stream looks at before others have their turn: some ms, as the first look at a
name encodes it. Also how many resources make a response worth a turn of its own."""


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
"""Called for each name that is not followed, with client, name and setting. Must only take note."""

OnNack = Callable[[Nack], None]
"""Called for each NACK. Must only take note."""


@dataclass(frozen=True, slots=True)
class XdsShared:
    """What all streams of a server have in common."""

    cache: Cache
    resources: Resources
    listings: Listings
    scope: XdsScope
    references: References
    limits: Limits
    counts: ServerCounts
    on_refusal: OnNack
    on_excess: OnExcess
    let_go: LetGo
    looks_max: int = LOOKS_MAX


_TYPES = {type_url.value: type_url for type_url in TypeUrl}


class _New(NamedTuple):
    """A resource to send to a client, and whether it differs from the one that the client holds."""

    resource: Resource
    changed: bool


# How much of a client's request its names may take; the rest is for what it says of itself, which
# is some hundred KB of an Envoy.
_OF_A_REQUEST = 15 / 16

# To take in a name that is asked for, or to take one away, costs so much less than to look at one.
_NAMES_A_LOOK = 4

# As many are read in what it takes to take one in. Each acknowledgement says all names again.
_NAMES_A_STEP = 64

# How many sent clusters a stream remembers until the client's first request for load assignments.
_CLUSTERS_SENT_MAX = 1_024

# Make before break: a resource that others refer to is sent first, and removed last.
_ORDER = (TypeUrl.CLUSTER, TypeUrl.ENDPOINT, TypeUrl.LISTENER, TypeUrl.ROUTE)
_REMOVAL_ORDER = (TypeUrl.LISTENER, TypeUrl.ROUTE, TypeUrl.CLUSTER, TypeUrl.ENDPOINT)

# In the state of the world, a response of these types has all resources: absence is deletion.
_WHOLE = frozenset({TypeUrl.CLUSTER, TypeUrl.LISTENER})

# In characters. An xdstp name may be long; those of services have 209 at most.
_NAME_MAX = 1_024


class XdsStream:
    """The stream of one call: a `call.Stream`."""

    __slots__ = (
        "_claims",
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
        """`implied` is the type of a service for a single type; None for the aggregated service.

        The names that it follows count in `names`.
        """
        self._form = form
        self._implied = implied
        self._shared = shared
        self._names = names
        self._claims = names.another()  # What its client says that it holds, until compared.
        self._wake = wake
        self._following = Following(shared.cache, shared.scope, wake)
        self._node: Node | None = None
        self._subscriptions: dict[TypeUrl, XdsSubscription] = {}
        self._telling_order: tuple[XdsSubscription, ...] = ()
        self._taking_order: tuple[XdsSubscription, ...] = ()
        # Clusters that were sent before the client says which load assignments it holds: for these
        # its word is not trusted. None: there were too many to remember.
        self._clusters_sent: set[str] | None = set()
        self._nonces = 0
        # How many more names this call may look at; and whether the transport gave this stream a
        # turn of its own, in which it may do work of some ms.
        self._looks_left = 0
        self._own_turn = False
        self._taking: Iterator[None] | None = None  # The request under way.
        self._half_closed = False
        self._expired = False

    @property
    def node(self) -> Node | None:
        """The client; None before the first request."""
        return self._node

    @property
    def subscriptions(self) -> Mapping[TypeUrl, XdsSubscription]:
        """Its subscriptions, by type. Do not change them."""
        return self._subscriptions

    # -- What the transport calls --

    def receive(self, request: bytes) -> None:
        """Take in a request. Raises RpcError (INVALID_ARGUMENT) for bytes that are not a request.

        No name and no number of names ends the stream, as anybody may make an Envoy ask for one: a
        name that is too long, or one too many, names nothing. Of a request with many names, the
        rest is taken in when the stream is asked for messages, before it returns any.
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
        """Take in as much of the request as one turn allows; whether that was all."""
        assert self._taking is not None
        most = self._shared.looks_max * _NAMES_A_LOOK
        if sum(1 for _ in islice(self._taking, most)) == most:
            return False
        self._taking = None
        return True

    def half_close(self) -> None:
        """The client only listens now: it is sent what is due, and then the stream ends."""
        self._half_closed = True

    def next_message(self) -> bytes | Later | None:
        """The next response. Raises EndOfStream at the stream's age, or after `half_close`."""
        if self._expired:
            raise EndOfStream
        if self._taking is not None and not self._take_in():
            return LATER
        if self._node is not None:
            self._following.settle(self._needs)
            # A partial answer to a wildcard would delete what it lacks: send nothing until all is
            # there.
            if not self._shared.cache.synced:
                return None
            self._looks_left = self._shared.looks_max
            self._follow_listings(self._node)
            message = self._next_response(self._node)
            self._own_turn = message is LATER
            if not self._claims.empty:
                self._end_claims()
            if message is not None:
                return message
        if self._half_closed:
            raise EndOfStream
        return None

    def close(self) -> None:
        """Release everything."""
        self._names.close()
        self._claims.close()
        self._taking = None
        subscriptions, self._subscriptions = self._subscriptions, {}
        self._telling_order = self._taking_order = ()
        for subscription in subscriptions.values():
            subscription.close()
        self._shared.let_go(_let_go(self._following.close(), subscriptions))

    def expire(self) -> None:
        """End the stream soon, with OK: it is old enough."""
        self._expired = True
        self._wake()

    # -- Requests --

    def _type_of(self, type_url: str) -> TypeUrl | None:
        """The type of a request; None for one that we do not serve."""
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
        """Note an ACK or NACK: it is a NACK if it has an error, whatever version it names."""
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
        """Take in a request, a name at a time.

        Its nonce does not matter: requests come in order, so its names are the client's newest.
        Only the response that it acknowledges may be old.
        """
        if isinstance(asked, DeltaRequest):
            yield from self._take_delta(subscription, asked)
        else:
            yield from self._take_sotw(subscription, asked)
        subscription.begun = True
        if subscription.type_url is TypeUrl.ENDPOINT:
            self._clusters_sent = set()

    def _take_sotw(self, subscription: XdsSubscription, asked: SotwRequest) -> Iterator[None]:
        names: dict[str, None] = {}
        unread = iter(asked.names)
        while some := dict.fromkeys(islice(unread, _NAMES_A_STEP)):
            names |= some
            yield
        wildcard = WILDCARD in names or not (names or subscription.named)
        subscription.named = subscription.named or bool(names)
        names.pop(WILDCARD, None)
        if not subscription.begun:
            subscription.answer_due = subscription.type_url in _WHOLE
        elif names.keys() == subscription.names.keys() and wildcard == subscription.wildcard:
            return  # As with every ACK.
        if wildcard:
            self._set_wildcard(subscription, True)
        for name in [name for name in subscription.names if name not in names]:
            self._unsubscribe(subscription, name)
            yield
        for name in names:
            if name not in subscription.names:
                # Sent even if the wildcard had it: the client may have dropped it.
                self._subscribe(subscription, name, forced=True)
                yield
        if not wildcard:
            # Last, so that resources now requested by name stay sent.
            self._set_wildcard(subscription, False)

    def _take_delta(self, subscription: XdsSubscription, asked: DeltaRequest) -> Iterator[None]:
        if not subscription.begun:
            self._set_wildcard(subscription, not asked.subscribe or WILDCARD in asked.subscribe)
            yield from self._take_held(subscription, asked.held)
            subscription.answer_due = subscription.wildcard and not subscription.claimed
        for name in asked.subscribe:
            if name == WILDCARD:
                if subscription.begun:
                    self._subscribe_to_all(subscription)
            else:
                # Only what the same request claims need not be sent.
                forced = subscription.begun or name not in subscription.claimed
                self._subscribe(subscription, name, forced=forced)
            yield
        if WILDCARD in asked.unsubscribe:
            self._set_wildcard(subscription, False)
        for name in asked.unsubscribe:
            self._unsubscribe(subscription, name, forced=True)
            yield

    def _take_held(self, subscription: XdsSubscription, held: Sequence[bytes]) -> Iterator[None]:
        """Take in what the client says it holds: it is compared once, and removals are sent."""
        assignments, sent = subscription.type_url is TypeUrl.ENDPOINT, self._clusters_sent
        for one in held:
            if (known := xds_requests.held_version(one)) is None:
                yield
                continue
            name, version = known
            # A cluster that was sent waits for its endpoints, even unchanged ones.
            if assignments and (sent is None or name in sent):
                version = ""
            if name in subscription.claimed:
                subscription.claim(name, version)  # Of several, the last counts.
            elif len(name) <= _NAME_MAX and self._takes(self._claims, name):
                subscription.claim(name, version)
                if not subscription.wildcard:
                    subscription.note(name)
            else:
                self._deny(subscription, name)
            yield

    def _has_room(self, subscription: XdsSubscription, name: str) -> bool:
        """Whether there is room for one more name; takes the room in `StreamNames`.

        If its client comes back, it lists all of them in one request, which has to be taken.
        """
        if len(name) > _NAME_MAX:
            return False
        limits, setting = self._shared.limits, ""
        if len(subscription.names) >= limits.xds_resources_max:
            setting = "xds_resources_max"
        elif subscription.resuming_bytes + xds_requests.resuming_bytes(name) > (
            limits.message_bytes_max * _OF_A_REQUEST
        ):
            setting = "message_bytes_max"
        if setting:
            self._shared.counts.refusals[setting] += 1
            self._shared.on_excess(self._names.client, name, setting)
            return False
        return self._takes(self._names, name)

    def _takes(self, names: StreamNames, name: str) -> bool:
        """Whether there is room for a name in `names`, which is taken then."""
        if setting := names.take(name):
            self._shared.on_excess(self._names.client, name, setting)
            return False
        return True

    def _end_claims(self) -> None:
        """Give back the room for claimed names, once all have been compared."""
        if not any(subscription.claimed for subscription in self._subscriptions.values()):
            self._claims.close()
            for subscription in self._subscriptions.values():
                subscription.claimed = {}

    def _deny(self, subscription: XdsSubscription, name: str) -> None:
        """Have the client be sent that a name does not exist; only deltas can say so."""
        if self._form is Form.DELTA:
            subscription.deny(name, self._shared.limits.response_bytes_max)

    def _set_wildcard(self, subscription: XdsSubscription, wildcard: bool) -> None:
        if wildcard == subscription.wildcard:
            return
        subscription.wildcard = wildcard
        if subscription.all_told is not None:
            # From now on, "all resources" are others.
            subscription.all_told = self._shared.resources.all_of(subscription.type_url)
        if wildcard:
            # An Envoy waits for its first answer, even an empty one.
            whole = subscription.type_url in _WHOLE or self._form is Form.DELTA
            subscription.answer_due |= whole and not subscription.claimed
        else:
            subscription.close()
            for name in subscription.noted():
                if name not in subscription.names:
                    subscription.forget(name)

    def _subscribe_to_all(self, subscription: XdsSubscription) -> None:
        """Delta: everything is sent again, as with any name that is subscribed to once more."""
        if subscription.wildcard:
            subscription.answer_due = True
            subscription.disbelieve()
            if subscription.listed is not None:
                subscription.listed.again()
        self._set_wildcard(subscription, True)

    def _subscribe(self, subscription: XdsSubscription, name: str, *, forced: bool) -> None:
        if name not in subscription.names and not self._has_room(subscription, name):
            self._deny(subscription, name)
            return
        asked = subscription.ask(name)
        subscription.note(name if asked is None else asked.name, forced=forced)
        if asked is not None:
            # Even if it does not exist, so that the stream learns when it does.
            self._following.follow(asked.service)

    def _unsubscribe(
        self, subscription: XdsSubscription, name: str, *, forced: bool = False
    ) -> None:
        listed = subscription.listed
        known = (
            name in subscription.names
            or name in subscription.told
            or (listed is not None and listed.listing.resource(name) is not None)
        )
        if name in subscription.names:
            self._names.give_back(name)
        if (asked := subscription.drop(name)) is not None:
            self._following.loosen(asked.service)
        if subscription.wildcard and known:
            # The wildcard may cover it; the client cannot know.
            subscription.note(name, forced=forced)
        elif subscription.wildcard:
            self._deny(subscription, name)
        else:
            subscription.forget(name)

    def _needs(self, service: Key) -> bool:
        return any(subscription.concerns(service) for subscription in self._subscriptions.values())

    # -- Responses --

    def _follow_listings(self, node: Node) -> None:
        """Follow the listings of all types with a wildcard, now that the cache is synced."""
        for subscription in self._telling_order:
            if subscription.wildcard and subscription.listed is None and _has(node, subscription):
                subscription.listed = self._shared.listings.follow(
                    subscription.type_url,
                    self._shared.scope.bound(node),
                    node.filter_class,
                    self._wake,
                )

    def _next_response(self, node: Node) -> bytes | Later | None:
        while True:
            if self._may_mark() and not self._mark():
                return LATER
            for told in self._telling_order:
                due = (told.pending or told.answer_due or _reads(told)) and not self._waits(told)
                if due and (message := self._upserts(node, told)) is not None:
                    return message
            for taken in self._taking_order:
                gone = (taken.leaving or taken.denied) and not self._waits(taken)
                if gone and (message := self._removals(node, taken)) is not None:
                    return message
            if not (self._following.noted or self._under_way() or self._behind()):
                return None

    def _may_mark(self) -> bool:
        """Whether it is time to look at news.

        What has begun is finished first, so that removals come however much changes. But a first
        answer must have everything: its client would delete what it lacked.
        """
        for subscription in self._telling_order:
            if subscription.answer_due:
                return True
        return not self._under_way()

    def _under_way(self) -> bool:
        # A loop, as any() takes three times as long, and this runs twice for each message.
        for subscription in self._telling_order:
            under_way = subscription.under_way or _reads(subscription)
            if under_way and not self._waits(subscription):
                return True
        return False

    def _behind(self) -> bool:
        for subscription in self._telling_order:
            listed = subscription.listed
            if listed is not None and listed.behind and not self._waits(subscription):
                return True
        return False

    def _waits(self, subscription: XdsSubscription) -> bool:
        """Whether the client must acknowledge the last response of a type before the next is sent.

        So a distant client has one response of load assignments under way, and not one for each
        change. The other types change seldom, and an Envoy acknowledges clusters only once
        all of them, those of other servers too, have their endpoints.
        """
        if self._form is Form.DELTA or subscription.type_url is not TypeUrl.ENDPOINT:
            return False
        return subscription.unheard and not self._half_closed

    def _mark(self) -> bool:
        """Mark names that may have news; False if others should have their turn first."""
        for subscription in self._telling_order:
            if subscription.listed is not None and subscription.listed.behind:
                subscription.listed.reading = True
        for topic in self._following.take_noted():
            for subscription in self._telling_order:
                for name in subscription.names_of(topic.service):
                    subscription.note(name)
            self._looks_left -= 1
            if self._looks_left <= 0:
                return False
        return True

    def _resource(self, node: Node, subscription: XdsSubscription, name: str) -> Resource | None:
        """The resource of a name, as this client may see it now; None if there is none."""
        if name not in subscription.names:
            return subscription.listed.listing.resource(name) if subscription.listed else None
        resources, type_url = self._shared.resources, subscription.type_url
        asked = self._shared.references.of(name)
        topic = self._following.topic(asked.service) if asked is not None else None
        if asked is None or topic is None or not _has(node, subscription):
            return None
        if type_url is TypeUrl.ENDPOINT:
            return resources.endpoints(topic.current, name, asked.port)
        if resources.port(topic.current, asked.port) is None:
            return None
        return resources.static(type_url, name)

    def _upserts(self, node: Node, subscription: XdsSubscription) -> bytes | Later | None:
        """A response with new resources of a type, as many as it may hold.

        Resources found before others have their turn are kept in the subscription's draft.
        """
        all_told, parts = subscription.all_told, subscription.draft
        size = 0 if all_told else sum(map(len, parts.values()))
        while (new := self._next_new(node, subscription)) is not None:
            if new is LATER:
                return LATER
            resource = new.resource
            name, part = resource.name, resource.sotw
            if self._form is Form.DELTA:
                part = resource.delta
            full = size + len(part) > self._shared.limits.response_bytes_max
            if full and parts and not all_told:
                subscription.pending[name] = True
                subscription.pending.move_to_end(name, last=False)
                break
            if subscription.type_url is TypeUrl.CLUSTER and new.changed:
                self._cluster_told(name)
            if name in subscription.names:
                subscription.tell(name, resource.digest)
            else:
                subscription.pass_on(name)
            parts[name] = part
            size += len(part)
        if not subscription.pending:
            subscription.pending = OrderedDict()  # One that was full is as large when it is empty.
        if not (parts or (subscription.answer_due and new is None)):
            return None
        if all_told:
            return self._whole(subscription, all_told)
        subscription.draft = {}
        return self._response(subscription, parts, tuple(parts.values()))

    def _next_new(self, node: Node, subscription: XdsSubscription) -> _New | Later | None:
        """The next resource to send; None if there is no other now."""
        while subscription.pending:
            if self._looks_left <= 0:
                return LATER
            if (listed := subscription.listed) is not None and listed.listing.behind:
                self._looks_left -= listed.listing.catch_up(self._looks_left)
                continue
            self._looks_left -= 1
            name, forced = subscription.pending.popitem(last=False)
            resource = self._resource(node, subscription, name)
            if resource is None and self._is_awaited(subscription, name, forced=forced):
                resource = self._empty(name)
            if resource is None:
                self._gone(subscription, name, forced)
                continue
            self._looks_left -= resource.more_looks
            if listed is not None and name not in subscription.names:
                listed.told_ahead(name)
            forced = subscription.leaving.pop(name, False) or forced
            if subscription.owes(resource, forced=forced):
                return _New(resource, subscription.told.get(name) != resource.digest)
            self._skip(subscription, name)
        if (listed := subscription.listed) is None or not listed.reading:
            return self._compare_claims(node, subscription)
        return self._next_listed(node, subscription, listed)

    def _next_listed(
        self, node: Node, subscription: XdsSubscription, listed: Wildcard
    ) -> _New | Later | None:
        """The same for what the wildcard covers."""
        whole = subscription.all_told is not None
        if whole and not listed.answered and TypeUrl.ENDPOINT not in self._subscriptions:
            # All of it becomes one body, and nothing else depends on what is new in it.
            return self._skip_listed(subscription, listed)
        while self._looks_left > 0:
            if listed.listing.behind:
                self._looks_left -= listed.listing.catch_up(self._looks_left)
                continue
            self._looks_left -= 1
            due = listed.take()
            if due is not None:
                if (new := self._of_listed(subscription, due)) is not None:
                    return new
            elif not listed.running and not (whole and listed.behind):
                listed.reading = False
                return self._compare_claims(node, subscription)
        return LATER

    def _skip_listed(self, subscription: XdsSubscription, listed: Wildcard) -> Later | None:
        while listed.listing.behind:
            if self._looks_left <= 0:
                return LATER
            self._looks_left -= listed.listing.catch_up(self._looks_left)
        listed.skip()
        listed.reading = False
        subscription.answer_due = True
        return None

    def _of_listed(self, subscription: XdsSubscription, due: ListedDue) -> _New | None:
        """What to send about a name that the wildcard covers, or did; None if nothing."""
        name, resource = due.name, due.cell.resource
        if subscription.all_told is not None:
            subscription.all_told.note(name)
        if name in subscription.names:
            return None  # It is sent by its name.
        claimed = subscription.claimed.pop(name, None) if subscription.claimed else None
        if resource is None:
            subscription.pending.pop(name, None)
            if self._form is Form.DELTA or subscription.type_url is not TypeUrl.ROUTE:
                subscription.leaving.setdefault(name, False)
            return None
        subscription.leaving.pop(name, None)
        if claimed is not None and claimed == resource.version:
            self._skip(subscription, name)
            return None
        return _New(resource, not due.known or due.cell.version > due.since)

    def _skip(self, subscription: XdsSubscription, name: str) -> None:
        """Note that the client holds the newest one."""
        if name not in subscription.names:
            subscription.pass_on(name)
        self._shared.counts.xds_resources_skipped[subscription.type_url.label] += 1

    def _compare_claims(self, node: Node, subscription: XdsSubscription) -> _New | Later | None:
        """The same for what the client claims to hold and no wildcard covers."""
        listed = subscription.listed
        if subscription.claimed and subscription.wildcard and (listed is None or listed.answered):
            for name in islice(subscription.claimed, self._shared.looks_max):
                subscription.note(name)  # Each is claimed no more once it is looked at.
            return self._next_new(node, subscription)
        return None

    def _is_awaited(self, subscription: XdsSubscription, name: str, *, forced: bool) -> bool:
        """Whether a client waits for the load assignment of a service that does not exist (yet).

        Otherwise an Envoy would hold back its listeners, or a changed cluster, for 15 s. A delta
        client is sent that there is none.
        """
        if self._form is Form.DELTA or subscription.type_url is not TypeUrl.ENDPOINT:
            return False
        if name not in subscription.names or self._shared.references.of(name) is None:
            return False
        return forced or name not in subscription.told

    def _removals(self, node: Node, subscription: XdsSubscription) -> bytes | Later | None:
        """A response that removes resources of a type that are gone."""
        endpoints = subscription.type_url is TypeUrl.ENDPOINT
        if endpoints and (message := self._emptied(node, subscription)) is not None:
            return message
        for name in subscription.take_denied(self._removed_max):
            subscription.leaving[name] = True
        removed = self._take_away(node, subscription)
        if endpoints and self._form is Form.SOTW:
            return LATER if subscription.leaving else None
        if not removed:
            return None
        if subscription.all_told is not None:
            return self._whole(subscription, subscription.all_told)
        return self._response(subscription, removed, (), removed)

    @property
    def _removed_max(self) -> int:
        """How many names one response may take away: some 10 ms of work."""
        return self._shared.looks_max * _NAMES_A_LOOK

    def _take_away(self, node: Node, subscription: XdsSubscription) -> Sequence[str]:
        """The names that are gone, as many as one response may hold; notes each as sent."""
        whole, size = subscription.all_told is not None, 0
        removed: list[str] = []
        while subscription.leaving and size < self._shared.limits.response_bytes_max:
            if len(removed) == self._removed_max and not whole:
                break
            name, forced = subscription.leaving.popitem(last=False)
            if self._resource(node, subscription, name) is not None:
                # It has come back.
                subscription.note(name, forced=forced or name not in subscription.names)
                continue
            if whole or name not in subscription.names:
                subscription.forget(name)
            elif self._form is Form.DELTA:
                subscription.tell(name, ABSENT)
            removed.append(name)
            size += removed_bytes(name)
        if not subscription.leaving:
            subscription.leaving = OrderedDict()  # As above.
        return removed

    def _emptied(self, node: Node, subscription: XdsSubscription) -> bytes | None:
        """A response that empties load assignments that are gone, if the client holds endpoints.

        Those that come next of what is leaving: it is asked for each time before some are taken
        away. In the state of the world nothing else says that they are gone. In deltas, those that
        were requested by name are removed after it: an Envoy goes on with the endpoints of an
        assignment that is only removed.
        """
        names: list[str] = []
        parts: list[bytes] = []
        size = 0
        for name in islice(subscription.leaving, self._removed_max):
            # In the state of the world, a name of the wildcard alone has no entry in `told`.
            otherwise = None if self._form is Form.DELTA else UNKNOWN
            told = subscription.told.get(name, otherwise)
            asked = self._form is Form.SOTW or name in subscription.names
            if not (told and asked) or size >= self._shared.limits.response_bytes_max:
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
        """There is no such resource: note whether the client must be sent that."""
        if subscription.claimed.pop(name, None) is not None:
            forced = True
            if self._shared.references.of(name) is not None:  # Else it is not ours.
                subscription.tell(name, UNKNOWN)
        told = subscription.told.get(name)
        # A name of the wildcard alone has no entry, but was sent.
        held = bool(told) or (forced and name not in subscription.names)
        if self._form is Form.DELTA:
            due = held or forced or (told is None and name in subscription.names)
        elif subscription.type_url is TypeUrl.ENDPOINT:
            due = held and told != self._empty(name).digest
        else:
            # No response can remove a route. It goes with its listener.
            due = held and subscription.type_url is not TypeUrl.ROUTE
        if due:
            subscription.leaving[name] = forced
        elif name not in subscription.names or subscription.type_url is TypeUrl.ROUTE:
            subscription.forget(name)

    def _cluster_told(self, name: str) -> None:
        """A changed cluster waits until its endpoints come again, even if they are the same."""
        assignments = self._subscriptions.get(TypeUrl.ENDPOINT)
        if assignments is None:
            if (
                self._form is Form.DELTA
                and self._implied is None
                and self._clusters_sent is not None
            ):
                self._clusters_sent.add(name)
                if len(self._clusters_sent) > _CLUSTERS_SENT_MAX:
                    self._clusters_sent = None
        elif name in assignments.names:
            assignments.note(name, forced=True)
        elif assignments.listed is not None:
            if name in assignments.claimed:
                assignments.claim(name, "")  # To be sent whatever it was, or that it is gone.
            if assignments.listed.begun:
                assignments.note(name, forced=True)

    def _empty(self, name: str) -> Resource:
        """The load assignment without endpoints."""
        return self._shared.resources.empty(name)

    def _whole(self, subscription: XdsSubscription, all_told: BodyReader) -> bytes | Later:
        """A response with all resources of a type for the client."""
        listed, others = subscription.listed, self._unlisted(subscription)
        digest: int = subscription.digest
        names: Mapping[str, object] = subscription.told
        if listed is not None:
            digest = (listed.listing.digest + sum(o.digest for o in others)) % DIGESTS
            names = listed.listing.all
            if others:
                names = {**names, **dict.fromkeys(other.name for other in others)}
        whole = None
        # A body is shared by its digest, so every change until now must have been noted.
        noted = listed is None or not listed.behind
        if noted and (self._own_turn or len(names) <= self._shared.looks_max):
            whole = all_told.read(digest, names, subscription.nonce)
        if whole is None:
            subscription.answer_due = True
            return LATER
        subscription.draft = {}
        self._sends(subscription, whole.nonce, None, len(names))
        return whole.message

    def _unlisted(self, subscription: XdsSubscription) -> Sequence[Resource]:
        """The resources that a client holds beside all that the wildcard covers now.

        Resources to be removed are removed last, and so are still among them.
        """
        if subscription.listed is None or not (subscription.told or subscription.leaving):
            return ()
        listing, static = subscription.listed.listing, self._shared.resources.static
        return [
            static(subscription.type_url, name)
            for name in dict.fromkeys(chain(subscription.told, subscription.leaving))
            if listing.resource(name) is None
        ]

    def _response(
        self,
        subscription: XdsSubscription,
        names: Collection[str],
        parts: Sequence[bytes],
        removed: Sequence[str] = (),
    ) -> bytes:
        """A response about these names."""
        self._nonces += 1
        self._sends(subscription, self._nonces, names, len(names))
        return response(subscription.type_url, subscription.digest, self._nonces, parts, removed)

    def _sends(
        self, subscription: XdsSubscription, nonce: int, names: Collection[str] | None, count: int
    ) -> None:
        """Note a response about these names, or about all resources (None)."""
        subscription.answer_due = False
        subscription.sent(nonce, names)
        self._shared.counts.xds_resources_sent[subscription.type_url.label] += count


def _let_go(
    following: Iterator[None],
    subscriptions: dict[TypeUrl, XdsSubscription],
) -> Iterator[None]:
    """Release what is left of a stream, step by step, as its names are many objects too."""
    yield from following
    while subscriptions:
        subscriptions.popitem()
        yield


def _reads(subscription: XdsSubscription) -> bool:
    """Whether a run of the wildcard is under way."""
    return subscription.listed is not None and subscription.listed.reading


def _changes_nothing(asked: SotwRequest | DeltaRequest) -> bool:
    """Whether a request that is not a stream's first asks for nothing new, as a delta ACK."""
    return isinstance(asked, DeltaRequest) and not (asked.subscribe or asked.unsubscribe)


def _has(node: Node, subscription: XdsSubscription) -> bool:
    """Whether there are resources of a type for a client.

    Envoy needs listeners with an address, and we know none.
    """
    return not (node.envoy and subscription.type_url is TypeUrl.LISTENER)
