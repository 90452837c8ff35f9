"""One stream of xDS, in either form, as a transport sees it.

The stream notes which services may have news. What to send is worked out when the transport asks,
from the newest state, so that nothing piles up here for a client that does not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from vmsvc_grpc.server.access.gate import EVERYTHING, Access
from vmsvc_grpc.server.call import LATER, Code, EndOfStream, Later, RpcError, Wake
from vmsvc_grpc.server.followed import StreamNames
from vmsvc_grpc.server.xds import requests as xds_requests
from vmsvc_grpc.server.xds.following import Following
from vmsvc_grpc.server.xds.intake import Intake
from vmsvc_grpc.server.xds.ordered import Subscriptions
from vmsvc_grpc.server.xds.requests import DeltaRequest, Node, SotwRequest
from vmsvc_grpc.server.xds.resources import TypeUrl
from vmsvc_grpc.server.xds.responses import Responses
from vmsvc_grpc.server.xds.shared import Form, XdsShared
from vmsvc_grpc.server.xds.subscription import XdsSubscription
from vmsvc_grpc.server.xds.visible import Visible

_TYPES = {type_url.value: type_url for type_url in TypeUrl}


class XdsStream:
    """The stream of one call: a `call.Stream`."""

    shared = None

    __slots__ = (
        "_expired",
        "_following",
        "_form",
        "_half_closed",
        "_implied",
        "_intake",
        "_names",
        "_node",
        "_on_close",
        "_responses",
        "_shared",
        "_subscriptions",
        "_visible",
        "_wake",
    )

    def __init__(
        self,
        form: Form,
        implied: TypeUrl | None,
        shared: XdsShared,
        names: StreamNames,
        wake: Wake,
        *,
        access: Access = EVERYTHING,
        on_close: Callable[[XdsStream], None],
    ) -> None:
        """`implied` is the type of a service for a single type; None for the aggregated service.

        The names that it follows count in `names`. `access` is the client's. `on_close` is called
        once.
        """
        self._on_close = on_close
        self._form = form
        self._implied = implied
        self._shared = shared
        self._wake = wake
        self._names = names
        self._node: Node | None = None
        self._visible = visible = None if access is EVERYTHING else Visible(access, self._no_room)
        self._following = following = Following(shared.cache, shared.scope, wake, visible)
        self._subscriptions = Subscriptions(form, shared.resources, shared.references, names)
        self._intake = Intake(form, shared, self._subscriptions, following, names)
        self._responses = Responses(
            form,
            shared,
            self._subscriptions,
            following,
            wake,
            aggregated=implied is None,
            visible=visible,
        )
        self._half_closed = False
        self._expired = False

    @property
    def node(self) -> Node | None:
        """The client; None before the first request."""
        return self._node

    @property
    def subscriptions(self) -> Mapping[TypeUrl, XdsSubscription]:
        """Its subscriptions, by type. Do not change them."""
        return self._subscriptions.by_type

    def receive(self, request: bytes) -> None:
        """Take in a request. Raises RpcError (INVALID_ARGUMENT) for bytes that are not a request.

        No name and no number of names ends the stream, as anybody may make an Envoy ask for one: a
        name that is too long, or one too many, names nothing. Of a request with many names, the
        rest is taken in when the stream is asked for messages, before it returns any.
        """
        assert not self._intake.under_way, "the transport hands in no request while one is taken in"
        asked: SotwRequest | DeltaRequest
        read = xds_requests.sotw if self._form is Form.SOTW else xds_requests.delta
        asked = read(request)
        if self._node is None:
            self._node = xds_requests.node(asked.node)
            self._following.begin(self._node)
        type_url = self._type_of(asked.type_url)
        if type_url is not None:
            self._intake.begin(self._node, type_url, asked)

    def half_close(self) -> None:
        """The client only listens now: it is sent what is due, and then the stream ends."""
        self._half_closed = self._responses.only_listens = True

    def next_message(self) -> bytes | Later | None:
        """The next response. Raises EndOfStream at the stream's age, or after `half_close`."""
        if self._expired:
            raise EndOfStream
        if self._intake.under_way and not self._intake.go_on():
            return LATER
        if self._node is not None:
            if self._following.loose and not self._release():
                return LATER
            # A partial answer to a wildcard would delete what it lacks: send nothing until all is
            # there.
            if not self._shared.cache.synced:
                return None
            message = self._next_response(self._node)
            if message is not None:
                return message
        if self._half_closed:
            raise EndOfStream
        return None

    def _next_response(self, node: Node) -> bytes | Later | None:
        # What is not known yet must not be taken for what is not there.
        if self._visible is not None:
            self._visible.begin_turn()
            if not self._visible.settled():
                return LATER if self._visible.spent else None
            if not self._following.uncover(self._visible, self._shared.names_a_turn):
                return LATER
        message = self._responses.next(node)
        if self._intake.has_claims:
            self._intake.end_claims()
        return message

    @property
    def quiet(self) -> bool:
        """Whether nothing is noted that may lead to a message, or to the end."""
        if self._expired or self._half_closed or not self._following.still:
            return False
        intake = self._intake
        return not (intake.under_way or intake.has_claims or self._responses.has_work)

    def _release(self) -> bool:
        """Release some topics that are not needed any more; whether that was all."""
        return self._following.release(self._subscriptions.concern, self._shared.names_a_turn)

    def close(self) -> None:
        """Release everything."""
        self._on_close(self)
        self._intake.close()
        self._shared.let_go(_let_go(self._following.close(), self._subscriptions.close()))

    def expire(self) -> None:
        """End the stream soon, with OK: it is old enough."""
        self._expired = True
        self._wake()

    def _no_room(self, namespace: str, setting: str) -> None:
        """Count, and log, that there is no room to ask whether the client may hear of one more."""
        self._shared.counts.refusals[setting] += 1
        self._shared.on_excess(self._names.client, namespace, setting)

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


def _let_go(
    following: Iterator[None],
    subscriptions: dict[TypeUrl, XdsSubscription],
) -> Iterator[None]:
    """Release what is left of a stream, step by step, as its names are many objects too."""
    yield from following
    while subscriptions:
        subscriptions.popitem()
        yield
