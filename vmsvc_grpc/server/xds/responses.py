"""Makes the responses of one stream: of which type the next one is, and what is in it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, islice

from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.call import LATER, Later, Wake
from vmsvc_grpc.server.xds.bodies import BodyReader
from vmsvc_grpc.server.xds.denied import removed_bytes
from vmsvc_grpc.server.xds.following import Following
from vmsvc_grpc.server.xds.listing import DIGESTS, Wildcard
from vmsvc_grpc.server.xds.names import WILDCARD
from vmsvc_grpc.server.xds.namespaces import AnyWildcard, NamespacesWildcard
from vmsvc_grpc.server.xds.news import News, has_any
from vmsvc_grpc.server.xds.ordered import Subscriptions
from vmsvc_grpc.server.xds.requests import Node
from vmsvc_grpc.server.xds.resources import Resource, TypeUrl, response
from vmsvc_grpc.server.xds.shared import Form, XdsShared
from vmsvc_grpc.server.xds.subscription import ABSENT, UNKNOWN, XdsSubscription
from vmsvc_grpc.server.xds.visible import Visible

# To mark a name costs so much less than to look at it.
_MARKS_A_LOOK = 32

# A longer response is made for each stream, and not kept: of a service of some 2,500 VMs.
_SHARED_BYTES_MAX = 64 * 1024


class Responses:
    """Works out what to send when it is asked, from the newest state.

    `only_listens`: the client will acknowledge nothing more.
    """

    __slots__ = (
        "_aggregated",
        "_following",
        "_form",
        "_marking",
        "_news",
        "_own_turn",
        "_shared",
        "_subscriptions",
        "_visible",
        "_wake",
        "only_listens",
    )

    def __init__(
        self,
        form: Form,
        shared: XdsShared,
        subscriptions: Subscriptions,
        following: Following,
        wake: Wake,
        *,
        aggregated: bool,
        visible: Visible | None,
    ) -> None:
        """`wake` is for the wildcards; `aggregated`: the stream may have several types.

        Wildcards cover what is `visible`; None: everything is.
        """
        self._visible = visible
        self._form = form
        self._shared = shared
        self._subscriptions = subscriptions
        self._following = following
        self._wake = wake
        self._aggregated = aggregated
        self._news = News(form, shared, subscriptions, following)
        self._marking: Iterator[None] | None = None  # What is left to mark.
        # Whether the transport gave this stream a turn of its own, in which it may do work of some
        # ms.
        self._own_turn = False
        self.only_listens = False

    def next(self, node: Node) -> bytes | Later | None:
        """The next response; None if there is none now. The cache must be synced."""
        if not self.has_work:
            self._own_turn = False
            return None
        self._news.looks_left = self._shared.looks_max
        self._follow_listings(node)
        if self._visible is not None and not self._see(self._visible):
            self._own_turn = False
            return LATER if self._visible.spent else None
        message: bytes | Later | None = self._sole_change()
        if message is None:
            message = self._next_response(node)
        self._own_turn = message is LATER
        return message

    @property
    def has_work(self) -> bool:
        """Whether anything is noted that may lead to a response: not after one, nor its ACK."""
        if self._following.noted or self._marking is not None:
            return True
        return self._has_begun()

    def _has_begun(self) -> bool:
        """The same but for services that may have news."""
        for one in self._subscriptions.sending_order:
            if one.pending or one.draft or one.answer_due:
                return True
            if one.leaving or one.took_away or one.denied:
                return True
            if (listed := one.listed) is not None:
                if listed.reading or listed.behind:
                    return True
            elif one.wildcard and (one.claimed or not one.barren):
                return True
        return False

    def _follow_listings(self, node: Node) -> None:
        """Follow the listings of all types with a wildcard, now that the cache is synced."""
        for subscription in self._subscriptions.sending_order:
            if not subscription.wildcard or subscription.listed is not None:
                continue
            if has_any(node, subscription):
                subscription.listed = self._wildcard(node, subscription.type_url)
            else:
                subscription.barren = True

    def _wildcard(self, node: Node, type_url: TypeUrl) -> AnyWildcard | None:
        """All that a wildcard of a type covers; None if it is not known yet how much that is."""
        shared, visible = self._shared, self._visible
        bound = shared.scope.bound(node)
        if visible is None or (bound is None and visible.everywhere()):
            return shared.listings.follow(type_url, bound, node.filter_class, self._wake)
        if not visible.settled():
            return None

        def follow(namespace: str) -> Wildcard:
            return shared.listings.follow(type_url, namespace, node.filter_class, self._wake)

        return NamespacesWildcard(follow, shared.namespaces, visible, self._wake, only=bound)

    def _see(self, visible: Visible) -> bool:
        """Have wildcards cover what has become visible; whether all is known that they cover."""
        looking = False
        for subscription in self._subscriptions.sending_order:
            listed = subscription.listed
            if not isinstance(listed, NamespacesWildcard):
                continue
            if listed.look() and subscription.bodies is not None:
                # From now on, "all resources" are others.
                subscription.bodies = self._shared.resources.all_of(subscription.type_url)
            looking |= listed.looking
        return visible.settled() and not looking

    def _next_response(self, node: Node) -> bytes | Later | None:
        while True:
            self._begin_answers()
            # What has begun is finished first, so that it is sent however much changes meanwhile.
            if not self._under_way() and not self._mark():
                return LATER
            for one in self._subscriptions.sending_order:
                due = one.pending or one.draft or one.answer_due or _reads(one)
                due = due and not self._waits(one)
                if due and (message := self._upserts(node, one)) is not None:
                    return message
            for taken in self._subscriptions.removal_order:
                gone = taken.gone and not self._waits(taken)
                if gone and (message := self._removals(node, taken)) is not None:
                    return message
            if not (self._noted() or self._under_way() or self._behind()):
                return None

    def _sole_change(self) -> bytes | None:
        """The response to most news: one service has changed, one name of it is requested.

        None if that is not so, or there is more to do: then `_next_response` finds out. It would
        send the same; this only takes the shortest way to it, as nearly all responses are such.
        """
        topic = self._following.sole
        if topic is None or self._marking is not None or self._has_begun():
            return None
        assignments = self._subscriptions.by_type.get(TypeUrl.ENDPOINT)
        if assignments is None or assignments.claimed or self._waits(assignments):
            return None
        name = assignments.sole_name_of(topic.service)
        for one in self._subscriptions.sending_order:
            if one is not assignments and one.sole_name_of(topic.service) != "":
                return None  # It has to be looked up, too.
        shared, publication = self._shared.resources, topic.current
        resource = shared.encoded(publication, name) if name else None
        if resource is None or len(resource.delta) > _SHARED_BYTES_MAX:
            return None
        if assignments.digests.get(resource.name, ABSENT) in (ABSENT, UNKNOWN, resource.digest):
            return None
        self._following.take_noted()
        assignments.note_held(resource.name, resource.digest)
        digest, delta = assignments.digest, self._form is Form.DELTA
        message = shared.message(publication, resource, digest, assignments.nonce, delta=delta)
        self._sends(assignments, message.nonce, (resource.name,), 1)
        return message.encoded

    def _begin_answers(self) -> None:
        """Have each wildcard that is to be answered read to its end, whatever else is under way.

        The answer must have everything that was listed: its client would delete what it lacked.
        """
        for subscription in self._subscriptions.sending_order:
            listed = subscription.listed
            if subscription.answer_due and listed is not None and listed.behind:
                listed.reading = True

    def _noted(self) -> bool:
        return self._marking is not None or bool(self._following.noted)

    def _under_way(self) -> bool:
        # A loop, as any() takes three times as long, and this runs twice for each message.
        for subscription in self._subscriptions.sending_order:
            under_way = subscription.under_way or _reads(subscription)
            if under_way and not self._waits(subscription):
                return True
        return False

    def _behind(self) -> bool:
        for subscription in self._subscriptions.sending_order:
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
        return subscription.unheard and not self.only_listens

    def _mark(self) -> bool:
        """Mark names that may have news; False if others should have their turn first."""
        if self._marking is None:
            for subscription in self._subscriptions.sending_order:
                if subscription.listed is not None and subscription.listed.behind:
                    subscription.listed.reading = True
            self._marking = self._mark_next()
        while self._marking is not None:
            for _ in self._marking:
                self._news.looks_left -= 1
                if self._news.looks_left <= 0:
                    return False
            self._marking = self._mark_next()
        return True

    def _mark_next(self) -> Iterator[None] | None:
        """Marks the names of the next service that has news; None if there is no other."""
        service = self._following.take_noted()
        return self._mark_names(service) if service is not None else None

    def _mark_names(self, service: Key) -> Iterator[None]:
        """Mark the names of a service that has news, some a step: it can have many."""
        forced = self._following.take_withheld(service)
        for subscription in self._subscriptions.sending_order:
            for number, name in enumerate(subscription.names_of(service), 1):
                subscription.note(name, forced=forced)
                if number % _MARKS_A_LOOK == 0:
                    yield
        yield

    def _upserts(self, node: Node, subscription: XdsSubscription) -> bytes | Later | None:
        """A response with new resources of a type, as many as it may hold.

        Resources found before others have their turn are kept in the subscription's draft.
        """
        bodies, parts = subscription.bodies, subscription.draft
        size = 0 if bodies else sum(map(len, parts.values()))
        while (new := self._news.next_new(node, subscription)) is not None:
            if new is LATER:
                return LATER
            resource = new.resource
            name, part = resource.name, resource.sotw
            if self._form is Form.DELTA:
                part = resource.delta
            full = size + len(part) > self._shared.limits.response_bytes_max
            if full and parts and not bodies:
                subscription.pending[name] = True
                subscription.pending.move_to_end(name, last=False)
                break
            if subscription.type_url is TypeUrl.CLUSTER and new.changed:
                self._note_cluster_sent(name)
            if name in subscription.names:
                subscription.note_held(name, resource.digest)
            else:
                subscription.pass_on(name)
            parts[name] = part
            size += len(part)
        if not subscription.pending:
            subscription.pending = OrderedDict()  # One that was full is as large when it is empty.
        if not (parts or (subscription.answer_due and new is None)):
            return None
        if bodies:
            return self._whole(subscription, bodies)
        subscription.draft = {}
        removed = () if parts else self._removed_of_nothing(subscription)
        return self._response(subscription, parts, tuple(parts.values()), removed)

    def _removed_of_nothing(self, subscription: XdsSubscription) -> Sequence[str]:
        """What a response says is removed that has nothing else in it.

        An Envoy 1.40 that asks for `*` on demand crashes at one with nothing at all, and its first
        request is that of any Envoy. It asks so for clusters alone.
        """
        clusters = subscription.type_url is TypeUrl.CLUSTER
        return (WILDCARD,) if clusters and self._form is Form.DELTA else ()

    def _removals(self, node: Node, subscription: XdsSubscription) -> bytes | Later | None:
        """A response that removes resources of a type that are gone."""
        endpoints = subscription.type_url is TypeUrl.ENDPOINT
        if endpoints and (message := self._emptied(node, subscription)) is not None:
            return message
        subscription.take_denied(self._shared.names_a_turn)
        removed = self._take_away(node, subscription)
        if endpoints and self._form is Form.SOTW:
            return LATER if subscription.leaving else None
        if subscription.bodies is not None:
            subscription.took_away |= bool(removed)
            if subscription.leaving:
                return LATER  # One response says that all of them have gone.
            if subscription.took_away:
                return self._whole(subscription, subscription.bodies)
            return None
        if not removed:
            return LATER if subscription.leaving else None
        return self._response(subscription, removed, (), removed)

    def _take_away(self, node: Node, subscription: XdsSubscription) -> Sequence[str]:
        """The names that are gone, as many as one response may hold; notes each as sent.

        Looks at as many names as one turn allows, as any number of them may have come back.
        """
        whole, size = subscription.bodies is not None, 0
        removed: list[str] = []
        for _ in range(self._shared.names_a_turn):
            if not subscription.leaving or size >= self._shared.limits.response_bytes_max:
                break
            name, forced = subscription.leaving.popitem(last=False)
            if self._news.resource(node, subscription, name) is not None:
                # It has come back.
                subscription.note(name, forced=forced or name not in subscription.names)
                continue
            if whole or name not in subscription.names:
                subscription.forget(name)
            elif self._form is Form.DELTA:
                subscription.note_held(name, ABSENT)
            removed.append(name)
            size += removed_bytes(name)
        if not subscription.leaving:
            subscription.leaving = OrderedDict()  # As above.
        return removed

    def _emptied(self, node: Node, subscription: XdsSubscription) -> bytes | None:
        """A response that empties load assignments that are gone, if the client holds endpoints.

        It is about the next names that are leaving, and asked for each time before some are
        removed. In the state of the world nothing else says that they are gone. In deltas, those
        that were requested by name are removed after it: an Envoy goes on with the endpoints of an
        assignment that is only removed.
        """
        names: list[str] = []
        parts: list[bytes] = []
        size = 0
        for name in islice(subscription.leaving, self._shared.names_a_turn):
            # In the state of the world, a name of the wildcard alone has no entry in `digests`.
            otherwise = None if self._form is Form.DELTA else UNKNOWN
            digest = subscription.digests.get(name, otherwise)
            asked = self._form is Form.SOTW or name in subscription.names
            if not (digest and asked) or size >= self._shared.limits.response_bytes_max:
                continue
            empty = self._shared.resources.empty(name)
            if digest != empty.digest and self._news.resource(node, subscription, name) is None:
                subscription.note_held(name, empty.digest)
                part = empty.sotw if self._form is Form.SOTW else empty.delta
                names.append(name)
                parts.append(part)
                size += len(part)
        return self._response(subscription, names, parts) if names else None

    def _note_cluster_sent(self, name: str) -> None:
        """A changed cluster waits until its endpoints come again, even if they are the same."""
        assignments = self._subscriptions.by_type.get(TypeUrl.ENDPOINT)
        if assignments is None:
            if self._form is Form.DELTA and self._aggregated:
                self._subscriptions.clusters_sent.add(name)
        elif name in assignments.names:
            assignments.note(name, forced=True)
        elif assignments.listed is not None:
            if name in assignments.claimed:
                assignments.claim(name, "")  # To be sent whatever it was, or that it is gone.
            if assignments.listed.begun:
                assignments.note(name, forced=True)

    def _whole(self, subscription: XdsSubscription, bodies: BodyReader) -> bytes | Later:
        """A response with all resources of a type for the client."""
        listed, others = subscription.listed, self._unlisted(subscription)
        digest: int = subscription.digest
        names: Mapping[str, object] = subscription.digests
        if listed is not None:
            digest = (listed.listing.digest + sum(o.digest for o in others)) % DIGESTS
            names = listed.listing.all
            if others:
                names = {**names, **dict.fromkeys(other.name for other in others)}
        whole = None
        # A body is shared by its digest, so every change until now must have been noted.
        noted = listed is None or not listed.behind
        if noted and (self._own_turn or len(names) <= self._shared.looks_max):
            whole = bodies.read(digest, names, subscription.nonce)
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
        if subscription.listed is None or not (subscription.digests or subscription.leaving):
            return ()
        listing, static = subscription.listed.listing, self._shared.resources.static
        return [
            static(subscription.type_url, name)
            for name in dict.fromkeys(chain(subscription.digests, subscription.leaving))
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
        nonce = next(self._shared.resources.nonces)
        self._sends(subscription, nonce, names, len(names))
        return response(subscription.type_url, subscription.digest, nonce, parts, removed)

    def _sends(
        self, subscription: XdsSubscription, nonce: int, names: Collection[str] | None, count: int
    ) -> None:
        """Note a response about these names, or about all resources (None)."""
        subscription.answer_due = subscription.took_away = False
        subscription.sent(nonce, names)
        self._shared.counts.xds_resources_sent[subscription.type_url.label] += count


def _reads(subscription: XdsSubscription) -> bool:
    """Whether a run of the wildcard is under way, or what it lists none of has yet to be said."""
    if (listed := subscription.listed) is not None:
        return listed.reading
    return bool(subscription.claimed) and subscription.wildcard
