"""The state of one watch: messages in, each service's state out. No I/O, no clock.

The states outlive the streams. The request of a new stream has the revisions held, so that the
stream does not repeat what is still true.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import grpc

from vmsvc import wire
from vmsvc.errors import ProtocolError, VmsvcError
from vmsvc.model import Absence, AbsenceReason, Endpoint, Readiness, ServiceState
from vmsvc.v1 import endpoint_service_pb2 as pb

# A namespace, "/", and the longest name of Kubernetes. Whatever breaks the contract may send more.
_NAME_SHOWN_MAX = 63 + 1 + 253


@dataclass(frozen=True, slots=True)
class Scope:
    """Which services a watch is about: those named, those of namespaces, or all."""

    services: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    all_services: bool = False
    readiness: Readiness = Readiness.READY_ONLY

    @classmethod
    def of(
        cls,
        services: Iterable[str],
        namespaces: str | Iterable[str],
        all_services: bool,
        readiness: Readiness,
    ) -> Scope:
        """The scope of a watch's arguments, each name once."""
        if isinstance(namespaces, str):
            namespaces = (namespaces,)
        return cls(
            tuple(dict.fromkeys(services)),
            tuple(dict.fromkeys(namespaces)),
            all_services,
            readiness,
        )


@dataclass(frozen=True, slots=True)
class Synced:
    """All states are up to date: every service of the watch has been answered."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The stream is lost. The states stay, and may be out of date until `Synced`.

    The next one is opened `retry_in_s` seconds from now.
    """

    error: VmsvcError
    retry_in_s: float


Event = ServiceState | Synced | Disconnected
"""What a watch yields: a service's state after a change, or whether states are up to date."""


class WatchState:
    """The services of one watch, as its streams have sent them so far.

    A deleted service is forgotten unless it was asked for by name, so that it does not grow with
    every service that ever was.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._named = frozenset(scope.services)
        self._held: dict[str, ServiceState] = {}
        self._resume = True
        # The services answered on this stream, with the version to which a delta applies; None if
        # there is none.
        self._sent: dict[str, int | None] = {}
        self.synced = False

    @property
    def can_ask_less(self) -> bool:
        """Whether this stream, whose request had more names than were asked for, got no message."""
        return self._resume and not self._sent and not self._held.keys() <= self._named

    @property
    def states(self) -> Mapping[str, ServiceState]:
        """The newest state of each service, by name. Read-only; changes as messages come."""
        return MappingProxyType(self._held)

    def begin(self) -> pb.WatchEndpointsRequest:
        """The request of a new stream, which resumes from the states held."""
        self._sent = {}
        self.synced = False
        revisions = dict.fromkeys(self._scope.services, "")
        if self._resume:
            revisions |= {name: state.revision for name, state in self._held.items()}
        return pb.WatchEndpointsRequest(
            services=[
                pb.WatchedService(service=name, revision=revision)
                for name, revision in revisions.items()
            ],
            namespaces=self._scope.namespaces,
            all_services=self._scope.all_services,
            readiness=wire.readiness_number(self._scope.readiness),
        )

    def lost(self, *, resume: bool = True) -> None:
        """The stream ended. Unless `resume`, the next one does not resume from the states held."""
        self.synced = False
        self._resume = self._resume and resume

    def receive(self, message: pb.WatchEndpointsResponse) -> tuple[Event, ...]:
        """Take in the stream's next message; the events that follow, in order.

        Empty if it changes nothing. Raises ProtocolError, and changes nothing, if it does not
        follow from the messages before.
        """
        event = message.WhichOneof("event")
        if event is not None and event != "synced":
            self._check(getattr(message, event).service)
        match event:
            case "snapshot":
                return self._snapshot(message.snapshot)
            case "delta":
                return self._delta(message.delta)
            case "current":
                return self._current(message.current)
            case "absent":
                return self._absent(wire.absent(message.absent))
            case "synced":
                return self._all_answered()
            case _:
                # A newer server sends a message that this client does not know.
                return ()

    def _check(self, service: str) -> None:
        """Whether a service was asked for. To hold others would be to ask for them next time."""
        scope = self._scope
        namespace = service.partition("/")[0]
        if not (scope.all_services or service in self._named or namespace in scope.namespaces):
            raise _violation(service, "it was not asked for")

    def _snapshot(self, snapshot: pb.EndpointSet) -> tuple[Event, ...]:
        self._rise(snapshot.service, snapshot.version)
        state = wire.present(snapshot)
        once = {(e.address, e.vm_uid): e for e in state.endpoints}
        return self._hold(replace(state, endpoints=_sorted(once.values())))

    def _delta(self, delta: pb.Delta) -> tuple[Event, ...]:
        held = self._held.get(delta.service)
        if held is None or self._sent.get(delta.service) is None:
            raise _violation(delta.service, "a delta came before a state to apply it to")
        endpoints = _changed(held, delta)
        self._rise(delta.service, delta.version)
        return self._hold(
            ServiceState(
                delta.service,
                wire.ports(delta.ports) if delta.ports_changed else held.ports,
                endpoints,
                version=delta.version,
                revision=delta.revision,
            )
        )

    def _current(self, current: pb.Current) -> tuple[Event, ...]:
        held = self._held.get(current.service)
        if held is None or not held.present or held.revision != current.revision:
            raise _violation(current.service, "it is said to be as held, but that is not held")
        self._rise(current.service, current.version)
        return self._hold(replace(held, version=current.version))

    def _absent(self, state: ServiceState) -> tuple[Event, ...]:
        self._sent[state.service] = None
        if state.service in self._named or not deleted(state):
            return self._hold(state)
        return (state,) if self._held.pop(state.service, None) else ()

    def _all_answered(self) -> tuple[Event, ...]:
        unanswered = [name for name in self._held if name not in self._sent]
        self.synced = True
        self._resume = True
        told: list[Event] = []
        for name in unanswered:
            told += self._absent(gone(name))
        return (*told, Synced())

    def _rise(self, service: str, version: int) -> None:
        before = self._sent.get(service)
        if before is not None and version <= before:
            raise _violation(service, f"version {version} came after {before}")
        self._sent[service] = version

    def _hold(self, state: ServiceState) -> tuple[Event, ...]:
        before = self._held.get(state.service)
        self._held[state.service] = state
        if before is None or (before != state and not (deleted(before) and deleted(state))):
            return (state,)
        return ()


def _changed(held: ServiceState, delta: pb.Delta) -> tuple[Endpoint, ...]:
    """The endpoints after a delta, whose removals come first. Raises ProtocolError.

    Of those that stay, only pointers are looked at: a large service may change often.
    """
    endpoints, gone, new = list(held.endpoints), set[int](), dict[tuple[str, str], Endpoint]()
    for key in delta.removed:
        at = _place(endpoints, (key.address, key.vm_uid))
        if at is None or at in gone:
            raise _violation(delta.service, f"a delta removes {key.address}, which is not held")
        gone.add(at)
    for endpoint in wire.endpoints(delta.upserted):
        if (at := _place(endpoints, _key(endpoint))) is None:
            new[_key(endpoint)] = endpoint
        else:
            endpoints[at] = endpoint
            gone.discard(at)
    if gone:
        endpoints = [endpoint for at, endpoint in enumerate(endpoints) if at not in gone]
    return _sorted([*endpoints, *new.values()]) if new else tuple(endpoints)


def _place(endpoints: Sequence[Endpoint], key: tuple[str, str]) -> int | None:
    """Where an endpoint stands among sorted ones; None: it is not there."""
    at = bisect_left(endpoints, key, key=_key)
    return at if at < len(endpoints) and _key(endpoints[at]) == key else None


def _key(endpoint: Endpoint) -> tuple[str, str]:
    return endpoint.address, endpoint.vm_uid


def _sorted(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    return tuple(sorted(endpoints, key=_key))


def gone(service: str) -> ServiceState:
    """The state of a service that does not exist, of which the server has sent nothing."""
    message = f"there is no VirtualMachineService {service}"
    return ServiceState(service, absence=Absence(AbsenceReason.NOT_FOUND, message))


def deleted(state: ServiceState) -> bool:
    """Whether the service does not exist, and is not just refused."""
    # "Is being deleted" and "there is none" are the same to a client.
    return state.absence is not None and state.absence.reason is AbsenceReason.NOT_FOUND


def _violation(service: str, what: str) -> ProtocolError:
    shown = service if len(service) <= _NAME_SHOWN_MAX else f"{service[:_NAME_SHOWN_MAX]}..."
    return ProtocolError(f"service {shown}: {what}", code=grpc.StatusCode.INTERNAL)
