"""What the writes of one change of a large service cost the event loop, piece by piece.

`python -m bench.write_cost`: of a service of 5,000 endpoints one VM changes its address. The
pieces are those that run between the VM's event and the end of the watch's echo of our last
write; each is one synchronous call, so the largest is the longest standstill. It is told for
Endpoints that Kubernetes mirrors, for EndpointSlices that we write ourselves, and for a
directory, where a write is one call that gives way in between.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.collector import calm_collector
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
from vmsvc_grpc.reconciler.directory import DirectoryStore
from vmsvc_grpc.reconciler.fields import body
from vmsvc_grpc.reconciler.held import Held, HeldObjects
from vmsvc_grpc.reconciler.patch import merge_patch
from vmsvc_grpc.reconciler.plan import Change, plan
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.source.slim import read_slim

ENDPOINTS = 5000
ROUNDS = 10
SERVICE = Key("bench", "large")
MIRRORED = Rules(vmservices_held=True)
DIRECT = Rules(vmservices_held=True, direct_slices=True)

_SPEC = ServiceSpec(selector={"app": "large"}, ports=(ServicePort("http", "TCP", 80, 8080),))
_NOW = "2026-01-01T00:00:00Z"

P = ParamSpec("P")
T = TypeVar("T")


def measured(
    rules: Rules, endpoints: int = ENDPOINTS, rounds: int = ROUNDS
) -> dict[str, tuple[float, int]]:
    """The seconds of CPU that each piece takes, and how often a change has it.

    Of `rounds` changes, the least of each: what the machine adds is not the piece's.
    """
    world = World(endpoints, rules)
    calm_collector()
    for number in range(rounds):
        world.write(number * 7 % endpoints)
    return {
        piece: (min(times), round(len(times) / rounds)) for piece, times in world.pieces.items()
    }


class World:
    """A cache, and an API server's answers to what is planned from it."""

    def __init__(self, endpoints: int, rules: Rules = MIRRORED) -> None:
        self.pieces: defaultdict[str, list[float]] = defaultdict(list)
        self._cache = Cache(AddressRules(), kinds=Kind)
        self._rules = rules
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

    @property
    def endpoints(self) -> StoredEndpoints:
        """The Endpoints as they are held."""
        return self._cache.stored_endpoints[SERVICE]

    def write(self, number: int) -> None:
        """One VM's address changes, and all is written that differs."""
        self._piece("cache: the VM's event", self._cache.apply, Apply(_vm(number, moved=True)))
        while (change := self._piece("desired, plan", self._next)) is not None:
            before, after = change.before, change.after
            assert before is not None
            assert after is not None
            kind = after.kind
            patch = self._piece(f"{kind.value}: patch", merge_patch, before, after)
            self._piece(f"{kind.value}: encode", msgspec.json.encode, patch)
            answer = self._answer(self._stored(after))
            held = self._piece(f"{kind.value}: read the answer", parse_json, kind, answer)
            self._piece(f"{kind.value}: cache: the answer", self._cache.apply, Answer(held))
            echo = self._piece(f"{kind.value}: read the watch's echo", read_slim, kind, answer)
            self._piece(f"{kind.value}: cache: the echo", self._cache.apply, Apply(echo))

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
            slices=self._cache.stored_slices.of(SERVICE),
        )
        wanted = desired(observed, service.spec, service.endpoints, self._rules, now=_NOW)
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


async def of_a_file(endpoints: int = ENDPOINTS, rounds: int = ROUNDS) -> tuple[float, float]:
    """The seconds of CPU of the longest piece of a write to a directory, and of all of it.

    A piece ends where another task has its turn. Of `rounds` writes, the least of each.
    """
    change = Change(None, World(endpoints).endpoints)
    calm_collector()
    ends: list[float] = []

    async def note_ends() -> None:
        while True:
            ends.append(time.thread_time())
            await asyncio.sleep(0)

    longest, total = [], []
    with tempfile.TemporaryDirectory() as directory:
        store = DirectoryStore(Path(directory))
        async with asyncio.TaskGroup() as tasks:
            noting = tasks.create_task(note_ends())
            for _ in range(rounds):
                await asyncio.sleep(0)
                ends.clear()
                began = time.thread_time()
                await store.apply(change)
                ends.append(time.thread_time())
                longest.append(max(b - a for a, b in pairwise([began, *ends])))
                total.append(ends[-1] - began)
            noting.cancel()
    return min(longest), min(total)


def main() -> None:
    """Print the pieces, and what they come to."""
    print(f"one VM of {ENDPOINTS:,} changes its address")
    for title, rules in (("mirrored", MIRRORED), ("direct slices", DIRECT)):
        pieces = measured(rules)
        print(f"\n{title}")
        for piece, (took_s, times) in pieces.items():
            print(f"  {piece:40} {took_s * 1000:7.2f} ms x {times}")
        total_s = sum(took_s * times for took_s, times in pieces.values())
        print(f"  {'in all':40} {total_s * 1000:7.2f} ms")
    longest_s, total_s = asyncio.run(of_a_file())
    print("\na file of --output")
    print(f"  {'longest piece':40} {longest_s * 1000:7.2f} ms")
    print(f"  {'in all':40} {total_s * 1000:7.2f} ms")
    version = sys.version.split()[0]
    print(f"\nPython {version}; CPU of the thread, the least of {ROUNDS} rounds each")


if __name__ == "__main__":
    main()
