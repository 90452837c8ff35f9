"""Finds what one stream is to be sent next of a type, a bounded number of looks a turn."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from vmsvc_grpc.cache.topic import Publication, Topic
from vmsvc_grpc.server.call import LATER, Later
from vmsvc_grpc.server.xds.following import Following
from vmsvc_grpc.server.xds.listing import STEPS_BESIDE, ListedDue
from vmsvc_grpc.server.xds.namespaces import AnyWildcard
from vmsvc_grpc.server.xds.ordered import Subscriptions
from vmsvc_grpc.server.xds.requests import Node
from vmsvc_grpc.server.xds.resources import Resource, TypeUrl
from vmsvc_grpc.server.xds.shared import Form, XdsShared
from vmsvc_grpc.server.xds.subscription import UNKNOWN, Making, XdsSubscription


class New(NamedTuple):
    """A resource to send to a client, and whether it differs from the one that the client holds."""

    resource: Resource
    changed: bool


class News:
    """Looks at names that may have news, and says which resources are owed.

    `looks_left` is how many more names it may look at in this turn.
    """

    __slots__ = ("_following", "_form", "_shared", "_subscriptions", "looks_left")

    def __init__(
        self,
        form: Form,
        shared: XdsShared,
        subscriptions: Subscriptions,
        following: Following,
    ) -> None:
        """Of one stream, which follows services in `following`."""
        self._form = form
        self._shared = shared
        self._subscriptions = subscriptions
        self._following = following
        self.looks_left = 0

    def next_new(self, node: Node, subscription: XdsSubscription) -> New | Later | None:
        """The next resource to send; None if there is no other now."""
        while subscription.pending:
            if self.looks_left <= 0:
                return LATER
            listed = subscription.listed
            if listed is not None and self._bring_up(listed, subscription):
                continue
            self.looks_left -= 1
            name, forced = subscription.pending.popitem(last=False)
            if subscription.type_url is TypeUrl.ENDPOINT and not self._prepare(subscription, name):
                subscription.pending[name] = forced
                subscription.pending.move_to_end(name, last=False)
                return LATER
            resource = self.resource(node, subscription, name)
            self._end_making(subscription, name)
            if resource is None:
                resource = self._in_its_place(subscription, name, forced=forced)
            if resource is None:
                continue
            self.looks_left -= resource.more_looks
            if listed is not None and name not in subscription.names:
                listed.sent_ahead(name)
            forced = subscription.leaving.pop(name, False) or forced
            if subscription.owes(resource, forced=forced):
                return New(resource, subscription.digests.get(name) != resource.digest)
            self._skip(subscription, name)
        if (listed := subscription.listed) is None or not listed.reading:
            return self._compare_claims(node, subscription)
        return self._next_listed(node, subscription, listed)

    def _next_listed(
        self, node: Node, subscription: XdsSubscription, listed: AnyWildcard
    ) -> New | Later | None:
        """The same for what the wildcard covers."""
        whole = subscription.bodies is not None
        if whole and not listed.answered and TypeUrl.ENDPOINT not in self._subscriptions.by_type:
            # All of them become one body, and nothing else depends on which of them are new.
            return self._skip_listed(subscription, listed)
        while self.looks_left > 0:
            if listed.listing.behind:
                self.looks_left -= listed.listing.catch_up(self.looks_left)
                continue
            self.looks_left -= 1
            due = listed.take()
            if due is not None:
                if (new := self._of_listed(subscription, due)) is not None:
                    return new
            elif not listed.running and not (whole and listed.behind):
                if listed.listing.encodes and not subscription.draft:
                    self.looks_left -= listed.listing.encode(self.looks_left)
                    continue
                listed.reading = False
                return self._compare_claims(node, subscription)
        return LATER

    def _bring_up(self, listed: AnyWildcard, subscription: XdsSubscription) -> bool:
        """Have the listing go on, if the next name needs that; whether it did."""
        name = next(iter(subscription.pending))
        if listed.listing.behind:
            self.looks_left -= listed.listing.catch_up(self.looks_left)
        elif name not in subscription.names and listed.listing.awaits(name):
            self.looks_left -= listed.listing.encode(self.looks_left)
        else:
            return False
        return True

    def _skip_listed(self, subscription: XdsSubscription, listed: AnyWildcard) -> Later | None:
        while listed.listing.behind:
            if self.looks_left <= 0:
                return LATER
            self.looks_left -= listed.listing.catch_up(self.looks_left)
        listed.skip()
        listed.reading = False
        subscription.answer_due = True
        return None

    def _of_listed(self, subscription: XdsSubscription, due: ListedDue) -> New | None:
        """What to send about a name that the wildcard covers, or did; None if nothing."""
        name, resource = due.name, due.cell.resource
        if subscription.bodies is not None:
            subscription.bodies.note(name)
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
        return New(resource, not due.known or due.cell.version > due.since)

    def _skip(self, subscription: XdsSubscription, name: str) -> None:
        """Note that the client holds the newest one."""
        if name not in subscription.names:
            subscription.pass_on(name)
        self._shared.counts.xds_resources_skipped[subscription.type_url.label] += 1

    def _compare_claims(self, node: Node, subscription: XdsSubscription) -> New | Later | None:
        """The same for what the client claims to hold and no wildcard covers."""
        listed = subscription.listed
        if subscription.claimed and subscription.wildcard and (listed is None or listed.answered):
            for name in islice(subscription.claimed, self._shared.looks_max):
                subscription.note(name)  # The look at it also drops the claim.
            return self.next_new(node, subscription)
        return None

    def resource(self, node: Node, subscription: XdsSubscription, name: str) -> Resource | None:
        """The resource of a name, as this client may see it now; None if there is none."""
        if name not in subscription.names:
            return subscription.listed.listing.resource(name) if subscription.listed else None
        resources, type_url = self._shared.resources, subscription.type_url
        asked = self._shared.references.of(name)
        topic = self._following.topic(asked.service) if asked is not None else None
        if asked is None or topic is None or not has_any(node, subscription):
            return None
        if type_url is TypeUrl.ENDPOINT:
            return resources.endpoints(_publication(subscription, topic, name), name, asked.port)
        if resources.port(topic.current, asked.port) is None:
            return None
        return resources.static(type_url, name)

    def _prepare(self, subscription: XdsSubscription, name: str) -> bool:
        """Encode the endpoints of a name, as many as this turn allows.

        Whether that was all, and the turn has time to put them together.
        """
        if name not in subscription.names:
            return True  # The listing has it.
        asked = self._shared.references.of(name)
        topic = self._following.topic(asked.service) if asked is not None else None
        if asked is None or topic is None:
            return True
        publication = _publication(subscription, topic, name)
        taken = 0
        for _ in self._shared.resources.steps(publication, name, asked.port):
            taken += 1
            if taken >= self.looks_left:
                done = False
                break
        else:
            done = taken <= STEPS_BESIDE
        self.looks_left -= taken
        if done:
            return True
        subscription.making = Making(name, topic, publication)
        self.looks_left = 0
        return False

    def _end_making(self, subscription: XdsSubscription, name: str) -> None:
        """The endpoints of a name are encoded: if they have changed meanwhile, that is news."""
        making = subscription.making
        if making is None or making.name != name:
            return
        subscription.making = None
        if making.publication is not making.topic.current:
            self._following.note(making.topic)

    def _in_its_place(
        self, subscription: XdsSubscription, name: str, *, forced: bool
    ) -> Resource | None:
        """What to send where there is no resource for the client; None: as is noted, or nothing."""
        if self._is_withheld(subscription, name):
            return None
        if self._is_awaited(subscription, name, forced=forced):
            return self._shared.resources.empty(name)
        self._gone(subscription, name, forced)
        return None

    def _is_withheld(self, subscription: XdsSubscription, name: str) -> bool:
        """Whether the client must not be told yet that there is no such resource, nor that it is.

        What it claims to hold of it, it keeps.
        """
        asked = self._shared.references.of(name) if name in subscription.names else None
        if asked is None or not self._following.withholds(asked.service):
            return False
        if subscription.claimed.pop(name, None) is not None:
            subscription.note_held(name, UNKNOWN)
        return True

    def _is_awaited(self, subscription: XdsSubscription, name: str, *, forced: bool) -> bool:
        """Whether a client waits for the load assignment of a service that does not exist (yet).

        Otherwise an Envoy would hold back its listeners, or a changed cluster, for 15 s. A delta
        client is informed that there is none.
        """
        if self._form is Form.DELTA or subscription.type_url is not TypeUrl.ENDPOINT:
            return False
        if name not in subscription.names or self._shared.references.of(name) is None:
            return False
        return forced or name not in subscription.digests

    def _gone(self, subscription: XdsSubscription, name: str, forced: bool) -> None:
        """There is no such resource: note whether the client must be informed."""
        if subscription.claimed.pop(name, None) is not None:
            forced = True
            if self._shared.references.of(name) is not None:  # Else it is not ours.
                subscription.note_held(name, UNKNOWN)
        digest = subscription.digests.get(name)
        # A name of the wildcard alone has no entry, but was sent.
        held = bool(digest) or (forced and name not in subscription.names)
        if self._form is Form.DELTA:
            due = held or forced or (digest is None and name in subscription.names)
        elif subscription.type_url is TypeUrl.ENDPOINT:
            due = held and digest != self._shared.resources.empty(name).digest
        else:
            # No response can remove a route. It goes with its listener.
            due = held and subscription.type_url is not TypeUrl.ROUTE
        if due:
            subscription.leaving[name] = forced
        elif name not in subscription.names or subscription.type_url is TypeUrl.ROUTE:
            subscription.forget(name)


def has_any(node: Node, subscription: XdsSubscription) -> bool:
    """Whether there are resources of a type for a client.

    Envoy needs listeners with an address, and we know none.
    """
    return not (node.envoy and subscription.type_url is TypeUrl.LISTENER)


def _publication(subscription: XdsSubscription, topic: Topic, name: str) -> Publication:
    """The newest one, or an older one whose endpoints are being encoded.

    Otherwise a large service that changes all the time would never be sent.
    """
    making = subscription.making
    return topic.current if making is None or making.name != name else making.publication
