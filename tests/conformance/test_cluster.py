"""Every case through the real program on a real API server, beside all others of its setting."""

import pytest

from tests.conformance.bench import Bench
from tests.conformance.case import Case


def test_case(cluster_case: Case, bench: Bench) -> None:
    """At the end of each stage all is as expected, and is so still once all has settled."""
    if failures := bench.failures(cluster_case):
        pytest.fail("\n".join(failures), pytrace=False)
