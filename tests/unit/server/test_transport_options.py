"""What gRPC is told about connections: its defaults are made for short calls."""

from __future__ import annotations

import pytest

from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.transport.grpc_aio import _options

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("option", "value"),
    [
        # Go's pings come every 10 s at the most, and not as regularly as they are sent.
        pytest.param("grpc.http2.min_ping_interval_without_data_ms", 5_000, id="client pings"),
        pytest.param("grpc.keepalive_permit_without_calls", 1, id="pings without a call"),
        pytest.param("grpc.keepalive_time_ms", 60_000, id="our pings, by default every 2 h"),
        pytest.param("grpc.keepalive_timeout_ms", 10_000, id="how long a ping may take"),
        # Without it, a client that vanished was dropped after a minute, and the time to our ping.
        pytest.param("grpc.http2.ping_timeout_ms", 10_000, id="how long a ping may take in fact"),
        pytest.param("grpc.http2.max_pings_without_data", 0, id="pings on a quiet stream"),
        pytest.param("grpc.max_connection_age_ms", 30 * 60_000, id="a connection's age"),
        # Without it, streams of a connection that is too old were open 25 s later.
        pytest.param("grpc.max_connection_age_grace_ms", 60_000, id="what is left to its calls"),
        pytest.param("grpc.max_receive_message_length", 4 * MIB, id="a delta reconnect"),
        pytest.param("grpc.server.max_pending_requests", 50_000, id="a storm"),
        pytest.param("grpc.server.max_pending_requests_hard_limit", 50_000, id="a hard storm"),
        pytest.param("grpc.compression_enabled_algorithms_bitset", 1, id="nothing compressed"),
        pytest.param("grpc.per_message_decompression", 0, id="nothing decompressed"),
        pytest.param("grpc.http2.bdp_probe", 0, id="windows that do not grow by themselves"),
        pytest.param("grpc.http2.lookahead_bytes", 65_535, id="what nobody reads yet"),
        pytest.param("grpc.max_allowed_incoming_connections", 10_000, id="connections"),
        pytest.param("grpc.server_handshake_timeout_ms", 20_000, id="silent connections"),
        pytest.param("grpc.max_metadata_size", 16 * 1024, id="header fields"),
        pytest.param("grpc.absolute_max_metadata_size", 16 * 1024, id="header fields, at most"),
        pytest.param("grpc.max_connection_idle_ms", 600_000, id="connections without a call"),
        pytest.param("grpc.so_reuseport", 0, id="one server on a port"),
    ],
)
def test_an_option_has_its_value(option: str, value: int) -> None:
    assert dict(_options(Limits()))[option] == value


def test_a_connection_has_room_for_a_stream_for_each_target() -> None:
    assert dict(_options(Limits()))["grpc.max_concurrent_streams"] >= 1_000


def test_each_option_is_given_once() -> None:
    names = [name for name, _ in _options(Limits())]
    assert len(names) == len(set(names))
