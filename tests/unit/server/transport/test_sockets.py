"""What channelz tells of a transport of ours."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from google.protobuf.message import Message
from grpc_channelz.v1 import channelz_pb2 as pb

from vmsvc_grpc.server.call import Code, RpcError
from vmsvc_grpc.server.transport.sockets import Address, Sockets, Tls, Traffic


@dataclass
class Somebody:
    remote: Address
    local: Address = ("127.0.0.1", 50051)
    traffic: Traffic = field(default_factory=Traffic)
    agreed: Tls | None = None

    def tls(self) -> Tls | None:
        return self.agreed

    def windows(self) -> tuple[int, int]:
        return 65_535, 1_000


def asked(sockets: Sockets, request: Message) -> str:
    return str(sockets.answer("Method", request))


def test_the_server_tells_what_calls_there_were_also_on_connections_that_are_gone() -> None:
    sockets = Sockets()
    sockets.listen(("127.0.0.1", 50051))
    gone = Somebody(("10.0.0.1", 1), traffic=Traffic(streams_started=3, streams_succeeded=2))
    sockets.disconnect(sockets.connect(gone))
    sockets.connect(Somebody(("10.0.0.2", 2), traffic=Traffic(streams_started=1)))
    answer = sockets.answer("GetServers", pb.GetServersRequest())
    assert isinstance(answer, pb.GetServersResponse)
    (server,) = answer.server
    assert (server.data.calls_started, server.data.calls_succeeded) == (4, 2)
    assert [ref.name for ref in server.listen_socket] == ["127.0.0.1:50051"]
    ref = pb.GetServerRequest(server_id=server.ref.server_id)
    assert sockets.answer("GetServer", ref) == pb.GetServerResponse(server=server)
    assert sockets.answer("GetServers", pb.GetServersRequest(start_server_id=2)) == (
        pb.GetServersResponse(end=True)
    )


def test_sockets_come_in_pages_that_begin_where_they_are_told() -> None:
    sockets = Sockets()
    for port in range(250):
        sockets.connect(Somebody(("::1", port)))
    seen: list[str] = []
    request = pb.GetServerSocketsRequest(server_id=1, max_results=100)
    while True:
        page = sockets.answer("GetServerSockets", request)
        assert isinstance(page, pb.GetServerSocketsResponse)
        assert len(page.socket_ref) <= 100
        seen += [ref.name for ref in page.socket_ref]
        if page.end:
            break
        request.start_socket_id = page.socket_ref[-1].socket_id + 1
    assert seen == [f"[::1]:{port}" for port in range(250)]
    few = sockets.answer("GetServerSockets", pb.GetServerSocketsRequest(server_id=1, max_results=2))
    assert isinstance(few, pb.GetServerSocketsResponse)
    assert len(few.socket_ref) == 2


def test_a_socket_tells_who_is_there_and_its_windows() -> None:
    sockets = Sockets()
    id_ = sockets.connect(Somebody(("fe80::1%eth0", 7), traffic=Traffic(messages_sent=5)))
    answer = sockets.answer("GetSocket", pb.GetSocketRequest(socket_id=id_))
    assert isinstance(answer, pb.GetSocketResponse)
    told = answer.socket
    assert told.data.messages_sent == 5
    assert told.data.local_flow_control_window.value == 65_535
    assert told.data.remote_flow_control_window.value == 1_000
    assert len(told.remote.tcpip_address.ip_address) == 16
    assert told.local.tcpip_address.port == 50_051


@pytest.mark.parametrize(
    ("agreed", "standard", "other"),
    [
        (None, "", ""),
        (Tls("TLS_AES_256_GCM_SHA384", b"der"), "TLS_AES_256_GCM_SHA384", ""),
        (Tls("ECDHE-RSA-AES128-GCM-SHA256", b""), "", "ECDHE-RSA-AES128-GCM-SHA256"),
    ],
    ids=["plain", "TLS 1.3 and a certificate", "TLS 1.2 and none"],
)
def test_a_socket_tells_how_it_is_protected(agreed: Tls | None, standard: str, other: str) -> None:
    sockets = Sockets()
    id_ = sockets.connect(Somebody(("10.0.0.1", 1), agreed=agreed))
    answer = sockets.answer("GetSocket", pb.GetSocketRequest(socket_id=id_))
    assert isinstance(answer, pb.GetSocketResponse)
    assert answer.socket.HasField("security") == (agreed is not None)
    tls = answer.socket.security.tls
    assert (tls.standard_name, tls.other_name) == (standard, other)
    assert tls.remote_certificate == (agreed.certificate if agreed else b"")


@pytest.mark.parametrize(
    "request_",
    [
        pb.GetServerRequest(server_id=2),
        pb.GetServerSocketsRequest(server_id=0),
        pb.GetSocketRequest(socket_id=99),
        pb.GetSocketRequest(socket_id=-1),
        pb.GetChannelRequest(channel_id=1),
        pb.GetSubchannelRequest(subchannel_id=1),
    ],
    ids=str,
)
def test_what_there_is_not_is_not_found(request_: Message) -> None:
    with pytest.raises(RpcError) as raised:
        Sockets().answer("Method", request_)
    assert raised.value.code is Code.NOT_FOUND
