"""Channelz' answers about one of our transports: its server, its listeners, its connections."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol

from google.protobuf.message import Message
from grpc_channelz.v1 import channelz_pb2 as pb

from vmsvc_grpc.model.address import at_port
from vmsvc_grpc.server.access.certificate import ClientCertificate, client_certificate
from vmsvc_grpc.server.call import Code, RpcError

Address = tuple[str, int]
"""An IP address and a port."""


def ends_of(transport: asyncio.BaseTransport) -> tuple[Address, Address] | None:
    """Where a connection ends, here and there; None if it was reset before it was accepted."""
    local, remote = (transport.get_extra_info(name) for name in ("sockname", "peername"))
    return (local[:2], remote[:2]) if local and remote else None


def peer_of(address: Address) -> str:
    """A client's address as gRPC writes it."""
    host, port = address
    return f"{'ipv6' if ':' in host else 'ipv4'}:{at_port(host, port)}"


# There is one server, with this number; sockets have higher ones.
_SERVER_ID = 1


@dataclass(slots=True)
class Traffic:
    """The traffic of one connection so far."""

    streams_started: int = 0
    streams_succeeded: int = 0
    streams_failed: int = 0
    messages_sent: int = 0
    messages_received: int = 0
    keepalives_sent: int = 0


class Tls(NamedTuple):
    """What a connection and its client have agreed on.

    `cipher` is the name of the cipher suite, by IANA or else by OpenSSL. `certificate` is the
    client's, in DER; empty if it has shown none.
    """

    cipher: str
    certificate: bytes


def tls_of(transport: asyncio.BaseTransport) -> Tls | None:
    """How a connection is protected; None if it is not."""
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    if tls is None:
        return None
    cipher = tls.cipher()
    return Tls(cipher[0] if cipher else "", tls.getpeercert(binary_form=True) or b"")


def certificate_of(transport: asyncio.BaseTransport) -> ClientCertificate | None:
    """What the client's certificate says; None if there is none that was verified.

    One whose names are not text counts as none.
    """
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    if tls is None:
        return None
    try:
        peer = tls.getpeercert()
        return client_certificate(peer) if peer else None
    except (ValueError, ssl.SSLError):
        return None


class Connected(Protocol):
    """One client's connection."""

    local: Address
    remote: Address
    traffic: Traffic

    def tls(self) -> Tls | None:
        """How it is protected; None if it is not."""

    def windows(self) -> tuple[int, int]:
        """How many bytes it may be sent now, and how many it may send."""


class Sockets:
    """The sockets of one server, by numbers that are never reused."""

    def __init__(self) -> None:
        self._last_id = _SERVER_ID
        self._listening: dict[int, Address] = {}
        self._connected: dict[int, Connected] = {}
        self._past = Traffic()

    def listen(self, address: Address) -> None:
        """Note an address at which the server listens."""
        self._listening[self._next_id()] = address

    def connect(self, connection: Connected) -> int:
        """Note a connection; returns its number, for `disconnect`."""
        id_ = self._next_id()
        self._connected[id_] = connection
        return id_

    def disconnect(self, id_: int) -> None:
        """Forget a connection; its traffic still counts for the server."""
        traffic = self._connected.pop(id_).traffic
        self._past.streams_started += traffic.streams_started
        self._past.streams_succeeded += traffic.streams_succeeded
        self._past.streams_failed += traffic.streams_failed

    def answer(self, method: str, request: Message) -> Message:
        """The answer of channelz' `method`. Raises RpcError (NOT_FOUND)."""
        match request:
            case pb.GetTopChannelsRequest():
                return pb.GetTopChannelsResponse(end=True)
            case pb.GetServersRequest():
                servers = [self._server()] if request.start_server_id <= _SERVER_ID else []
                return pb.GetServersResponse(server=servers, end=True)
            case pb.GetServerRequest(server_id=id_) if id_ == _SERVER_ID:
                return pb.GetServerResponse(server=self._server())
            case pb.GetServerSocketsRequest(server_id=id_) if id_ == _SERVER_ID:
                return self._page(request)
            case pb.GetSocketRequest(socket_id=id_) if id_ in self._connected:
                return pb.GetSocketResponse(socket=_socket(id_, self._connected[id_]))
            case pb.GetSocketRequest(socket_id=id_) if id_ in self._listening:
                ref, local = _ref(id_, self._listening[id_]), _address(self._listening[id_])
                return pb.GetSocketResponse(socket=pb.Socket(ref=ref, local=local))
        raise RpcError(Code.NOT_FOUND, f"{method}: there is nothing with that id here")

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _server(self) -> pb.Server:
        traffic = [self._past, *(connection.traffic for connection in self._connected.values())]
        data = pb.ServerData(
            calls_started=sum(each.streams_started for each in traffic),
            calls_succeeded=sum(each.streams_succeeded for each in traffic),
            calls_failed=sum(each.streams_failed for each in traffic),
        )
        listening = [_ref(id_, address) for id_, address in self._listening.items()]
        return pb.Server(ref=pb.ServerRef(server_id=_SERVER_ID), data=data, listen_socket=listening)

    def _page(self, request: pb.GetServerSocketsRequest) -> pb.GetServerSocketsResponse:
        most = request.max_results
        ids = (id_ for id_ in self._connected if id_ >= request.start_socket_id)
        page = list(islice(ids, most + 1))
        refs = [_ref(id_, self._connected[id_].remote) for id_ in page[:most]]
        return pb.GetServerSocketsResponse(socket_ref=refs, end=len(page) <= most)


def _socket(id_: int, connection: Connected) -> pb.Socket:
    traffic = connection.traffic
    to_client, from_client = connection.windows()
    data = pb.SocketData(
        streams_started=traffic.streams_started,
        streams_succeeded=traffic.streams_succeeded,
        streams_failed=traffic.streams_failed,
        messages_sent=traffic.messages_sent,
        messages_received=traffic.messages_received,
        keep_alives_sent=traffic.keepalives_sent,
    )
    data.local_flow_control_window.value = to_client
    data.remote_flow_control_window.value = from_client
    return pb.Socket(
        ref=_ref(id_, connection.remote),
        data=data,
        local=_address(connection.local),
        remote=_address(connection.remote),
        security=_security(connection.tls()),
    )


def _security(tls: Tls | None) -> pb.Security | None:
    if tls is None:
        return None
    security = pb.Security.Tls(remote_certificate=tls.certificate)
    # Those of TLS 1.3 have the same name everywhere; OpenSSL has names of its own for the others.
    if tls.cipher.startswith("TLS_"):
        security.standard_name = tls.cipher
    else:
        security.other_name = tls.cipher
    return pb.Security(tls=security)


def _ref(id_: int, address: Address) -> pb.SocketRef:
    return pb.SocketRef(socket_id=id_, name=at_port(*address))


def _address(address: Address) -> pb.Address:
    host, port = address
    packed = ipaddress.ip_address(host.partition("%")[0]).packed
    tcpip = pb.Address.TcpIpAddress(ip_address=packed, port=port)
    return pb.Address(tcpip_address=tcpip)
