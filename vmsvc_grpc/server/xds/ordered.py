"""The subscriptions of one stream: by type, and in the order in which types are sent."""

from __future__ import annotations

from collections.abc import Mapping

from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.followed import StreamNames
from vmsvc_grpc.server.xds.names import References
from vmsvc_grpc.server.xds.resources import Resources, TypeUrl
from vmsvc_grpc.server.xds.shared import Form
from vmsvc_grpc.server.xds.subscription import XdsSubscription

WHOLE = frozenset({TypeUrl.CLUSTER, TypeUrl.LISTENER})
"""In the state of the world, a response of these types has all resources: absence is deletion."""

# Make before break: a resource that others refer to is sent first, and removed last.
_ORDER = (TypeUrl.CLUSTER, TypeUrl.ENDPOINT, TypeUrl.LISTENER, TypeUrl.ROUTE)
_REMOVAL_ORDER = (TypeUrl.LISTENER, TypeUrl.ROUTE, TypeUrl.CLUSTER, TypeUrl.ENDPOINT)

# How many sent clusters a stream remembers until the client's first request for load assignments.
_CLUSTERS_SENT_MAX = 1_024


class Subscriptions:
    """One for each type that the client has asked for.

    `sending_order` and `removal_order` are all of them: in the order in which their resources are
    sent, and in that in which they are removed. `clusters_sent` are the clusters that were sent
    before the client says which load assignments it holds.
    """

    __slots__ = (
        "_begun",
        "_form",
        "_names",
        "_references",
        "_resources",
        "clusters_sent",
        "removal_order",
        "sending_order",
    )

    def __init__(
        self, form: Form, resources: Resources, references: References, names: StreamNames
    ) -> None:
        """None yet. What they keep of names that nothing has counts beside `names`."""
        self._names = names
        self._form = form
        self._resources = resources
        self._references = references
        self._begun: dict[TypeUrl, XdsSubscription] = {}
        self.sending_order: tuple[XdsSubscription, ...] = ()
        self.removal_order: tuple[XdsSubscription, ...] = ()
        self.clusters_sent = ClustersSent()

    @property
    def by_type(self) -> Mapping[TypeUrl, XdsSubscription]:
        """All of them. Do not change it."""
        return self._begun

    def of(self, type_url: TypeUrl) -> XdsSubscription:
        """The subscription of a type, which begins now if there is none yet."""
        found = self._begun.get(type_url)
        return found if found is not None else self._begin(type_url)

    def _begin(self, type_url: TypeUrl) -> XdsSubscription:
        begun = self._begun[type_url] = XdsSubscription(
            type_url, self._references, self._names.another()
        )
        if self._form is Form.SOTW and type_url in WHOLE:
            begun.bodies = self._resources.all_of(type_url)
        self.sending_order = tuple(self._begun[url] for url in _ORDER if url in self._begun)
        self.removal_order = tuple(self._begun[url] for url in _REMOVAL_ORDER if url in self._begun)
        return begun

    def concern(self, service: Key) -> bool:
        """Whether a resource of a service is requested by name."""
        return any(subscription.concerns(service) for subscription in self.sending_order)

    def close(self) -> dict[TypeUrl, XdsSubscription]:
        """Drop all subscriptions, and return them: closed, but with their names still."""
        closed, self._begun = self._begun, {}
        self.sending_order = self.removal_order = ()
        for subscription in closed.values():
            subscription.close()
        return closed


class ClustersSent:
    """Names of clusters that a stream was sent, as far as it remembers them."""

    __slots__ = ("_names",)

    def __init__(self) -> None:
        """None."""
        self._names: set[str] | None = set()  # None: there were too many to remember.

    def add(self, name: str) -> None:
        """Remember one more."""
        if self._names is not None:
            self._names.add(name)
            if len(self._names) > _CLUSTERS_SENT_MAX:
                self._names = None

    def may_have(self, name: str) -> bool:
        """Whether a cluster may have been sent."""
        return self._names is None or name in self._names

    def clear(self) -> None:
        """Forget all of them."""
        self._names = set()
