"""The seam between handlers and transports: what a call is, and how it ends.

A unary method is a function from bytes to bytes. A stream is a state machine that the
transport feeds and asks. Neither waits; both raise RpcError to fail a call.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import ClassVar, Protocol, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2

from vmsvc_grpc.server.access.gate import EVERYTHING, Access
from vmsvc_grpc.server.access.needs import Needs
from vmsvc_grpc.server.fields import FieldShape


class Code(IntEnum):
    """Status codes of gRPC; numbers are those of google.rpc.Code."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16

    @property
    def label(self) -> str:
        """How gRPC for Go, and so its metrics, write it: `OK`, `NotFound`, `Canceled`."""
        if self in (Code.OK, Code.CANCELLED):
            return {Code.OK: "OK", Code.CANCELLED: "Canceled"}[self]
        return self.name.title().replace("_", "")


class RpcError(Exception):
    """The end of a call with a status other than OK.

    `details` are messages of google.rpc (BadRequest, RetryInfo, ...), which the
    transport sends as `grpc-status-details-bin`. `limit` is the name in `Limits` of the bound that
    refused the call; empty if there is none.
    """

    def __init__(
        self, code: Code, message: str, details: Sequence[Message] = (), *, limit: str = ""
    ) -> None:
        """`message` is one sentence for the caller."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = tuple(details)
        self.limit = limit


_Request = TypeVar("_Request", bound=Message)


def parsed(kind: type[_Request], request: bytes) -> _Request:
    """The message in a request's bytes. Raises RpcError (INVALID_ARGUMENT)."""
    try:
        return kind.FromString(request)
    except DecodeError:
        raise not_a(kind.DESCRIPTOR.full_name) from None


def not_a(name: str) -> RpcError:
    """The error for a request whose bytes are not a message of that full name."""
    text = f"the request is not a {name}; send one that is encoded in protobuf"
    return RpcError(Code.INVALID_ARGUMENT, text)


def unavailable(message: str, retry_delay_s: float) -> RpcError:
    """The error for what cannot be answered now, which tells the client when to try again."""
    delay = Duration()
    delay.FromMilliseconds(round(retry_delay_s * 1000))
    return RpcError(Code.UNAVAILABLE, message, [error_details_pb2.RetryInfo(retry_delay=delay)])


class EndOfStream(Exception):  # noqa: N818 - not an error: the stream has sent all, with OK.
    """Raised by a stream that has sent everything: the call ends with OK."""


class Later(Enum):
    """The type of `LATER`."""

    LATER = "later"


LATER = Later.LATER
"""Returned by a stream whose next message needs more work than one turn may take.

It is asked again without a wake, in a later turn of the event loop. The transport bounds how much
such work all streams do in one turn.
"""


class Held(Enum):
    """The type of `HELD`."""

    HELD = "held"


HELD = Held.HELD
"""Returned by a stream that may not go on yet, not even with the request in hand.

It is asked again once it is woken, and is handed no other request before.
"""


@dataclass(frozen=True, slots=True)
class Call:
    """What a method knows of its caller.

    `peer` is the client's address, in gRPC's form; `username` is its name, "" on a listener that
    asks nobody.
    """

    peer: str
    username: str = ""
    access: Access = EVERYTHING


Wake = Callable[[], None]
"""Has the transport ask a stream again. Cheap; may be called at any time."""


class Shared(Protocol):
    """A stream that is sent from now on what all streams with the same `common` are sent.

    A transport may ask one `lead` for all of them: they `rest`, until they have to be asked for
    themselves.
    """

    @property
    def common(self) -> Hashable:
        """What it follows."""

    @property
    def place(self) -> object:
        """What the client was sent last: equal for all with the same `common` and no news."""

    def rest(self) -> None:
        """Listen to nothing, as another is asked for this one. Then it wakes nobody."""

    def resume(self, place: object) -> None:
        """Listen again, the client having been sent what one at `place` was. Wakes for news."""

    def lead(self, wake: Wake) -> Lead:
        """One that goes on from the same place, and listens; to be closed at the end."""


class Lead(Protocol):
    """A stream without a client: its messages are for all that share what it follows."""

    @property
    def place(self) -> object:
        """What one is at that was sent its last message."""

    def next_message(self) -> bytes | Later | None:
        """As that of a stream."""

    @property
    def quiet(self) -> bool:
        """As that of a stream."""

    def count(self, more: int) -> None:
        """Count its last message so many times more than the once that it was made."""

    def close(self) -> None:
        """Release everything."""


class Stream(Protocol):
    """The state of one stream. The transport makes one call at a time, and none after `close`."""

    def receive(self, request: bytes) -> None:
        """Take in the client's next message. Raises RpcError to end the stream.

        After each request the stream is asked for messages, as long as it returns LATER, before the
        next request is handed in. So no answers pile up for a client that sends and does not read,
        and a large request is taken in in slices.
        """

    def half_close(self) -> None:
        """The client will send no more. A server stream goes on."""

    def next_message(self) -> bytes | Later | Held | None:
        """The message to send now, made of the newest state; None until `wake` is called.

        Called only once the transport has taken the message before, so that no messages pile up for
        a client that does not read. Raises RpcError or
        EndOfStream to end the stream.
        """

    @property
    def quiet(self) -> bool:
        """Whether it has nothing more to send until it is woken: then it is not asked.

        False where that is not known without working it out.
        """

    @property
    def shared(self) -> Shared | None:
        """What it shares with other streams, as it is now; None: nothing, or it has news."""

    def close(self) -> None:
        """The call is over, however it ended: release everything."""


class AnswerStream:
    """A stream that answers each request with one message, and ends with the client's last."""

    quiet = False
    shared = None

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        """`answer` returns the message for a request, or raises RpcError to end the stream."""
        self._answer = answer
        self._message: bytes | None = None
        self._half_closed = False

    def receive(self, request: bytes) -> None:
        """Work out the answer."""
        assert self._message is None, "the transport asks for a message after each request"
        self._message = self._answer(request)

    def half_close(self) -> None:
        """The answer to come is the last."""
        self._half_closed = True

    def next_message(self) -> bytes | None:
        """The answer, once. Raises EndOfStream after the last."""
        message, self._message = self._message, None
        if message is None and self._half_closed:
            raise EndOfStream
        return message

    def close(self) -> None:
        """Drop an answer that was not sent."""
        self._message = None


class RequestBound(Enum):
    """How large a request of a method may be; the value is the name of the setting."""

    ONE_NAME = "one_name_bytes_max"
    """It names one thing, or none."""
    MANY_NAMES = "message_bytes_max"


Making = Callable[[], bytes | Later]
"""Does a piece of the work on an answer: LATER until it is made. Raises as `handle` does."""


@dataclass(frozen=True, slots=True)
class UnaryMethod:
    """A method with one request and one response. `path` is `/package.Service/Method`.

    `handle` returns the response, or how to go on making it, if one turn of the event loop is too
    short for that. It gets only requests within `bound` and within the limit of fields, of callers
    who have what it `needs`; `request` is the shape by which fields are counted.
    """

    path: str
    handle: Callable[[bytes, Call], bytes | Making]
    bound: RequestBound
    request: FieldShape
    needs: Needs

    kind: ClassVar[str] = "unary"
    """Its kind, as gRPC's metrics have it."""


@dataclass(frozen=True, slots=True)
class StreamMethod:
    """A method with a stream of responses, to one request or to a stream of them.

    Its streams get only such requests. A request that is too long, or has too many fields, ends its
    stream, unless there is `on_dropped`: then it is dropped, and that is called with the client and
    the name of the setting. A stream is ended if its client reads nothing for `write_s` while
    there is something to send; None: never.
    """

    path: str
    open: Callable[[Call, Wake], Stream]
    bound: RequestBound
    request: FieldShape
    needs: Needs
    client_streaming: bool
    write_s: float | None = None
    on_dropped: Callable[[str, str], None] | None = None

    @property
    def kind(self) -> str:
        """Its kind, as gRPC's metrics have it."""
        return "bidi_stream" if self.client_streaming else "server_stream"


Method = UnaryMethod | StreamMethod
