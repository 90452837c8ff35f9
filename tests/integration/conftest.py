"""Integration tests run on the event loop that the program runs on."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop

from tests.integration import serving

# What a server says must not depend on what carries it.
_OVER_EACH_TRANSPORT = (
    "test_client_calls",
    "test_client_server",
    "test_server_bounds",
    "test_server_calls",
    "test_server_drain",
    "test_server_leavings",
    "test_server_streams",
    "test_client_pings",
    "test_server_transport",
    "test_xds_envoy",
    "test_xds_grpc",
    "test_xds_server",
)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] in _OVER_EACH_TRANSPORT:
        metafunc.parametrize("transport", serving.TRANSPORTS, indirect=True)


# For each test, or pytest would not make it for those whose arguments do not have it.
@pytest.fixture(autouse=True)
def transport(request: pytest.FixtureRequest) -> Iterator[str]:
    """Which transport the servers of a test have."""
    used: str = getattr(request, "param", "http2")
    serving.used[0] = used
    yield used
    serving.used[0] = "http2"
