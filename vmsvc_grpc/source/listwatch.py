"""How one kind of object is followed on an API server: discover, list, watch, resume. Pure.

The machine says what to ask next and what the answer means; the driver (`source.kube`)
asks. Time and randomness are arguments. The rules are those of Kubernetes' API concepts
("Efficient detection of changes", "Retrieving large results sets in chunks").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import NamedTuple

import msgspec

from vmsvc_grpc.backoff import Backoff
from vmsvc_grpc.kube.pages import next_token
from vmsvc_grpc.model.decoding import decoder
from vmsvc_grpc.model.events import Apply, Delete, Event, Init, InitDone, Malformed
from vmsvc_grpc.model.from_wire import ParseError
from vmsvc_grpc.model.objects import Kind
from vmsvc_grpc.source.slim import read_slim
from vmsvc_grpc.source.watch_line import Bookmark, Changed, Deleted, Error, LineMeta, line_reader

# Transient refusals: the same request is tried again. Credentials and permissions may come
# back, a queue may empty.
_PASSING_REFUSALS = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)
# Those that are reported the first time, as somebody must act.
_NO_ACCESS = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})

# A server that ends watches as soon as they have begun (client-go has the same bound).
_SHORT_WATCH_S = 1.0

# A watch that lasted so long was good, even if nothing came: a failure after it counts as the first
# in a row.
_GOOD_WATCH_S = 10.0

# One silent watch may be a network that vanished. Two in a row are a server that does not know our
# resource version, as after a restore of etcd from a backup: to it, we come from the future.
_SILENT_WATCHES_MAX = 2


class Discover(NamedTuple):
    """Ask which versions of the kind are served."""


class ListPage(NamedTuple):
    """Ask for a page of the list, from its start if `continue_token` is empty."""

    version: str
    continue_token: str


class OpenWatch(NamedTuple):
    """Ask for what has changed since a resource version."""

    version: str
    resource_version: str


ListWatchRequest = Discover | ListPage | OpenWatch


class RequestFailure(NamedTuple):
    """Why a request, or a watch that was open, came to nothing.

    `status` is the HTTP status, or the code of a watch's ERROR event; 0 where there was
    no answer. `retry_after_s` is what the server asked for, or 0. `silent`: nothing came over the
    connection. `unreadable`: the answer is not what was asked for.
    """

    status: int
    message: str
    retry_after_s: float = 0.0
    silent: bool = False
    unreadable: bool = False


@dataclass(slots=True)
class ListWatchCounts:
    """What happened, for tests and metrics. Only rises.

    `lists` counts complete lists, `watches` those opened, and `failures` those by HTTP status, 0
    for no answer.
    """

    lists: int = 0
    watches: int = 0
    failures: Counter[int] = field(default_factory=Counter)


class _ListMeta(LineMeta):
    continue_: str = msgspec.field(name="continue", default="")


class _Page(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


_decode_list = decoder(_Page)


class _Phase(Enum):
    DISCOVER = "discover"
    LIST = "list"
    WATCH = "watch"


class ListWatch:
    """Follows one kind, in one namespace or in all.

    The driver repeats: `request()`, emit the events of `asks()`, ask it, hand over what came
    (`discovered`; `page`; `opened`, `line` and `ended`; or `failed`), emit the events that
    these give, in order, and wait as long as they say.

    A failure never drops an object: each stays until a complete list lacks it, or a watch says that
    it was deleted.
    """

    def __init__(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        version: str = "",
        backoff: Backoff | None = None,
    ) -> None:
        """Begins with discovery, unless the kind has only one `version`."""
        self.kind = kind
        self.namespace = namespace
        self.version = version
        self.counts = ListWatchCounts()
        self.contact: float | None = None
        """When the server last answered, by the driver's clock; None: not yet."""
        self.trouble = ""
        """A sentence that says why nothing can be read; empty while all is well."""
        self._discovers = not version
        self._backoff = backoff or Backoff()
        self._read_line = line_reader(kind)
        self._phase = _Phase.DISCOVER if self._discovers else _Phase.LIST
        self._continue = ""
        self._resource_version = ""
        self._failures = 0
        self._opened: float | None = None
        self._received = False
        self._silent = 0

    @property
    def scope(self) -> str:
        """What is followed, for a person: `VirtualMachine in namespace shop`."""
        where = f"namespace {self.namespace}" if self.namespace else "all namespaces"
        return f"{self.kind.value} in {where}"

    def request(self) -> ListWatchRequest:
        """What to ask next."""
        match self._phase:
            case _Phase.DISCOVER:
                return Discover()
            case _Phase.LIST:
                return ListPage(self.version, self._continue)
            case _Phase.WATCH:
                return OpenWatch(self.version, self._resource_version)

    def asks(self) -> list[Event]:
        """The events to emit before the request is made.

        A list begins when it is asked for, as events from then on may be newer than the list.
        """
        listing = self._phase is _Phase.LIST and not self._continue
        return [Init(self.kind, self.namespace)] if listing else []

    def discovered(self, version: str) -> None:
        """`version` is the newest served version that we know."""
        if version != self.version:
            # Read in another version, the same objects differ.
            self._resource_version = ""
        self.version = version
        self._phase = _Phase.WATCH if self._resource_version else _Phase.LIST
        self._continue = ""

    def page(self, raw: bytes, now: float) -> Iterator[Event]:
        """The events of the page that `request` named; take all before asking anything else.

        Objects are decoded one by one, as they are taken. Raises msgspec.DecodeError, before
        the first event, if it is no page, or leads to itself again.
        """
        page = _decode_list(raw)
        token = next_token(self._continue, page.metadata.continue_)
        self.contact = now
        self.trouble = ""
        return self._page(page, token)

    def _page(self, page: _Page, token: str) -> Iterator[Event]:
        for item in page.items or ():
            yield from self._listed(item)
        self._continue = token
        if not token:
            # All pages are of one moment, and have the same resource version.
            self._resource_version = page.metadata.resource_version
            self._phase = _Phase.WATCH
            self.counts.lists += 1
            yield InitDone(self.kind, self.namespace, self._resource_version)

    def opened(self, now: float) -> None:
        """The watch that `request` named has begun."""
        self.contact = now
        self.trouble = ""
        self.counts.watches += 1
        self._opened = now
        self._received = False

    def line(self, raw: bytes, now: float) -> list[Event] | RequestFailure:
        """One line of the watch. A RequestFailure ends the watch; hand it to `failed`."""
        try:
            line = self._read_line(raw)
        except msgspec.DecodeError as error:
            return RequestFailure(
                0, f"a line of the watch cannot be read: {error}", unreadable=True
            )
        if isinstance(line, Error):
            return RequestFailure(line.code, line.message or line.reason)
        self.contact = now
        self._resource_version = line.resource_version
        self._received = True
        self._silent = 0
        self._failures = 0
        return self._events(line)

    def _events(self, line: Changed | Deleted | Bookmark) -> list[Event]:
        match line:
            case Changed(_, object_):
                if isinstance(object_, ParseError):
                    return self._malformed(object_, line.resource_version)
                return [Apply(object_)]
            case Deleted(resource_version, key):
                return [Delete(self.kind, key, resource_version)]
        return []

    def ended(self, now: float, jitter: float) -> float:
        """The server ended the watch; seconds to wait before the next request.

        It does so at the watch's timeout, when it stops, and when a version comes or goes.
        """
        assert self._opened is not None, "only a watch that was opened can end"
        lasted_s = now - self._opened
        self._opened = None
        if self._discovers:
            self._phase = _Phase.DISCOVER
        if self._received or lasted_s >= _SHORT_WATCH_S:
            return 0.0
        return self.failed(RequestFailure(0, "the server ends watches at once"), now, jitter)

    def failed(self, failure: RequestFailure, now: float, jitter: float) -> float:
        """A request or a watch failed; seconds to wait before the next request.

        `jitter` is a random number from 0 to 1.
        """
        status = failure.status
        self.counts.failures[status] += 1
        if self._opened is not None and now - self._opened >= _GOOD_WATCH_S:
            self._failures = 0
        self._failures += 1
        self._next_phase(failure)
        self._opened = None
        if status == HTTPStatus.GONE and self._failures == 1:
            return 0.0  # The server is well; it only no longer knows our resource version.
        # A transient failure is soon over: a cut connection, a restart of the server.
        if self._failures > 1 or status in _NO_ACCESS or _lasting(failure):
            # If nobody answers, every list-watch has the same trouble.
            asked = f"{self.scope}: " if status or failure.unreadable else ""
            self.trouble = asked + failure.message
        return max(failure.retry_after_s, self._backoff.delay_s(self._failures, jitter))

    def _next_phase(self, failure: RequestFailure) -> None:
        if self._phase is _Phase.DISCOVER:
            if failure.status == HTTPStatus.NOT_FOUND:
                # If the kind is installed again, its objects are new ones.
                self._resource_version = ""
            return
        if failure.silent and self._opened is not None and not self._received:
            self._silent += 1
        if not _lasting(failure) and self._silent < _SILENT_WATCHES_MAX:
            return
        self._silent = 0
        self._continue = ""
        self._resource_version = ""
        # There may be another version by now, or none.
        self._phase = _Phase.DISCOVER if self._discovers else _Phase.LIST

    def _listed(self, raw: msgspec.Raw) -> list[Event]:
        try:
            return [Apply(read_slim(self.kind, raw))]
        except ParseError as error:
            return self._malformed(error)

    def _malformed(self, error: ParseError, resource_version: str = "") -> list[Event]:
        if error.key is None:  # Not from an API server: each object there has a name.
            return []
        return [Malformed(self.kind, error.key, error.problem, resource_version)]


def _lasting(failure: RequestFailure) -> bool:
    """Whether the same request cannot succeed: what it asks for is gone or wrong."""
    refused = failure.status // 100 == 4 and failure.status not in _PASSING_REFUSALS  # noqa: PLR2004 - HTTP
    return refused or failure.unreadable
