"""Scenarios a to p, and r: what streams cost, beside a bare grpc.aio, grpc-go and go-control-plane.

And q: what everybody waits for while somebody asks for much. (k to m are `bench.cluster`'s.)
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from bench import servers
from bench.dataset import DataSet
from bench.following import FOLLOWERS, followed
from bench.servers import Load, Server
from bench.standstills import causes
from bench.standstills.trial import Size, provoked
from bench.trial import Changes, Measured, reconnected, streamed

_OWN = (servers.OURS, servers.OURS_GRPCIO, servers.BARE, servers.GRPC_GO)
_FEW = (servers.OURS, servers.OURS_GRPCIO, servers.GRPC_GO)
_XDS = (
    servers.OURS,
    servers.OURS_DELTA,
    servers.OURS_SOTW,
    servers.OURS_GRPCIO_DELTA,
    servers.BARE_DELTA,
    servers.CONTROL_PLANE_DELTA,
    servers.CONTROL_PLANE_SOTW,
)


@dataclass(frozen=True, slots=True)
class Contender:
    """Who is measured in a scenario, by the name that the report gives it, and how.

    One that has a key may be measured alone: `q-file` is that of `q` with the key `file`. One by
    which no target is judged is measured `once`, as it would take as long as those.
    """

    name: str
    measure: Callable[[], Measured]
    key: str = ""
    once: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is measured, who takes part, and how often each is measured, in turns."""

    key: str
    title: str
    contenders: tuple[Contender, ...]
    repeats: int = 3


def scenarios() -> list[Scenario]:
    """All of them, in the order of their letters. 60 minutes on 2 cores."""
    return [*_all(seconds=6.0), *_standstills(causes.FULL)]


def quick() -> list[Scenario]:
    """The smaller ones, once and for a shorter time. 6 minutes on 2 cores."""
    wanted = ("a", "b", "c", "d", "g", "h", "i-c", "n", "j")
    smaller = [replace(s, repeats=1) for s in _all(seconds=3.0) if s.key in wanted]
    return [*smaller, *_standstills(causes.QUICK)]


def chosen(scenarios: Sequence[Scenario], keys: Sequence[str]) -> list[Scenario]:
    """Those of these keys, in their order; of `q-file`, `q` with that contender alone.

    Raises ValueError with the keys that there are not.
    """
    found = [(s, _contenders(s, keys)) for s in scenarios]
    known = {s.key for s in scenarios} | {
        f"{s.key}-{c.key}" for s in scenarios for c in s.contenders
    }
    if unknown := set(keys) - known:
        raise ValueError(", ".join(sorted(unknown)))
    return [replace(s, contenders=contenders) for s, contenders in found if contenders]


def _contenders(scenario: Scenario, keys: Sequence[str]) -> tuple[Contender, ...]:
    if scenario.key in keys:
        return scenario.contenders
    return tuple(c for c in scenario.contenders if f"{scenario.key}-{c.key}" in keys)


def _standstills(size: Size) -> Iterator[Scenario]:
    services, vms = size.data.services, size.data.first_seq
    title = f"standstills, beside 200 streams, with {services:,} services and {vms:,} VMs"
    contenders = tuple(
        Contender(cause.title, partial(provoked, cause, size), cause.key) for cause in causes.CAUSES
    )
    yield Scenario("q", title, contenders, repeats=1)


def _all(seconds: float) -> Iterator[Scenario]:
    one = _Shape(DataSet(1, 100), Load(1, 1), Changes(round(20 * seconds), 20.0))
    b = _Shape(DataSet(1, 100), Load(100, 10), Changes(round(10 * seconds), 10.0))
    c = _Shape(DataSet(1, 100), Load(1_000, 100), Changes(round(5 * seconds), 5.0))
    d = _Shape(DataSet(200, 20), Load(1_000, 1_000), Changes(round(50 * seconds), 50.0))
    e = _Shape(DataSet(1, 100), Load(10_000, 1_000), Changes(round(seconds), 1.0))
    many = "100 endpoints"
    yield Scenario("a", f"1 stream, {many}, 20 changes/s", one.by(_OWN))
    yield Scenario("b", f"100 streams on 10 connections, {many}, 10 changes/s", b.by(_OWN))
    yield Scenario("c", f"1,000 streams on 100 connections, {many}, 5 changes/s", c.by(_OWN))
    title = "1,000 streams on 1,000 connections, 200 services of 20, 50 changes/s"
    yield Scenario("d", title, d.by(_OWN))
    yield Scenario("e", f"10,000 streams on 1,000 connections, {many}, 1 change/s", e.by(_OWN))
    yield Scenario("f", "5,000 clients connect at once, and again", _reconnects(_FEW))
    yield Scenario("g", "c, and 10 streams that never read", _stalled(c))
    flat_out = replace(c, changes=Changes(round(200 * seconds), 200.0))
    title = "c with more changes than can be delivered: 200/s"
    yield Scenario("h", title, flat_out.by(_FEW))
    yield Scenario("i-b", "b by xDS", b.by(_XDS), repeats=2)
    yield Scenario("i-c", "c by xDS", c.by(_XDS), repeats=2)
    yield Scenario("i-e", "e by xDS", e.by(_XDS), repeats=2)
    tls = (servers.OURS_TLS, servers.OURS_TOKENS, servers.GRPC_GO_TLS)
    yield Scenario("n", "c with TLS, and with a token on each connection", c.by(tls))
    o = replace(e, load=Load(100_000, 1_000, lean=True))
    title = f"100,000 streams on 1,000 connections, {many}, 1 change/s; a lean client"
    yield Scenario("o", title, o.by((servers.OURS,)))
    yield Scenario("p", "f with TLS, and with a token for each client", _reconnects(tls), repeats=2)
    yield Scenario("r", "c by clients: what following costs them", _followers(c.load, c.changes))
    yield Scenario("j", "one VM's event, from bytes to published", tuple(_events()))


@dataclass(frozen=True, slots=True)
class _Shape:
    data: DataSet
    load: Load
    changes: Changes

    def by(self, contenders: Sequence[Server]) -> tuple[Contender, ...]:
        return tuple(
            Contender(
                s.name,
                partial(streamed, s, self.data, self.load, self.changes),
                once=s in servers.BESIDE,
            )
            for s in contenders
        )


def _reconnects(contenders: Sequence[Server]) -> tuple[Contender, ...]:
    data, load = DataSet(1, 100), Load(5_000, 5_000)
    return tuple(
        Contender(s.name, partial(reconnected, s, data, load), once=s in servers.BESIDE)
        for s in contenders
    )


def _followers(load: Load, changes: Changes) -> tuple[Contender, ...]:
    return tuple(Contender(f.name, partial(followed, f, load, changes)) for f in FOLLOWERS)


def _stalled(shape: _Shape) -> tuple[Contender, ...]:
    [without] = shape.by((servers.OURS,))
    [with_stalled] = replace(shape, load=replace(shape.load, stalled=10)).by((servers.OURS,))
    return (
        replace(without, name="none stalled"),
        replace(with_stalled, name="10 stalled"),
    )


def _events() -> Iterator[Contender]:
    for count in (10, 1_000, 10_000):
        yield Contender(f"{count:,} services", partial(_event, count))


def _event(count: int) -> Measured:
    command = [sys.executable, "-m", "bench.events", f"--services={count}"]
    done = subprocess.run(
        [*command, "--endpoints=5", "--events=20000"], stdout=subprocess.PIPE, check=True
    )
    measured: Measured = json.loads(done.stdout)
    return measured
