"""Scenario q, each cause of it small: it happens, is over, and nobody else's stream suffers.

Nothing is asserted of time, and nothing of what is measured by it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench import report, streams
from bench.dataset import DataSet
from bench.standstills.causes import CAUSES
from bench.standstills.trial import Cause, Size, provoked

pytestmark = pytest.mark.nightly

_ROOT = Path(__file__).parents[2]

# The 200 readers follow the first services, which a list with half of them still has.
_SIZE = Size(
    data=DataSet(services=400, endpoints=2),
    envoys=4,
    ports=20,
    file_bytes=100_000,
    calls=3,
    absent_streams=10,
    absent_names=20,
    absent_s=0.5,
    clients=20,
    rest_s=0.0,
)


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    subprocess.run(["make", "bench-tools"], cwd=_ROOT, check=True, capture_output=True)


# Those that depend on the transport.
_ON_GRPCIO = [cause for cause in CAUSES if cause.key in ("envoys", "absent", "reconnect")]


@pytest.mark.parametrize(
    ("cause", "transport"),
    [(cause, "http2") for cause in CAUSES] + [(cause, "grpcio") for cause in _ON_GRPCIO],
    ids=lambda value: getattr(value, "key", value),
)
def test_it_happens_and_costs_nobody_else_a_stream(cause: Cause, transport: str) -> None:
    got = provoked(cause, _SIZE, transport)
    wrong = {name: got[name] for name in report.WRONG if name in got}
    assert wrong == dict.fromkeys(wrong, 0)
    assert {"behind", "lost", "wrong_state", "ended"} <= set(wrong)
    assert 0 < got["before_mib"] <= got["peak_mib"]
    assert got["turn_cpu_ms"] > 0
    assert got["look_up_ms"] > 0


def test_a_cause_can_be_measured_alone() -> None:
    [alone] = streams.chosen(streams.scenarios(), ["q-file"])
    assert [(alone.key, contender.key) for contender in alone.contenders] == [("q", "file")]
    c, q = streams.chosen(streams.scenarios(), ["q", "c", "q-file"])
    assert (c.key, len(q.contenders)) == ("c", len(CAUSES))
    with pytest.raises(ValueError, match="q-fire, zz"):
        streams.chosen(streams.scenarios(), ["zz", "a", "q-fire"])
