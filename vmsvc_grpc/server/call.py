"""The seam between handlers and transports: what a call is, and how it ends.

A unary method is a function from bytes to bytes. A stream is a state machine that the
transport feeds and asks. Neither waits; both say how a call fails by raising RpcError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Protocol

from google.protobuf.message import Message

from vmsvc_grpc.server.fields import Shape


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


class RpcError(Exception):
    """How a call ends, other than well.

    `details` are messages of google.rpc (BadRequest, RetryInfo, ...), which the
    transport sends as `grpc-status-details-bin`. `limit` is the setting at whose bound
    the call is refused, by its name in `Limits`; empty where there is none.
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


class EndOfStream(Exception):  # noqa: N818 - not an error: the stream has said all, with OK.
    """Raised by a stream that has nothing more to say: the call ends with OK."""


class Later(Enum):
    """The type of `LATER`."""

    LATER = "later"


LATER = Later.LATER
"""What a stream says that has more work before its next message than one turn is for.

It is asked again without a wake, in a later turn of the event loop. The transport sees to it that
what streams do which said so does not pile up in one turn, however many they are.
"""


@dataclass(frozen=True, slots=True)
class Call:
    """Who calls, and with what. `peer` is the client's address, as the transport names it."""

    peer: str
    metadata: Mapping[str, str | bytes] = field(default_factory=dict)


Wake = Callable[[], None]
"""Tells the transport to ask a stream again. Cheap; may be called at any time."""


class Stream(Protocol):
    """One stream's state. The transport calls, one at a time and never again after `close`."""

    def receive(self, request: bytes) -> None:
        """Take in the client's next message. Raises RpcError to end the stream.

        After each the stream is asked for a message before the next is handed in, again and
        again while it says LATER. So a client that asks and does not read has no answers piled
        up for it, and a large request is taken in in slices.
        """

    def half_close(self) -> None:
        """The client will send no more. A server stream goes on."""

    def next_message(self) -> bytes | Later | None:
        """The message to send now, from what is newest; None until `wake` is called.

        Asked only when the one before it has been taken by the transport, so that a
        client that does not read has nothing piled up for it. Raises RpcError or
        EndOfStream to end the stream.
        """

    def close(self) -> None:
        """Let go of everything: the call is over, however it ended."""


class AnswerStream:
    """A stream that answers each request with one message, and ends with the client's last."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        """`answer` gives the message for a request. Raises RpcError to end the stream."""
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
        """Let go of an answer that nobody asked for."""
        self._message = None


class RequestBound(Enum):
    """How large a request of a method may be; the value is the setting that says how large."""

    ONE_NAME = "one_name_bytes_max"
    """It names one thing, or none."""
    MANY_NAMES = "message_bytes_max"


@dataclass(frozen=True, slots=True)
class UnaryMethod:
    """A method with one request and one response. `path` is `/package.Service/Method`.

    `handle` is given no request that is larger than `bound` allows, nor one with more fields than
    any may have; `request` is the shape by which those are counted.
    """

    path: str
    handle: Callable[[bytes, Call], bytes]
    bound: RequestBound
    request: Shape


@dataclass(frozen=True, slots=True)
class StreamMethod:
    """A method with a stream of responses, to one request or to a stream of them.

    Its streams are given no request that a unary method would not be given. A client that takes
    in nothing for `write_s`, while there is something to send, is ended; None lets it take
    its time.
    """

    path: str
    open: Callable[[Call, Wake], Stream]
    bound: RequestBound
    request: Shape
    client_streaming: bool
    write_s: float | None = None


Method = UnaryMethod | StreamMethod
