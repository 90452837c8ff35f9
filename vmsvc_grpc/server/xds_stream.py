"""One stream of xDS, in either form: its subscriptions, nonces, ACKs and NACKs.

The stream notes which services may have something new. What to send is worked out when
the transport asks, from what is newest then, so nothing waits here for a client that
does not read. The rules are those of Envoy's `xds_protocol` page.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from envoy.service.discovery.v3 import discovery_pb2

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.topic import Absence, Absent, Topic
from vmsvc_grpc.model.endpoints import EndpointSet
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server import xds_requests
from vmsvc_grpc.server.call import Code, EndOfStream, RpcError, Wake
from vmsvc_grpc.server.counts import Counts
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.xds_names import WILDCARD, canonical_names, port_of, reference
from vmsvc_grpc.server.xds_requests import DeltaRequest, Node, SotwRequest
from vmsvc_grpc.server.xds_resources import Resource, Resources, TypeUrl
from vmsvc_grpc.server.xds_subscription import ABSENT, XdsSubscription


class Form(Enum):
    """The two forms of the protocol."""

    SOTW = "state of the world"
    DELTA = "delta"


class XdsScope(Enum):
    """Which services a client may see; the value is the setting's."""

    ALL = "all"
    NAMESPACE = "namespace"
    """Those of the namespace that its node's metadata names."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A NACK: which content a client refuses, and its words."""

    node: str
    type_url: TypeUrl
    version: str
    message: str


OnRefusal = Callable[[Refusal], None]
"""Told each NACK. Must only take note."""


@dataclass(frozen=True, slots=True)
class XdsShared:
    """What all streams of a server have in common."""

    cache: Cache
    resources: Resources
    scope: XdsScope
    limits: Limits
    counts: Counts
    on_refusal: OnRefusal


_TYPES = {type_url.value: type_url for type_url in TypeUrl}

# Make before break: what others refer to comes first, and goes last.
_ORDER = (TypeUrl.CLUSTER, TypeUrl.ENDPOINT, TypeUrl.LISTENER, TypeUrl.ROUTE)
_REMOVAL_ORDER = (TypeUrl.LISTENER, TypeUrl.ROUTE, TypeUrl.CLUSTER, TypeUrl.ENDPOINT)

# In the state of the world, a response with these has all of them: absence is deletion.
_WHOLE = frozenset({TypeUrl.CLUSTER, TypeUrl.LISTENER})

# What a name in `removed_resources` takes beside its text: a tag and a length.
_NAME_BYTES = 8


class XdsStream:
    """The stream of one call: a `call.Stream`, and to the cache a Subscription and ScopeWatcher."""

    def __init__(self, form: Form, implied: TypeUrl | None, shared: XdsShared, wake: Wake) -> None:
        """`implied` is the type of a service that has one; None for the aggregated one."""
        self._form = form
        self._implied = implied
        self._cache = shared.cache
        self._resources = shared.resources
        self._scope = shared.scope
        self._limits = shared.limits
        self._counts = shared.counts
        self._on_refusal = shared.on_refusal
        self._wake = wake
        self._node: Node | None = None
        self._subscriptions: dict[TypeUrl, XdsSubscription] = {}
        self._topics: dict[Key, Topic] = {}
        # In order, so that no service waits for ever. Taking the first of a plain dict
        # again and again is quadratic.
        self._noted: OrderedDict[Key, None] = OrderedDict()
        self._scan_due = False
        self._loose: dict[Key, None] = {}
        self._nonces = 0
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
        """Take in a request. Raises RpcError (INVALID_ARGUMENT, RESOURCE_EXHAUSTED)."""
        asked: SotwRequest | DeltaRequest
        asked = (xds_requests.sotw if self._form is Form.SOTW else xds_requests.delta)(request)
        if self._node is None:
            self._node = asked.node
        type_url = self._type_of(asked.type_url)
        if type_url is None:
            return
        if (subscription := self._subscriptions.get(type_url)) is None:
            subscription = self._subscriptions[type_url] = XdsSubscription(type_url)
        self._heard(self._node, subscription, asked)
        if isinstance(asked, DeltaRequest):
            self._take_delta(subscription, asked)
        elif not subscription.nonce or asked.nonce == subscription.nonce:
            self._take_sotw(subscription, asked)
        subscription.begun = True
        if len(subscription.names) > self._limits.services_per_stream_max:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"the stream asks for more than {self._limits.services_per_stream_max} resources "
                f"of {type_url.label}, which is the server's limit (services_per_stream_max); "
                "open another stream",
            )
        self._choose_scope(self._node)

    def half_close(self) -> None:
        """The client only listens now: it is told what is due, and then the stream ends."""
        self._half_closed = True

    def next_message(self) -> bytes | None:
        """The next response. Raises EndOfStream at the stream's age, or after `half_close`."""
        if self._expired:
            raise EndOfStream
        if self._node is not None:
            # Part of a wildcard's answer would delete what it lacks: nothing until all is there.
            if not self._cache.synced:
                return None
            if (response := self._next_response(self._node)) is not None:
                return response
            self._choose_scope(self._node)
            self._let_go()
        if self._half_closed:
            raise EndOfStream
        return None

    def close(self) -> None:
        """Let go of every topic, and of the cache."""
        self._cache.unwatch_scope(self)
        for topic in self._topics.values():
            self._cache.unsubscribe(topic, self)
        self._topics.clear()
        self._noted.clear()
        self._subscriptions.clear()

    def expire(self) -> None:
        """End the stream soon, with OK: it is old enough."""
        self._expired = True
        self._wake()

    # -- What the cache calls --

    def wake(self, topic: Topic) -> None:
        """Note that a service has something newer."""
        self._note(topic.service)

    def created(self, service: Key) -> None:
        """Note a service that exists now, if a wildcard may cover it."""
        if self._has_wildcard():
            if len(self._noted) < self._limits.services_per_stream_max:
                self._note(service)
            else:
                # The client does not read, and most of what is noted may be gone again.
                self._scan_due = True

    def cache_synced(self) -> None:
        """The cache is complete: answers can be given."""
        self._wake()

    def _note(self, service: Key) -> None:
        if not self._noted:
            self._wake()
        self._noted[service] = None

    # -- What the client asks --

    def _type_of(self, type_url: str) -> TypeUrl | None:
        """The type that a request is about; None for one that we do not have."""
        if self._implied is None:
            if not type_url:
                text = "the request has no type_url, which an aggregated stream needs"
                raise RpcError(Code.INVALID_ARGUMENT, text)
            return _TYPES.get(type_url)
        if type_url not in ("", self._implied.value):
            raise RpcError(
                Code.INVALID_ARGUMENT,
                f"type_url is {type_url[:200]!r}, but this service has only {self._implied.value}; "
                "use the aggregated service for several types",
            )
        return self._implied

    def _heard(
        self, node: Node, subscription: XdsSubscription, asked: SotwRequest | DeltaRequest
    ) -> None:
        """Note an ACK or NACK: it is a NACK if it says so, whatever version it names."""
        label = subscription.type_url.label
        newest = asked.nonce == subscription.nonce
        if asked.refusal is not None:
            self._counts.xds_nacks[label] += 1
            if newest:
                subscription.acked, subscription.refusal = False, asked.refusal
            self._on_refusal(
                Refusal(node.id, subscription.type_url, subscription.version, asked.refusal)
            )
        elif asked.nonce and subscription.nonce:
            self._counts.xds_acks[label] += 1
            if newest:
                subscription.acked, subscription.refusal = True, None

    def _take_sotw(self, subscription: XdsSubscription, asked: SotwRequest) -> None:
        names = dict.fromkeys(asked.names)
        wildcard = WILDCARD in names or not (names or subscription.named)
        subscription.named = subscription.named or bool(names)
        names.pop(WILDCARD, None)
        whole = subscription.type_url in _WHOLE
        if not subscription.begun:
            subscription.answer_due = whole
            if asked.version and subscription.type_url is TypeUrl.ENDPOINT:
                # What it holds from before may have gone, and no response could say so.
                for name in names:
                    if reference(name) is not None:
                        subscription.claim(name, "")
        if wildcard:
            self._set_wildcard(subscription, True)
        for name in [name for name in subscription.names if name not in names]:
            self._unsubscribe(subscription, name)
        for name in names:
            if name not in subscription.names:
                self._subscribe(subscription, name)
        if not wildcard:
            # Last, so that what is asked for by name now stays told.
            self._set_wildcard(subscription, False)

    def _take_delta(self, subscription: XdsSubscription, asked: DeltaRequest) -> None:
        if not subscription.begun:
            for name, version in asked.held.items():
                subscription.claim(name, version)
                self._follow(name)
                subscription.note(name)
            self._set_wildcard(subscription, not asked.subscribe)
        for name in asked.subscribe:
            if name == WILDCARD:
                self._set_wildcard(subscription, True)
            else:
                claimed = name in subscription.claimed
                self._subscribe(subscription, name, forced=not claimed)
        for name in asked.unsubscribe:
            if name == WILDCARD:
                self._set_wildcard(subscription, False)
            else:
                self._unsubscribe(subscription, name, forced=subscription.wildcard)

    def _set_wildcard(self, subscription: XdsSubscription, wildcard: bool) -> None:
        if wildcard and not subscription.wildcard:
            self._scan_due = True
            # An Envoy waits for its first answer, also where there is nothing.
            whole = subscription.type_url in _WHOLE or self._form is Form.DELTA
            subscription.answer_due = subscription.answer_due or (
                whole and not subscription.claimed
            )
        elif subscription.wildcard and not wildcard:
            for name in [name for name in subscription.told if name not in subscription.names]:
                self._forget(subscription, name)
            self._loose.update(dict.fromkeys(self._topics))
        subscription.wildcard = wildcard

    def _subscribe(self, subscription: XdsSubscription, name: str, *, forced: bool = False) -> None:
        subscription.ask(name)
        self._follow(name)
        subscription.note(name, forced=forced)

    def _unsubscribe(
        self, subscription: XdsSubscription, name: str, *, forced: bool = False
    ) -> None:
        subscription.drop(name)
        if subscription.wildcard:
            # It may be one of those that the wildcard has; the client cannot know.
            self._follow(name)
            subscription.note(name, forced=forced)
        else:
            self._forget(subscription, name)

    def _forget(self, subscription: XdsSubscription, name: str) -> None:
        subscription.forget(name)
        if (asked := reference(name)) is not None:
            self._loose[asked.service] = None

    # -- What is followed --

    def _choose_scope(self, node: Node) -> None:
        """Hear of new services only if a wildcard asks for them, or of the cache's sync."""
        if self._cache.synced and not self._has_wildcard():
            self._cache.unwatch_scope(self)
        else:
            everywhere = self._scope is XdsScope.ALL
            self._cache.watch_scope(self, None if everywhere else node.namespace)

    def _has_wildcard(self) -> bool:
        return any(subscription.wildcard for subscription in self._subscriptions.values())

    def _visible(self, service: Key) -> bool:
        if self._scope is XdsScope.ALL:
            return True
        return self._node is not None and service.namespace == self._node.namespace

    def _follow(self, name: str) -> None:
        if (asked := reference(name)) is not None and self._visible(asked.service):
            self._follow_service(asked.service)

    def _follow_service(self, service: Key) -> Topic:
        topic = self._topics.get(service)
        if topic is None:
            assert self._node is not None, "who asks for names is known"
            topic = self._cache.subscribe(service, self._node.filter_class, self)
            self._topics[service] = topic
        return topic

    def _let_go(self) -> None:
        """Follow no service any more that nothing asked for or held needs."""
        wildcard = self._has_wildcard()
        loose, self._loose = self._loose, {}
        for service in loose:
            topic = self._topics.get(service)
            if topic is None or any(s.concerns(service) for s in self._subscriptions.values()):
                continue
            state = topic.current.state
            gone = isinstance(state, Absent) and state.absence is Absence.NOT_FOUND
            if gone or not wildcard:
                # The cache tells a wildcard when it is there again.
                self._cache.unsubscribe(topic, self)
                del self._topics[service]

    # -- What to tell --

    def _next_response(self, node: Node) -> bytes | None:
        while True:
            # What has begun is ended first, so that removals come, however much changes.
            if not self._under_way():
                self._look_at_noted(node)
            for type_url in _ORDER:
                subscription = self._subscriptions.get(type_url)
                if subscription and (response := self._upserts(node, subscription)) is not None:
                    return response
            for type_url in _REMOVAL_ORDER:
                subscription = self._subscriptions.get(type_url)
                if subscription and (response := self._removals(node, subscription)) is not None:
                    return response
            if not (self._noted or self._scan_due or self._under_way()):
                return None

    def _under_way(self) -> bool:
        return any(s.pending or s.leaving for s in self._subscriptions.values())

    def _look_at_noted(self, node: Node) -> None:
        """Mark each name that what is noted may have changed."""
        if self._scan_due:
            self._scan()
        wildcard = self._has_wildcard()
        while self._noted:
            service, _ = self._noted.popitem(last=False)
            topic = self._topics.get(service)
            exists = service in self._cache.services
            if topic is None and wildcard and exists and self._visible(service):
                topic = self._follow_service(service)
            if topic is not None:
                self._mark(node, service, topic.current.state)

    def _scan(self) -> None:
        """Note each service that a wildcard covers. O(services)."""
        self._scan_due = False
        for service, known in self._cache.services.items():
            if self._visible(service) and not known.object.meta.deleting:
                self._noted[service] = None

    def _mark(self, node: Node, service: Key, state: EndpointSet | Absent) -> None:
        """Mark each name of a service, those that a wildcard covers now among them."""
        if isinstance(state, Absent):
            self._loose[service] = None
            covered: tuple[str, ...] = ()
        else:
            covered = tuple(canonical_names(service, state.ports))
        for subscription in self._subscriptions.values():
            for name in subscription.names_of(service):
                subscription.note(name)
            if subscription.wildcard and _has(node, subscription.type_url):
                for name in covered:
                    subscription.note(name)

    def _resource(self, node: Node, subscription: XdsSubscription, name: str) -> Resource | None:
        """The resource of a name as this client may see it now; None if there is none."""
        asked = reference(name)
        topic = self._topics.get(asked.service) if asked is not None else None
        if asked is None or topic is None or not _has(node, subscription.type_url):
            return None
        publication = topic.current
        state, type_url = publication.state, subscription.type_url
        if not isinstance(state, EndpointSet) or port_of(state.ports, asked.port) is None:
            return None
        if name not in subscription.names and not (
            subscription.wildcard and name in canonical_names(asked.service, state.ports)
        ):
            return None
        if type_url is TypeUrl.ENDPOINT:
            return self._resources.endpoints(publication, name)
        return self._resources.static(type_url, name)

    def _upserts(self, node: Node, subscription: XdsSubscription) -> bytes | None:
        """A response with what is new of a type, as much of it as one may hold."""
        label = subscription.type_url.label
        whole = self._is_whole(subscription)
        parts: list[bytes] = []
        size = 0
        while subscription.pending:
            name = next(iter(subscription.pending))
            resource = self._resource(node, subscription, name)
            if resource is None:
                del subscription.pending[name]
                self._gone(subscription, name)
                continue
            part = resource.sotw if self._form is Form.SOTW else resource.delta
            if not whole and parts and size + len(part) > self._limits.response_bytes_max:
                break
            del subscription.pending[name]
            subscription.leaving.pop(name, None)
            if not subscription.owes(name, resource.version):
                self._counts.xds_resources_skipped[label] += 1
                continue
            changed = subscription.told.get(name) != resource.version
            subscription.tell(name, resource.version)
            if changed and subscription.type_url is TypeUrl.CLUSTER:
                self._endpoints_due(name)
            parts.append(part)
            size += len(part)
        if not (parts or (subscription.answer_due and not subscription.pending)):
            return None
        return self._response(subscription, self._all(subscription) if whole else parts)

    def _removals(self, node: Node, subscription: XdsSubscription) -> bytes | None:
        """A response that takes away what is gone of a type."""
        size = 0
        removed: list[str] = []
        parts: list[bytes] = []
        while subscription.leaving and size < self._limits.response_bytes_max:
            name = next(iter(subscription.leaving))
            del subscription.leaving[name]
            if self._resource(node, subscription, name) is not None:
                subscription.note(name)  # It has come back.
                continue
            removed.append(name)
            size += len(name.encode()) + _NAME_BYTES
            if self._form is Form.SOTW and subscription.type_url is TypeUrl.ENDPOINT:
                empty = self._empty(name)
                subscription.tell(name, empty.version)
                parts.append(empty.sotw)
                size += len(empty.sotw)
            elif self._form is Form.DELTA and name in subscription.names:
                subscription.tell(name, ABSENT)
            else:
                self._forget(subscription, name)
        if not removed:
            return None
        if self._form is Form.DELTA:
            self._counts.xds_resources_sent[subscription.type_url.label] += len(removed)
            return self._response(subscription, (), removed)
        if self._is_whole(subscription):
            parts = self._all(subscription)
        return self._response(subscription, parts)

    def _gone(self, subscription: XdsSubscription, name: str) -> None:
        """There is no such resource: note that the client must be told, or that it need not."""
        told = subscription.told.get(name)
        claimed = subscription.claimed.pop(name, None) is not None
        forced = name in subscription.forced
        subscription.forced.discard(name)
        keeps = True  # That it is gone is something told, and not to be told again.
        if self._form is Form.DELTA:
            unknown = name in subscription.names and told is None
            due = bool(told) or claimed or forced or unknown
        elif self._is_whole(subscription):
            due = told is not None
        elif subscription.type_url is TypeUrl.ENDPOINT:
            due = claimed or (told is not None and told != self._empty(name).version)
        else:
            due = keeps = False  # No response could say so. Its listener goes, and with it this.
        if due:
            subscription.leaving[name] = None
        elif told is None or not (name in subscription.names and keeps):
            self._forget(subscription, name)

    def _endpoints_due(self, name: str) -> None:
        """A changed cluster waits until its endpoints come again, even if they are the same."""
        subscription = self._subscriptions.get(TypeUrl.ENDPOINT)
        if subscription and (name in subscription.names or name in subscription.told):
            subscription.note(name, forced=True)

    def _empty(self, name: str) -> Resource:
        """The load assignment that says, in the state of the world, that there is none."""
        return self._resources.static(TypeUrl.ENDPOINT, name)

    def _is_whole(self, subscription: XdsSubscription) -> bool:
        return self._form is Form.SOTW and subscription.type_url in _WHOLE

    def _all(self, subscription: XdsSubscription) -> list[bytes]:
        """Everything that the client is to hold of a type that a response has all of."""
        type_url = subscription.type_url
        return [self._resources.static(type_url, name).sotw for name in subscription.told]

    def _response(
        self, subscription: XdsSubscription, parts: Iterable[bytes], removed: Iterable[str] = ()
    ) -> bytes:
        parts = list(parts)
        self._nonces += 1
        subscription.nonce = str(self._nonces)
        subscription.answer_due = subscription.acked = False
        subscription.refusal = None
        self._counts.xds_resources_sent[subscription.type_url.label] += len(parts)
        if self._form is Form.SOTW:
            head = discovery_pb2.DiscoveryResponse(
                version_info=subscription.version,
                type_url=subscription.type_url.value,
                nonce=subscription.nonce,
            )
        else:
            head = discovery_pb2.DeltaDiscoveryResponse(
                system_version_info=subscription.version,
                type_url=subscription.type_url.value,
                nonce=subscription.nonce,
                removed_resources=removed,
            )
        return b"".join((head.SerializeToString(), *parts))


def _has(node: Node, type_url: TypeUrl) -> bool:
    """Whether there are resources of a type for a client.

    Envoy needs listeners that have an address, and we know none.
    """
    return not (node.envoy and type_url is TypeUrl.LISTENER)
