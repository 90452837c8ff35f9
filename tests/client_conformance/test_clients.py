"""Each client of this repository does what the cases of clients/conformance say."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from tests.client_conformance.case_pb2 import Case


def test_a_client(client: str, case: Case, played: Callable[[str, str], Future[None]]) -> None:
    played(client, case.name).result()
