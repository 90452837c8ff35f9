"""Every case through the real program on a real API server, beside all others of its setting."""

import pytest

from tests.conformance.bench import Bench
from tests.conformance.case import Case, CaseError


def test_case(cluster_case: Case, bench: Bench) -> None:
    """At the end of each stage all is as expected, and is so still once all has settled."""
    try:
        failures = bench.failures(cluster_case)
    except CaseError as error:
        failures = [str(error)]
    if failures:
        pytest.fail("\n".join(failures), pytrace=False)
