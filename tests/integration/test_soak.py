"""The soak's clients and files, on the real program: they end right, and what is left is seen."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from soak.crowd import Crowd, Door
from soak.files import Files
from soak.inspection import GAUGES, gauges, holding, within
from tests.conformance.told import Told
from tests.integration.cluster import Listener
from tests.program import awaited, serving

PATIENCE_S = 60.0


def ready(listener: Listener) -> Mapping[str, frozenset[str]]:
    """The addresses that an Envoy should have, by cluster, as another API tells them."""
    return {
        f"{name.partition('/')[2]}.{name.partition('/')[0]}:{state.ports[0].port}": frozenset(
            each.address for each in state.endpoints if each.ready
        )
        for name, state in listener.told().items()
        if isinstance(state, Told)
    }


def test_a_crowd_ends_right_and_leaves_nothing_and_is_seen_while_it_is_there(
    tmp_path: Path,
) -> None:
    files = Files(tmp_path, 1)
    arguments: list[str | Path] = ["--manifests", files.manifests, "--output", tmp_path / "out"]
    with serving([*arguments, "--drain-s", "0"], tmp_path / "log", within=within(tmp_path)) as told:
        before = replace(holding(told, tmp_path), cached=())
        with (
            closing(Listener(told.grpc)) as listener,
            closing(Crowd([Door(told.grpc)], 6, 1)) as crowd,
        ):

            def busy() -> bool:
                files.step()
                kinds = ("reconnects", "stalled readers", "watches")
                return all(crowd.counts[kind] >= 3 for kind in kinds)

            assert awaited(busy, PATIENCE_S, 0.1)
            files.mend()
            crowd.calm()
            right = awaited(lambda: ready(listener) if len(ready(listener)) == 12 else None)
            assert right
            assert awaited(
                lambda: all(held == ready(listener) for held in crowd.endpoints()), PATIENCE_S, 0.1
            )
            left = list(holding(told, tmp_path).leavings(before))
            assert any("vmsvc_streams_open" in line for line in left)
            assert any("the cache still has" in line for line in left)
            assert any("descriptors" in line for line in left)
        files.clear()

        def nothing() -> bool:
            left[:] = holding(told, tmp_path).leavings(before)
            return not left

        assert awaited(nothing, PATIENCE_S, 0.5), left


def test_every_gauge_that_is_looked_at_is_on_the_page(tmp_path: Path) -> None:
    files = Files(tmp_path, 1)
    with (
        serving(["--manifests", files.manifests], tmp_path / "log") as program,
        closing(Listener(program.grpc)) as listener,
    ):
        assert awaited(lambda: ready(listener))
        seen = {name.partition("{")[0] for name in gauges(program)}
    assert {"vmsvc_objects", "vmsvc_topics", "vmsvc_streams_open"} <= seen
    assert seen <= {each.metric for each in GAUGES}
