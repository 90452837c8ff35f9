"""What a request of one stream changes: names, wildcards, claims; ACKs and NACKs.

The rules are those of Envoy's `xds_protocol` page. Whatever follows from a request is only noted in
the subscriptions: `responses` sends it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice

from vmsvc_grpc.server.followed import StreamNames, kept_bytes
from vmsvc_grpc.server.xds import requests as xds_requests
from vmsvc_grpc.server.xds.following import Following
from vmsvc_grpc.server.xds.names import WILDCARD
from vmsvc_grpc.server.xds.ordered import WHOLE, Subscriptions
from vmsvc_grpc.server.xds.requests import DeltaRequest, Node, SotwRequest
from vmsvc_grpc.server.xds.resources import TypeUrl, version_text
from vmsvc_grpc.server.xds.shared import Form, Nack, XdsShared
from vmsvc_grpc.server.xds.subscription import Sent, XdsSubscription

# The part of a client's request that its names may take; the rest is for its node, which takes some
# hundred KB with an Envoy.
_OF_A_REQUEST = 15 / 16

# So many names are compared in the time of taking one in. Each acknowledgement repeats all names.
_NAMES_A_STEP = 16

# In characters. An xdstp name may be long; those of services have 209 at most.
_FOLLOWED_NAME_MAX = 1_024


class Intake:
    """Takes in the requests of one stream, a slice a turn."""

    __slots__ = ("_claims", "_following", "_form", "_names", "_shared", "_subscriptions", "_taking")

    def __init__(
        self,
        form: Form,
        shared: XdsShared,
        subscriptions: Subscriptions,
        following: Following,
        names: StreamNames,
    ) -> None:
        """The names that it takes in count in `names`, and their services are followed."""
        self._form = form
        self._shared = shared
        self._subscriptions = subscriptions
        self._following = following
        self._names = names
        self._claims = names.another()  # The names that its client claims to hold, until compared.
        self._taking: Iterator[None] | None = None  # The request under way.

    @property
    def under_way(self) -> bool:
        """Whether a request has been begun, and not all of it is taken in."""
        return self._taking is not None

    @property
    def has_claims(self) -> bool:
        """Whether names that the client claims to hold take room."""
        return not self._claims.empty

    def begin(self, node: Node, type_url: TypeUrl, asked: SotwRequest | DeltaRequest) -> None:
        """Take in a request of a type, or the first slice of it."""
        subscription = self._subscriptions.of(type_url)
        heard = subscription.heard(asked.nonce) if asked.nonce else None
        if heard is not None and asked.refusal is None:
            self._shared.counts.xds_acks[type_url.label] += 1
        # Nearly all requests are ACKs that ask for nothing new.
        judges = heard is not None and (asked.refusal is not None or subscription.refusals)
        takes = not (subscription.begun and _changes_nothing(subscription, asked))
        if judges or takes:
            judged = self._judge(node, subscription, heard or (), asked.refusal)
            taken = self._take(subscription, asked)
            self._taking = chain(judged if judges else (), taken if takes else ())
            self.go_on()

    def go_on(self) -> bool:
        """Take in as much of the request as one turn allows; whether that was all."""
        assert self._taking is not None
        most = self._shared.names_a_turn
        if sum(1 for _ in islice(self._taking, most)) == most:
            return False
        self._taking = None
        return True

    def close(self) -> None:
        """Take in no more, and give back all names."""
        self._names.close()
        self._claims.close()
        self._taking = None

    def end_claims(self) -> None:
        """Give back the room for claimed names, once all have been compared."""
        if not any(subscription.claimed for subscription in self._subscriptions.sending_order):
            self._claims.close()
            for subscription in self._subscriptions.sending_order:
                subscription.claimed = {}

    def _judge(
        self,
        node: Node,
        subscription: XdsSubscription,
        heard: Sequence[Sent],
        refusal: str | None,
    ) -> Iterator[None]:
        """Note an ACK or NACK: it is a NACK if it has an error, whatever version it names."""
        if refusal is None:
            yield from subscription.accept(heard)
            return
        refused = yield from subscription.refuse(heard, refusal)
        type_url = subscription.type_url
        self._shared.counts.xds_nacks[type_url.label] += 1
        self._shared.on_refusal(
            Nack(
                node.id,
                type_url,
                refused.names,
                version_text(refused.digest),
                refusal,
                self._names.client,
            )
        )

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
            self._subscriptions.clusters_sent.clear()

    def _take_sotw(self, subscription: XdsSubscription, asked: SotwRequest) -> Iterator[None]:
        names: dict[str, None] = {}
        digest = 0
        unread = iter(asked.names)
        while some := dict.fromkeys(islice(unread, _NAMES_A_STEP)):
            names |= some
            digest += sum(map(hash, some))
            yield
        again = digest == subscription.asked_last
        subscription.asked_last = digest
        wildcard = WILDCARD in names or not (names or subscription.named)
        subscription.named = subscription.named or bool(names)
        names.pop(WILDCARD, None)
        subscription.asked_few = None
        if not subscription.begun:
            subscription.answer_due = subscription.type_url in WHOLE
        elif names.keys() == subscription.names.keys() and wildcard == subscription.wildcard:
            # As with every ACK.
            if len(asked.names) <= _NAMES_A_STEP:
                subscription.asked_few = tuple(asked.names)
            return
        if wildcard:
            yield from self._set_wildcard(subscription, True)
        for name in [name for name in subscription.names if name not in names]:
            self._unsubscribe(subscription, name)
            yield
        new = [name for name in names if name not in subscription.names]
        listed = subscription.listed
        # The client may hold any of these by the wildcard, even one that goes before it is sent by
        # its name: only a response with everything says so.
        whole = subscription.type_url in WHOLE and listed is not None and listed.begun
        for name in new:
            # Sent even if the wildcard had it: the client may have dropped it.
            self._subscribe(subscription, name, forced=True, again=again)
            if whole and (name in subscription.names or not again):
                subscription.answer_due = True
            yield
        if not wildcard:
            # Last, so that resources now requested by name stay sent.
            yield from self._set_wildcard(subscription, False)

    def _take_delta(self, subscription: XdsSubscription, asked: DeltaRequest) -> Iterator[None]:
        if not subscription.begun:
            wildcard = not asked.subscribe or WILDCARD in asked.subscribe
            yield from self._set_wildcard(subscription, wildcard)
            yield from self._take_held(subscription, asked.held)
            subscription.answer_due = subscription.wildcard and not subscription.claimed
        for name in asked.subscribe:
            if name == WILDCARD:
                if subscription.begun:
                    yield from self._subscribe_to_all(subscription)
            else:
                # Only what the same request claims need not be sent.
                forced = subscription.begun or name not in subscription.claimed
                self._subscribe(subscription, name, forced=forced)
            yield
        if WILDCARD in asked.unsubscribe:
            yield from self._set_wildcard(subscription, False)
        for name in asked.unsubscribe:
            self._unsubscribe(subscription, name, forced=True)
            yield

    def _take_held(self, subscription: XdsSubscription, held: Sequence[bytes]) -> Iterator[None]:
        """Take in what the client says it holds: it is compared once, and removals are sent."""
        assignments = subscription.type_url is TypeUrl.ENDPOINT
        sent = self._subscriptions.clusters_sent
        for one in held:
            if (known := xds_requests.held_version(one)) is None:
                yield
                continue
            name, version = known
            # A cluster that was sent waits for its endpoints, even unchanged ones.
            if assignments and sent.may_have(name):
                version = ""
            if name in subscription.claimed:
                subscription.claim(name, version)  # Of several, the last counts.
            elif len(name) <= _FOLLOWED_NAME_MAX and self._takes(self._claims, name):
                subscription.claim(name, version)
                if not subscription.wildcard:
                    subscription.note(name)
            else:
                self._deny(subscription, name)
            yield

    def _has_room(self, subscription: XdsSubscription, name: str, *, again: bool) -> bool:
        """Whether there is room for one more name; takes the room in `StreamNames`.

        `again`: if there is none, that has been counted, and logged.
        """
        if len(name) > _FOLLOWED_NAME_MAX:
            return False
        setting = self._bound(subscription, name)
        setting = setting or self._names.take_all(1, kept_bytes(name))
        if setting and not again:
            self._shared.counts.refusals[setting] += 1
            self._shared.on_excess(self._names.client, name, setting)
        return not setting

    def _bound(self, subscription: XdsSubscription, name: str) -> str:
        """The setting whose bound leaves a stream no room for one more name; "" if there is room.

        A client that comes back says in one request all that it asks for of a type, and in deltas
        all that it holds with its versions, by the wildcard too. That request has to be taken.
        """
        limits, names = self._shared.limits, len(subscription.names)
        if names >= limits.xds_resources_max:
            return "xds_resources_max"
        if self._form is Form.SOTW:
            size, fields = subscription.asked_bytes + xds_requests.asked_bytes(name), names + 1
        else:
            size = subscription.resuming_bytes + xds_requests.resuming_bytes(name)
            fields = (names + 1) * xds_requests.RESUMING_FIELDS
            if subscription.listed is not None:
                size += subscription.listed.listing.held_bytes
                fields += len(subscription.listed.listing) * xds_requests.HELD_FIELDS
        if size > limits.message_bytes_max * _OF_A_REQUEST:
            return "message_bytes_max"
        return "request_fields_max" if fields > limits.request_fields_max * _OF_A_REQUEST else ""

    def _takes(self, names: StreamNames, name: str) -> bool:
        """Whether there is room for a name in `names`, which is taken then."""
        if setting := names.take(name):
            self._shared.on_excess(self._names.client, name, setting)
            return False
        return True

    def _deny(self, subscription: XdsSubscription, name: str) -> None:
        """Have the client informed that a name does not exist; only deltas can say so."""
        if self._form is Form.DELTA:
            subscription.denied.add(name, self._shared.limits.response_bytes_max)

    def _set_wildcard(self, subscription: XdsSubscription, wildcard: bool) -> Iterator[None]:
        if wildcard == subscription.wildcard:
            return
        subscription.wildcard = wildcard
        if subscription.bodies is not None:
            # From now on, "all resources" are others.
            subscription.bodies = self._shared.resources.all_of(subscription.type_url)
        if wildcard:
            # An Envoy waits for its first answer, even an empty one.
            whole = subscription.type_url in WHOLE or self._form is Form.DELTA
            subscription.answer_due |= whole and not subscription.claimed
            if subscription.bodies is None:
                # A response that has yet to arrive may have what is gone by now.
                subscription.retake_listing()
                for name in subscription.unanswered().difference(subscription.names):
                    subscription.note(name, forced=True)
                    yield
        else:
            subscription.leave_listing()
            for name in subscription.noted():
                if name not in subscription.names:
                    subscription.forget(name)
                yield

    def _subscribe_to_all(self, subscription: XdsSubscription) -> Iterator[None]:
        """Delta: everything is sent again, as with any name that is subscribed to once more."""
        if subscription.wildcard:
            subscription.disbelieve()
            subscription.answer_due = True
            if subscription.listed is not None:
                subscription.listed.again()
        else:
            yield from self._set_wildcard(subscription, True)
        for name in subscription.names:
            subscription.note(name, forced=True)
            yield

    def _subscribe(
        self, subscription: XdsSubscription, name: str, *, forced: bool, again: bool = False
    ) -> None:
        if name not in subscription.names and not self._has_room(subscription, name, again=again):
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
            or name in subscription.digests
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


def _changes_nothing(subscription: XdsSubscription, asked: SotwRequest | DeltaRequest) -> bool:
    """Whether a request that is not a stream's first asks for nothing new, as most ACKs."""
    if isinstance(asked, DeltaRequest):
        return not (asked.subscribe or asked.unsubscribe)
    few = subscription.asked_few
    return few is not None and len(few) == len(asked.names) and few == tuple(asked.names)
