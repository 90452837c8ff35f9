"""What one stream has asked for of one type of resource, and what it has been told."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.xds_names import reference
from vmsvc_grpc.server.xds_resources import TypeUrl

ABSENT = ""
"""In `told`: the client knows that there is no resource of that name."""

_SUM_BITS = 128


class XdsSubscription:
    """Names and versions, and the marks of what there may be to tell. Knows no messages.

    `names` are those asked for one by one, `wildcard` asks for all beside them. `told`
    has the version of each that the client holds by what this stream sent; `claimed`,
    until it is compared, what the client says that it holds from before.

    `pending` are to be looked at, in order; `forced` of them are told even if nothing is
    new; `leaving` are to be taken away. `answer_due`: the client waits for a response,
    even if there is nothing in it.
    """

    def __init__(self, type_url: TypeUrl) -> None:
        """Nothing is asked for, and nothing told."""
        self.type_url = type_url
        self.begun = False
        self.named = False
        self.names: dict[str, None] = {}
        self.wildcard = False
        self.told: dict[str, str] = {}
        self.claimed: dict[str, str] = {}
        self.pending: OrderedDict[str, None] = OrderedDict()
        self.forced: set[str] = set()
        self.leaving: dict[str, None] = {}
        self.answer_due = False
        self.nonce = ""
        self.acked = False
        self.refusal: str | None = None
        self._of_service: dict[Key, dict[str, None]] = {}
        self._sum = 0

    @property
    def version(self) -> str:
        """A digest of all that is told: the same on each stream and replica that tells it.

        It is the sum of the resources' own, so that a change costs no more than itself.
        """
        return f"{self._sum:032x}"

    def names_of(self, service: Key) -> Iterable[str]:
        """The names of a service that this client has asked for, or holds."""
        return self._of_service.get(service, ())

    def concerns(self, service: Key) -> bool:
        """Whether the client has asked by name for something of a service, or holds it."""
        return service in self._of_service

    def ask(self, name: str) -> None:
        """The client asks for a name."""
        self.names[name] = None
        self._index(name)

    def claim(self, name: str, version: str) -> None:
        """The client says that it holds a resource; "" if it does not say in which version."""
        self.claimed[name] = version
        self._index(name)

    def tell(self, name: str, version: str) -> None:
        """The client is told a version of a resource, or knows it; ABSENT, that it is gone."""
        self._count(name, version)
        self.told[name] = version
        self._index(name)

    def note(self, name: str, *, forced: bool = False) -> None:
        """There may be something to tell of a name."""
        self.pending[name] = None
        if forced:
            self.forced.add(name)

    def drop(self, name: str) -> None:
        """The client does not ask for a name any more, by name; what it holds is as it was."""
        self.names.pop(name, None)
        self._unindex(name)

    def forget(self, name: str) -> None:
        """The client holds nothing of a name, and wants to hear nothing of it now."""
        self._count(name, ABSENT)
        self.told.pop(name, None)
        self.claimed.pop(name, None)
        self.pending.pop(name, None)
        self.forced.discard(name)
        self.leaving.pop(name, None)
        self._unindex(name)

    def owes(self, name: str, version: str) -> bool:
        """Whether the client must be told this version; what it claimed is settled by that."""
        claimed = self.claimed.pop(name, None)
        if name in self.forced:
            self.forced.discard(name)
            return True
        if claimed == version:
            self.tell(name, version)
        return self.told.get(name) != version

    def services(self) -> list[Key]:
        """The services that it concerns."""
        return list(self._of_service)

    def _count(self, name: str, version: str) -> None:
        before, after = self.told.get(name, ABSENT), version
        change = int(after or "0", 16) - int(before or "0", 16)
        self._sum = (self._sum + change) % (1 << _SUM_BITS)

    def _index(self, name: str) -> None:
        if (asked := reference(name)) is not None:
            self._of_service.setdefault(asked.service, {})[name] = None

    def _unindex(self, name: str) -> None:
        asked = reference(name)
        if asked is None or name in self.names or name in self.told or name in self.claimed:
            return
        names = self._of_service.get(asked.service, {})
        names.pop(name, None)
        if not names:
            self._of_service.pop(asked.service, None)
