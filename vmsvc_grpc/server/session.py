"""One call without a transport, as h11 is HTTP without sockets.

Owns what every transport needs: whether a call may begin, what is counted, one request in hand at a
time, how long a client may read nothing, and how a fault becomes a status. Knows no task, timer,
socket or type of gRPC: time is an argument, and the transport reports events and acts on the
results.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from google.rpc import status_pb2

from vmsvc_grpc.logs.about import about
from vmsvc_grpc.model.problem import escaped
from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.access.gate import Gate
from vmsvc_grpc.server.access.needs import OPEN, Need
from vmsvc_grpc.server.admission import (
    ANONYMOUS_PART,
    Admission,
    anonymous_at,
    client_of,
    is_anonymous,
    is_known,
    newcomer_at,
    stranger_at,
    stranger_of,
)
from vmsvc_grpc.server.call import (
    HELD,
    LATER,
    Call,
    Code,
    EndOfStream,
    Held,
    Later,
    Making,
    Method,
    RpcError,
    Shared,
    Stream,
    StreamMethod,
    UnaryMethod,
    Wake,
)
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.guarded import Clearance, GuardedStream
from vmsvc_grpc.server.kept import KeptBytes
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.pace import Pace

_log = logging.getLogger(__name__)

# Both travel as headers, and clients refuse 8 KiB of headers: gRPC's own default. The details
# are sent in base64, which adds a third.
_MESSAGE_BYTES_MAX = 1000
_DETAILS_BYTES_MAX = 5120


class Status(NamedTuple):
    """The end of a call, as its trailers have it.

    `message` fits a header once it is percent-encoded; `details` is a google.rpc.Status for
    `grpc-status-details-bin`, or empty.
    """

    code: Code
    message: str = ""
    details: bytes = b""


OK = Status(Code.OK)

TURN_S = 0.01
"""How long a transport may ask sessions, and hand in requests, in one turn of the event loop.

The rest waits for later turns. A single answer may take longer, and is then the last of its turn.
"""

# So many calls of a connection may be in vain, as nobody knows whose they are, and then so many a
# second, before it has no newcomer any more: a client whose token is of no use tries again.
_IN_VAIN_BURST = 5
_IN_VAIN_PER_S = 0.2

# A larger request is taken in slice by slice, and its bytes count for its client meanwhile.
_SMALL_BYTES = 64 * 1024

_NO_METHOD = Status(Code.UNIMPLEMENTED, "this server has no such method")
_UNKNOWN_PATH = "(unknown)"  # One for all, as clients could make up any number of paths.


class Sessions:
    """Begins the calls of one server, by whatever transport they come."""

    def __init__(
        self,
        admission: Admission,
        counts: ServerCounts,
        limits: Limits,
        gate: Gate,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`counts` counts ended calls; `admission` decides which calls may begin.

        `gate` is for callers of guarded listeners. `clock` returns seconds, and never goes back.
        """
        self.gate = gate
        self._clock = clock
        per_s, burst = limits.calls_per_second_max, limits.calls_burst_max
        self._pace = Pace(per_s, burst)
        self._pace_of_newcomers = Pace(_IN_VAIN_PER_S, _IN_VAIN_BURST)
        self._pace_of_anonymous = Pace(per_s / ANONYMOUS_PART, max(1, burst / ANONYMOUS_PART))
        self.taking_in = KeptBytes(
            "taking_in_bytes_max", limits.taking_in_bytes_max, "requests that are being read"
        )
        self._admission = admission
        self._counts = counts

    def unary(
        self, method: UnaryMethod, request: bytes, caller: Caller, wake: Wake
    ) -> bytes | Status | WaitingCall | LongAnswer:
        """The response, or the status of a failure. Never raises, and never waits.

        If it is not known yet what the caller may do: the call, which the transport asks again once
        it is woken, and must close. If the response takes longer than a turn of the event loop: the
        answer, which it asks in other turns.
        """
        if caller.guarded:
            waiting = WaitingCall(self, method, request, caller, wake)
            answer = waiting.answer()
            return waiting if answer is None else answer
        began = self.begin(method.path)
        try:
            self.check_unary(method, request)
        except Exception as error:  # noqa: BLE001 - a fault of one call must not end others.
            return self.fail(method.path, error, began)
        return self.answer(method, request, Call(caller.peer), began)

    def begin(self, path: str) -> float:
        """Count a call that begins; when that is, for `fail` and `answer`."""
        self._counts.started[path] += 1
        return self._clock()

    def end(self, path: str, code: Code, began: float) -> None:
        """Count a call that has ended."""
        self._counts.ended(path, code, self._clock() - began)

    def check_unary(self, method: UnaryMethod, request: bytes) -> None:
        """Raise RpcError if the request of a call may not be read."""
        self._admission.check(method.path)
        self._admission.check_request(method.bound, request)
        for _ in self._admission.check_fields(method.request, request):
            pass

    def answer(
        self, method: UnaryMethod, request: bytes, call: Call, began: float
    ) -> bytes | Status | LongAnswer:
        """The response of a method to a request that it may read, or the status."""
        try:
            answer = method.handle(request, call)
        except Exception as error:  # noqa: BLE001 - a fault of one call must not end others.
            return self.fail(method.path, error, began)
        if not isinstance(answer, bytes):
            return LongAnswer(self, method.path, answer, began)
        self.end(method.path, Code.OK, began)
        return answer

    def open(self, method: StreamMethod, caller: Caller, wake: Wake) -> Session | Status:
        """A stream, which the transport must close; or the status if it may not begin."""
        path = method.path
        began = self.begin(path)
        try:
            if caller.guarded:
                return self._open_guarded(method, caller, wake, began)
            client = client_of(caller.peer)
            self._admission.enter(path, client)
            try:
                stream = method.open(Call(caller.peer), wake)
            except BaseException:
                self._admission.leave(path, client)
                raise
        except Exception as error:  # noqa: BLE001 - a fault of one call must not end others.
            return self.fail(path, error, began)
        return Session(self, method, client, stream, began)

    def _open_guarded(
        self, method: StreamMethod, caller: Caller, wake: Wake, began: float
    ) -> Session:
        stream = GuardedStream(method, caller, self.gate, wake)
        try:
            username = stream.username_at_once()
            client = self.client_at_once(caller.peer, username, method.needs.entry)
            self._admission.enter(method.path, client)
        except BaseException:
            stream.close()
            raise
        session = Session(self, method, client, stream, began)
        stream.begin(session.enter)
        return session

    def client_at_once(self, peer: str, username: str, entry: Need) -> str:
        """The client of a guarded call, whose caller's name is "" if it is not known at once.

        `entry` is what the call needs to enter. Raises RpcError if that is a stranger who has made
        too many calls in vain, or too many anonymous calls have come from there.
        """
        if username:
            return client_of(peer, username)
        now = self._clock()
        newcomer = newcomer_at(peer)
        if entry is OPEN:
            client = anonymous_at(peer)
        elif self._pace_of_newcomers.has(newcomer, now) and self._admission.has_place_for(newcomer):
            return newcomer
        else:
            client = stranger_at(peer)
        self._pace_of(client).check(client, now)
        return client

    def count_call(self, client: str) -> None:
        """Count a call for its client, as far as it is known. Raises RpcError at the bound."""
        self._pace_of(client).take(client, self._clock())

    def _pace_of(self, client: str) -> Pace:
        return self._pace_of_anonymous if is_anonymous(client) else self._pace

    def count_stranger(self, client: str, code: Code) -> None:
        """Count a call for its address that ends with `code`, if that says nobody knows whose."""
        if code is Code.UNAUTHENTICATED and not (is_known(client) or is_anonymous(client)):
            now, stranger = self._clock(), stranger_of(client)
            with contextlib.suppress(RpcError):
                if client != stranger:
                    self._pace_of_newcomers.take(client, now)
                self._pace.take(stranger, now)

    def wait(self, path: str, client: str, size: int) -> None:
        """Count a call that waits with a request of so many bytes, until it is to `go_on`."""
        self._admission.enter(path, client)
        try:
            self.taking_in.keep(client, size)
        except RpcError:
            self._admission.leave(path, client)
            raise

    def go_on(self, path: str, client: str, size: int) -> None:
        """Note that a call waits no more."""
        self.taking_in.let_go(client, size)
        self._admission.leave(path, client)

    def move(self, client: str, username: str, kept_bytes: int) -> str:
        """Count a call and its bytes for its caller; who that is. Raises RpcError at a bound."""
        to = client_of("", username)
        self._admission.move(client, to)
        try:
            self.taking_in.move(client, to, kept_bytes)
        except RpcError:
            self._admission.move(to, client)
            raise
        return to

    def unknown(self) -> Status:
        """The status of a call of an unknown method. Does not look at its path."""
        self.end(_UNKNOWN_PATH, Code.UNIMPLEMENTED, self.begin(_UNKNOWN_PATH))
        return _NO_METHOD

    def refuse(self, path: str, error: Exception) -> Status:
        """The status of a call of `path` that is refused before it begins. Counts it."""
        return self.fail(path, error, self.begin(path))

    def fail(self, path: str, error: Exception, began: float) -> Status:
        """The status of a call that has begun and fails outside a stream. Counts its end."""
        failed = status_of(self.ending_of(path, error))
        self.end(path, failed.code, began)
        return failed

    def count_refusal(self, limit: str) -> None:
        """Count a connection or request that is refused at a limit, by its name in `Limits`."""
        self._counts.refusals[limit] += 1

    def check_length(self, method: Method, length: int) -> None:
        """Raise RpcError if a request of so many bytes may not be taken in."""
        self._admission.check_length(method.bound, length)

    def check_request(self, method: StreamMethod, request: bytes) -> None:
        """Raise RpcError if a request of a stream may not be read."""
        self._admission.check_request(method.bound, request)

    def check_fields(self, method: StreamMethod, request: bytes) -> Iterator[None]:
        """The same for its fields, step by step, so that others have their turn in between."""
        return self._admission.check_fields(method.request, request)

    def ending_of(self, path: str, error: Exception) -> RpcError:
        """The error with which a call of `path` ends that raised `error`, which is counted."""
        if not isinstance(error, RpcError):
            extra = about(reason="Fault", method=path)
            self._counts.faults += 1
            _log.error("a fault of ours in %s", path, exc_info=error, extra=extra)
            return RpcError(Code.INTERNAL, "a fault of the server; its log says more")
        if error.limit:
            self._counts.refusals[error.limit] += 1
        # The call keeps it. Its traceback refers to frames, and these to the call: a cycle.
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)

    def closed(self, path: str, client: str, code: Code, began: float) -> None:
        """Note that a stream of `open` has ended with `code`."""
        self._admission.leave(path, client)
        self.end(path, code, began)
        self.count_stranger(client, code)


class LongAnswer:
    """A response that takes longer to make than one turn of the event loop."""

    __slots__ = ("_began", "_making", "_over", "_path", "_sessions")

    def __init__(self, sessions: Sessions, path: str, making: Making, began: float) -> None:
        """Close it unless it has answered."""
        self._sessions = sessions
        self._path = path
        self._making = making
        self._began = began
        self._over = False

    def answer(self) -> bytes | Status | Later:
        """The response, the status of a failure, or LATER: ask in another turn. Never raises."""
        try:
            made = self._making()
        except Exception as error:  # noqa: BLE001 - a fault of one call must not end others.
            return self.fail(error)
        if made is not LATER:
            self._end(Code.OK)
        return made

    def fail(self, error: Exception) -> Status:
        """The status with which the call ends instead of an answer. Closes it."""
        self._over = True
        return self._sessions.fail(self._path, error, self._began)

    def close(self) -> None:
        """The call is over; if it has not ended yet, its client has gone. May be called twice."""
        if not self._over:
            self._end(Code.CANCELLED)

    def _end(self, code: Code) -> None:
        self._over = True
        self._sessions.end(self._path, code, self._began)


class WaitingCall:
    """A call with one request and one response, of a caller who is asked who it is."""

    __slots__ = (
        "_began",
        "_clearance",
        "_client",
        "_entered",
        "_method",
        "_peer",
        "_request",
        "_sessions",
        "_waits",
    )

    def __init__(
        self, sessions: Sessions, method: UnaryMethod, request: bytes, caller: Caller, wake: Wake
    ) -> None:
        """`wake` is called when `answer` may have one. Close it unless it has answered."""
        self._sessions = sessions
        self._method = method
        self._request: bytes | None = request
        self._peer = caller.peer
        self._began = sessions.begin(method.path)
        self._clearance = Clearance(sessions.gate, caller, wake)
        self._client = ""  # Whom it counts for: "" until that was asked.
        self._entered = False
        self._waits = False

    def answer(self) -> bytes | Status | LongAnswer | None:
        """As that of `Sessions.answer`; None if it is not known yet. Never raises."""
        assert self._request is not None, "it is asked until it has answered"
        try:
            if not self._may_call(self._request):
                self._wait(self._request)
                return None
        except Exception as error:  # noqa: BLE001 - a fault of one call must not end others.
            return self.fail(error)
        request, call = self._request, Call(self._peer, self._clearance.username, self._clearance)
        answer = self._sessions.answer(self._method, request, call, self._began)
        self._release()
        return answer

    def fail(self, error: Exception) -> Status:
        """The status with which it ends instead of an answer. Closes it."""
        self._release()
        failed = self._sessions.fail(self._method.path, error, self._began)
        self._sessions.count_stranger(self._client, failed.code)
        return failed

    def _may_call(self, request: bytes) -> bool:
        """Whether the caller has all that the call needs; False: it is not known yet."""
        clearance = self._clearance
        if not self._client:
            entry = self._method.needs.entry
            username = clearance.username_at_once(entry)
            self._client = self._sessions.client_at_once(self._peer, username, entry)
            clearance.ask(entry)
        if not clearance.granted():
            return False
        if not self._entered:
            self._enter(clearance.username)
            self._sessions.check_unary(self._method, request)
            for need in self._method.needs.beyond_entry(request):
                clearance.ask(need)
            clearance.wish(self._method.needs.wishes)
        return clearance.granted()

    def _enter(self, username: str) -> None:
        """Count it for its caller, who is known now. Raises RpcError at a bound."""
        client = client_of(self._peer, username) if username else self._client
        self._sessions.count_call(client)
        self._entered = True
        if username and self._waits:
            assert self._request is not None, "it has not answered"
            self._client = self._sessions.move(self._client, username, len(self._request))

    def _wait(self, request: bytes) -> None:
        if not self._waits:
            self._sessions.wait(self._method.path, self._client, len(request))
            self._waits = True

    def close(self) -> None:
        """The call is over; if it has not ended yet, its client has gone. May be called twice."""
        if self._request is not None:
            self._sessions.end(self._method.path, Code.CANCELLED, self._began)
            self._release()

    def _release(self) -> None:
        self._clearance.close()
        if self._waits and self._request is not None:
            self._sessions.go_on(self._method.path, self._client, len(self._request))
        self._request = None


class Session:
    """One open stream. The transport makes one call at a time, and closes it once.

    `in_hand`: the stream has yet to finish with the last request. It is asked for messages; as long
    as it returns LATER, it may not have read the whole request. The transport hands in no other
    request meanwhile. So no answers pile up for a client that sends and does not read, and at most
    one request of a stream is kept and worked on at once.
    """

    __slots__ = (
        "_began",
        "_client",
        "_code",
        "_ending",
        "_half_closed",
        "_kept_bytes",
        "_method",
        "_reading",
        "_sessions",
        "_stream",
        "_writing_since",
        "in_hand",
    )

    def __init__(
        self, sessions: Sessions, method: StreamMethod, client: str, stream: Stream, began: float
    ) -> None:
        """`client` is the one for which `Admission` has counted it; `began` as `begin` returned."""
        self.in_hand = False
        self._began = began
        self._sessions = sessions
        self._method = method
        self._client = client
        self._stream = stream
        self._code = Code.CANCELLED  # Unless we end it.
        self._ending: RpcError | None = None
        self._writing_since: float | None = None
        self._reading: Iterator[Later | Held | None] | None = None
        self._kept_bytes = 0
        self._half_closed = False

    def receive(self, request: bytes) -> None:
        """Take in the client's next message. An error in it ends the stream; see `next`."""
        assert not self.in_hand, "one request at a time"
        self.in_hand = True
        try:
            self._sessions.check_request(self._method, request)
            if len(request) <= _SMALL_BYTES:
                self._stream.receive(request)
            else:
                self._sessions.taking_in.keep(self._client, len(request))
                self._kept_bytes = len(request)
                self._reading = self._read(request)
        except Exception as error:  # noqa: BLE001 - a fault of one call must not end others.
            self._ending = self._sessions.ending_of(self._method.path, error)

    def _read(self, request: bytes) -> Iterator[Later | Held | None]:
        """Hand a large request to the stream, unless it has too many fields.

        Then it ends the stream, or is dropped, as the method says. Of a stranger nothing is read.
        """
        if isinstance(self._stream, GuardedStream):
            while (waits := self._stream.enter()) is not None:
                yield waits
        try:
            yield from self._sessions.check_fields(self._method, request)
        except RpcError as error:
            if not self.drops(error.limit):
                raise
        else:
            self._stream.receive(request)
        if self._half_closed:
            self._stream.half_close()

    def drops(self, limit: str) -> bool:
        """Whether a request beyond a limit is dropped, and the stream goes on; counts it then."""
        if self._method.on_dropped is None:
            return False
        self._sessions.count_refusal(limit)
        self._method.on_dropped(self._client, limit)
        return True

    def half_close(self) -> None:
        """The client sends no more. A server stream goes on."""
        if self._reading is not None:
            self._half_closed = True
            return
        try:
            self._stream.half_close()
        except Exception as error:  # noqa: BLE001 - a fault of one call must not end others.
            self._ending = self._sessions.ending_of(self._method.path, error)

    def next(self) -> bytes | Status | Later | Held | None:
        """What to send now: a message, the status to end with, LATER, or None until woken.

        HELD is None for a session that may not even go on with the request in hand.

        Call it only once the transport has taken the message before.
        """
        if self._ending is None:
            try:
                said = self._stream.next_message() if self._reading is None else self._read_on()
            except EndOfStream:
                self._code = Code.OK
                return OK
            except Exception as error:  # noqa: BLE001 - as above.
                self._ending = self._sessions.ending_of(self._method.path, error)
            else:
                if said is not LATER:
                    self.in_hand = said is HELD
                    if self._kept_bytes and said is not HELD:
                        self._let_go()
                return said
        self._code = self._ending.code
        return status_of(self._ending)

    def _read_on(self) -> bytes | Later | Held | None:
        """Go on reading a large request; once that is done, the next message."""
        assert self._reading is not None, "it is being read"
        for waits in self._reading:
            return waits or LATER
        self._reading = None
        return self._stream.next_message()

    def enter(self, peer: str, username: str) -> None:
        """Count it for its caller, who is known now. Raises RpcError at a bound."""
        self._sessions.count_call(client_of(peer, username) if username else self._client)
        if username:
            self._client = self._sessions.move(self._client, username, self._kept_bytes)

    @property
    def quiet(self) -> bool:
        """Whether it has nothing to send after the last message, until it is woken."""
        return self._ending is None and self._stream.quiet

    @property
    def shared(self) -> Shared | None:
        """What it shares with other streams now, so that one of them can be asked for all."""
        return self._stream.shared if self._ending is None else None

    def _let_go(self) -> None:
        """Stop counting the bytes of the request in hand, which was a large one."""
        self._sessions.taking_in.let_go(self._client, self._kept_bytes)
        self._kept_bytes = 0

    def end(self, error: RpcError) -> None:
        """End with `error`, which `next` returns from now on. The transport should ask soon."""
        self._ending = error

    @property
    def ending(self) -> bool:
        """Whether it is ending, and returns nothing else any more."""
        return self._ending is not None

    def write_began(self, now: float) -> None:
        """The transport waits for the client to read a message, from `now` on (seconds)."""
        self._writing_since = now

    def write_ended(self) -> None:
        """Note that the message has been read."""
        self._writing_since = None

    @property
    def writing(self) -> bool:
        """Whether the transport waits for the client to read a message."""
        return self._writing_since is not None

    @property
    def write_limited(self) -> bool:
        """Whether the client may take only so long for a message."""
        return self._method.write_s is not None

    def write_left_s(self, now: float) -> float | None:
        """How long the client may still take for the message under way; None: no limit.

        At 0 the stream is ended, with a status that says so.
        """
        write_s = self._method.write_s
        if self._writing_since is None or write_s is None:
            return None
        left_s = self._writing_since + write_s - now
        if left_s > 0:
            return left_s
        text = f"the client has taken in nothing for {write_s:g} s; connect again"
        self.end(RpcError(Code.UNAVAILABLE, text))
        return 0.0

    def close(self) -> None:
        """The call is over, however it ended: release everything. Once."""
        stream = self._stream
        del self._stream
        self._reading = None
        if self._kept_bytes:
            self._let_go()
        self._sessions.closed(self._method.path, self._client, self._code, self._began)
        try:
            stream.close()
        except Exception:  # noqa: BLE001 - the other streams of a lost connection are closed, too.
            path = self._method.path
            extra = about(reason="Fault", method=path)
            _log.exception("a fault of ours as a stream of %s was closed", path, extra=extra)


def not_one_request() -> RpcError:
    """The error of a call that has none or several requests where its method takes one."""
    # statuscodes.md: "request cardinality violation" is UNIMPLEMENTED.
    return RpcError(Code.UNIMPLEMENTED, "this method takes exactly one request message")


def request_too_late(request_s: float) -> RpcError:
    """The error of a call whose request has not come whole in time."""
    text = f"the request has not come whole within {request_s:g} s (request_s)"
    return RpcError(Code.DEADLINE_EXCEEDED, text, limit="request_s")


def status_of(error: RpcError) -> Status:
    """The status for the trailers of a call that ends with `error`.

    The message is cut to what its header may hold; details that do not fit are left out.
    """
    message = _fitting(escaped(error.message))
    if not error.details:
        return Status(error.code, message)
    status = status_pb2.Status(code=error.code, message=message)
    for detail in error.details:
        status.details.add().Pack(detail)
        if status.ByteSize() > _DETAILS_BYTES_MAX:
            del status.details[-1]
    return Status(error.code, message, status.SerializeToString())


def _fitting(message: str) -> str:
    """The message, cut so that it fits its header once it is percent-encoded."""
    encoded = 0
    for index, character in enumerate(message):
        # gRPC over HTTP/2: all but printable ASCII, and the percent sign, takes three a byte.
        plain = " " <= character <= "~" and character != "%"
        encoded += 1 if plain else 3 * len(character.encode())
        if encoded > _MESSAGE_BYTES_MAX:
            return message[:index]
    return message
