"""What one write of a large Endpoints costs the event loop, piece by piece.

`python -m bench.write_cost`: of a service of 5,000 endpoints one VM changes its address. The
pieces are those that run between the VM's event and the end of the watch's echo of our write;
each is one synchronous call, so the largest is the longest standstill.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import ParamSpec, TypeVar

import msgspec

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Answer, Apply, Init, InitDone
from vmsvc_grpc.model.objects import (
    IPFamily,
    Key,
    Kind,
    ObjectMeta,
    ReportedAddress,
    ServicePort,
    ServiceSpec,
    StoredEndpoints,
    VirtualMachine,
    VirtualMachineService,
)
from vmsvc_grpc.model.parse import parse_json
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.reconciler.desired import desired
from vmsvc_grpc.reconciler.fields import body
from vmsvc_grpc.reconciler.held import Held, HeldObjects
from vmsvc_grpc.reconciler.patch import merge_patch
from vmsvc_grpc.reconciler.plan import Change, plan
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.source.slim import read_slim

ENDPOINTS = 5000
ROUNDS = 10
SERVICE = Key("bench", "large")

_SPEC = ServiceSpec(selector={"app": "large"}, ports=(ServicePort("http", "TCP", 80, 8080),))
_RULES = Rules(vmservices_held=True)
_NOW = "2026-01-01T00:00:00Z"

P = ParamSpec("P")
T = TypeVar("T")


def measured(endpoints: int = ENDPOINTS, rounds: int = ROUNDS) -> dict[str, float]:
    """The seconds of CPU that each piece takes: of `rounds` writes, the least of each."""
    world = World(endpoints)
    for number in range(rounds):
        world.write(number * 7 % endpoints)
    return {piece: min(times) for piece, times in world.pieces.items()}


class World:
    """A cache, and an API server's answers to what is planned from it."""

    def __init__(self, endpoints: int) -> None:
        self.pieces: defaultdict[str, list[float]] = defaultdict(list)
        self._cache = Cache(AddressRules(), kinds=Kind)
        self._version = 0
        for kind in Kind:
            self._cache.apply(Init(kind))
        vmservice = VirtualMachineService(meta=ObjectMeta(key=SERVICE, uid="uid"), spec=_SPEC)
        self._cache.apply(Apply(vmservice))
        for number in range(endpoints):
            self._cache.apply(Apply(_vm(number)))
        for kind in Kind:
            self._cache.apply(InitDone(kind))
        while (change := self._next()) is not None:
            assert change.after is not None
            self._cache.apply(Answer(self._stored(change.after)))

    def write(self, number: int) -> None:
        """One VM's address changes, and the Endpoints are written."""
        self._piece("cache: the VM's event", self._cache.apply, Apply(_vm(number, moved=True)))
        change = self._piece("desired, plan", self._next)
        assert change is not None
        assert isinstance(change.before, StoredEndpoints)
        assert isinstance(change.after, StoredEndpoints)
        patch = self._piece("patch", merge_patch, change.before, change.after)
        self._piece("encode", msgspec.json.encode, patch)
        answer = self._answer(self._stored(change.after))
        held = self._piece("read the answer", parse_json, Kind.ENDPOINTS, answer)
        self._piece("cache: the answer", self._cache.apply, Answer(held))
        assert self._piece("desired, plan: nothing", self._next) is None
        echo = self._piece("read the watch's echo", read_slim, Kind.ENDPOINTS, answer)
        self._piece("cache: the echo", self._cache.apply, Apply(echo))

    def _piece(self, name: str, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        began = time.thread_time()
        result = work(*args, **named)
        self.pieces[name].append(time.thread_time() - began)
        return result

    def _next(self) -> Change | None:
        service = self._cache.services[SERVICE]
        observed = HeldObjects(
            vmservice=service.object,
            service=self._cache.stored_services.get(SERVICE),
            endpoints=self._cache.stored_endpoints.get(SERVICE),
        )
        wanted = desired(observed, service.spec, service.endpoints, _RULES, now=_NOW)
        return next(iter(plan(wanted.objects, observed)), None)

    def _stored(self, wanted: Held) -> Held:
        self._version += 1
        uid = wanted.meta.uid or f"uid-{self._version}"
        meta = replace(wanted.meta, uid=uid, resource_version=str(self._version))
        return replace(wanted, meta=meta)

    def _answer(self, held: Held) -> bytes:
        whole = body(held)
        whole["metadata"] |= {
            "uid": held.meta.uid,
            "resourceVersion": held.meta.resource_version,
        }
        return msgspec.json.encode(whole)


def _vm(number: int, *, moved: bool = False) -> VirtualMachine:
    first = 11 if moved else 10
    address = f"{first}.{number // 65536}.{number // 256 % 256}.{number % 256}"
    report = ReportedAddress("status.network.primaryIP4", address, IPFamily.IPV4)
    return VirtualMachine(
        key=Key(SERVICE.namespace, f"vm-{number:05}"),
        uid=f"0b8f7e3c-4c1d-4c55-9d6e-{number:012x}",
        labels={"app": "large"},
        addresses=(report,),
    )


def main() -> None:
    """Print the pieces, and what they come to."""
    pieces = measured()
    for piece, took_s in pieces.items():
        print(f"{piece:24} {took_s * 1000:7.2f} ms")
    print(f"{'in all':24} {sum(pieces.values()) * 1000:7.2f} ms, of {ENDPOINTS:,} endpoints")
    print(f"Python {sys.version.split()[0]}; CPU of the thread, the least of {ROUNDS} rounds each")


if __name__ == "__main__":
    main()
