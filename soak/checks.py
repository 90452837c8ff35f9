"""What must hold at the end: each check yields what is wrong, a line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from http import HTTPStatus
from pathlib import Path

from soak.memory import growth
from soak.stage import Stage
from tests.conformance.told import NotTold, content
from tests.integration.cluster import Fresh, Listener, path
from tests.program import awaited, serving

_PATIENCE_S = 60.0


def agreement(stage: Stage) -> Iterator[str]:
    """Streams that lived through all of it, look-ups and objects: as computed afresh."""
    try:
        stage.world.agrees(*stage.replicas)
    except AssertionError as error:
        yield from str(error).splitlines()[:20]


def envoys(stage: Stage) -> Iterator[str]:
    """Each Envoy would send to the addresses that are right."""
    right = _clusters(Fresh.read(stage.world.hands, ""))
    awaited(lambda: all(held == right for held in stage.crowd.endpoints()), _PATIENCE_S, 0.2)
    for number, held in enumerate(stage.crowd.endpoints()):
        if held != right:
            yield f"Envoy {number} holds {_differing(held, right)} otherwise than is right"


def _clusters(fresh: Fresh) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for name, service in fresh.vm_services.items():
        namespace, _, short = name.partition("/")
        assert service.spec is not None
        ready = frozenset(e.address for e in fresh.endpoints_of(name) if e.ready)
        found |= {f"{short}.{namespace}:{port.port}": ready for port in service.spec.ports}
    return found


def _differing(
    held: Mapping[str, frozenset[str]], right: Mapping[str, frozenset[str]]
) -> list[str]:
    return [name for name in sorted(held.keys() | right) if held.get(name) != right.get(name)]


def files(stage: Stage) -> Iterator[str]:
    """What is told and held of files is what a program that begins now tells and holds."""
    out = stage.folder / "fresh"
    arguments: list[str | Path] = [
        "--manifests",
        stage.files.manifests,
        "--output",
        out,
        "--drain-s",
        "0",
    ]
    with (
        serving(arguments, stage.folder / "fresh.log") as program,
        closing(Listener(program.grpc)) as fresh,
    ):

        def held() -> list[object]:
            """By each: what its stream has told, and what its directory has."""
            return [
                (
                    {
                        name: content(state)
                        for name, state in listener.told().items()
                        if not isinstance(state, NotTold)
                    },
                    {p.relative_to(root): p.read_text() for p in root.rglob("*.yaml")},
                )
                for listener, root in ((stage.file_listener, stage.folder / "out"), (fresh, out))
            ]

        def same() -> bool:
            old, new = held()
            return old == new

        if not awaited(same, _PATIENCE_S, 0.2):
            yield f"files are told or held otherwise than by a new program: {held()}"
    yield from stage.file_listener.wrong


def leavings(stage: Stage) -> Iterator[str]:
    """Nobody asks any more, and nothing is there: then nothing is left of all that was."""
    hands = stage.world.hands
    for kind in ("virtualmachineservices", "virtualmachines"):
        for one in hands.listed(kind):
            where = path(kind, one["metadata"]["namespace"], one["metadata"]["name"])
            assert hands.ask("DELETE", where).status in (HTTPStatus.OK, HTTPStatus.NOT_FOUND)
    stage.files.clear()
    for listener in (stage.file_listener, *(each.listener for each in stage.replicas)):
        listener.close()
    left: list[str] = []

    def nothing() -> bool:
        left[:] = _left(stage)
        return not left

    awaited(nothing, _PATIENCE_S, 2.0)
    yield from left


def _left(stage: Stage) -> list[str]:
    now = stage.holdings()
    return [f"{name}: {line}" for name in now for line in now[name].leavings(stage.before[name])]


def memory(stage: Stage) -> Iterator[str]:
    """After the first half, its warm-up, no process has grown."""
    for name, samples in stage.memory.items():
        grown = growth(samples)
        if not grown.flat:
            yield (
                f"{name} grew by {grown.grown_bytes / 2**20:.1f} MiB in the second half, from a"
                f" level of {grown.level_bytes / 2**20:.0f} MiB"
            )
