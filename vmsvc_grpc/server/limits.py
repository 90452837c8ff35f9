"""The server's bounds: each a setting with its unit, and why it is what it is."""

from __future__ import annotations

from dataclasses import dataclass

CLIENT_PART = 4
"""Where a bound in bytes is for all clients, one of them may hold this part of it: a quarter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one server takes on. An error at a limit names its field here.

    A client is known by its address; one of IPv6 by the /64 that it is in, of which a host may
    take any address.
    """

    streams_max: int = 20_000
    """Streams open at once, of all clients. At about 30 KB each: 600 MB."""

    streams_per_client_max: int = 2_000
    """Streams open at once from one address. One stream can watch many services."""

    services_per_stream_max: int = 20_000
    """Services that one watch names, and namespaces. Of what it follows without naming it, a
    stream holds no entry, so that needs no bound."""

    names_per_client_max: int = 200_000
    """Names that all streams of one address follow: 20 Envoys that ask for the endpoints of
    10,000 services each. One that nothing has, and that no other stream follows, takes 1.4 to
    3 KB: 600 MB at most. Those who follow a namespace or everything name nothing."""

    name_bytes_per_client_max: int = 16 * 1024 * 1024
    """Bytes of those names, as they are kept: 80 for each, where usual ones have 30 to 60."""

    names_max: int = 1_500_000
    """Names that all streams follow: 150 such Envoys. Names that many follow share most of
    what they take."""

    name_bytes_max: int = 128 * 1024 * 1024
    """Bytes of those names."""

    client_lines_per_minute_max: int = 10
    """Lines about one client that are logged in a minute; the others are counted."""

    xds_resources_max: int = 50_000
    """Names of one type that a stream of xDS asks for: one for each port of 10,000 services, with
    four ports each, and some. One more is as the name of nothing."""

    message_bytes_max: int = 4 * 1024 * 1024
    """The largest request. A client of xDS deltas that comes back lists every resource of a type
    that it holds, in 17 bytes and its name, and its name once more if it asked for it: 80,000
    clusters of a wildcard with names of 30 characters, or `xds_resources_max` such names."""

    one_name_bytes_max: int = 64 * 1024
    """The largest request of a method that names one thing; most are below 100 bytes."""

    request_fields_max: int = 250_000
    """Fields of a request, those of the messages in it too: reading so many takes some 20 ms, and
    25 MB at most. A client of xDS that resumes has four for each resource that it holds, of some
    17 bytes each: as many as fit in `message_bytes_max`."""

    taking_in_bytes_max: int = 256 * 1024 * 1024
    """What is kept of large requests while they are taken in, of all clients; of one, a quarter:
    180 Envoys with the endpoints of 10,000 services that connect at once."""

    connection_window_bytes: int = 2 * 1024 * 1024
    """What a connection may send of requests before any is taken in, of all its calls; one of
    them may send a quarter. More waits in the client. An Envoy that speaks deltas repeats its node,
    of 60 KB, with each ACK: 200 a second, from 40 ms afar, are 480 KB."""

    upload_bytes_max: int = 64 * 1024 * 1024
    """What is taken in of requests that do not fit that, of all clients; of one, a quarter.
    More waits in the client, too."""

    request_s: float = 30.0
    """How long a client may take to send a request: the one of a call that has one, or one that
    has begun to come."""

    response_bytes_max: int = 1024 * 1024
    """The largest response of xDS that can be split. Clients take no more than 4 MiB, and
    a larger one makes them connect again for ever. Smaller yet, as making one holds up all
    other streams, and each client that does not read has one waiting for it."""

    page_bytes_max: int = 256 * 1024
    """The largest page of a list of services, or of an explanation's VMs. Making one holds up
    all streams: this much takes some 10 ms."""

    status_bytes_max: int = 1024 * 1024
    """The largest status of xDS clients; who wants more asks for some clients at a time. Making
    one holds up all streams: this much takes some 30 ms."""

    pending_calls_max: int = 50_000
    """Calls that wait to be accepted. gRPC's own bound (1,000) cancels the calls of
    5,000 clients that reconnect at once."""

    connections_max: int = 10_000
    """gRPC connections open at once, of all clients: 300 MB where they do nothing. Less where
    the process may not open that many files."""

    connections_per_client_max: int = 2_500
    """gRPC connections open at once from one address: a quarter of all, and more than it may
    have streams, so that one with a connection a stream is told of that bound in words."""

    handshake_s: float = 20.0
    """A connection whose client has not said its part of the beginning of HTTP/2, preface and
    SETTINGS, after this long is closed."""

    connection_idle_s: float = 600.0
    """A connection without a call for this long is closed; its client makes another when it
    calls again."""

    connection_write_s: float = 60.0
    """A connection whose socket takes nothing for this long, while there is something to
    write, is closed; as long as `xds_write_s`."""

    unread_bytes_max: int = 256 * 1024 * 1024
    """What waits for clients that do not take it in, of all; of one address a quarter, of one
    connection 8 MiB. There its streams say no more, and after `connection_write_s` it is closed."""

    header_list_bytes_max: int = 16 * 1024
    """Bytes of a call's header fields, with 32 more for each. gRPC's own bound. A call with more
    is refused; of a connection that sends four times as many, no more is read."""

    continuations_max: int = 8
    """Frames that the header fields of a call may be continued in."""

    resets_max: int = 2_000
    """Calls that a connection may reset in 30 s: a client's streams, all at once."""

    settings_max: int = 300
    """SETTINGS frames that a connection may send in 30 s; gRPC's clients send some when they
    find that their windows are too small."""

    empty_frames_max: int = 10_000
    """Frames that nothing follows from that a connection may send in 30 s: empty or all padding,
    of unknown kinds, or windows opened again and again. For each message that it is told, some
    more."""

    files_reserved: int = 512
    """Open files that gRPC's connections leave to probes, manifests and the API server; at
    most half of those that the process may open."""

    http_connections_max: int = 64
    """Connections of the HTTP port at once. One more ends the oldest, as probes are answered
    within milliseconds."""

    http_request_s: float = 10.0
    """How long a connection of the HTTP port may take for its one request and answer."""

    calls_per_connection_max: int = 4_000
    """HTTP/2 streams of one connection; more wait in the client. Above
    `streams_per_client_max`, so that a client there is told so instead of waiting."""

    keepalive_s: float = 60.0
    """After this long without traffic the server pings a client."""

    keepalive_timeout_s: float = 10.0
    """A client that does not answer a ping for this long is gone."""

    client_ping_interval_min_s: float = 5.0
    """Clients that ping more often are disconnected. Half of Go's smallest interval, which
    meshes set, as pings do not arrive as regularly as they are sent. gRPC's own bound (300 s)
    equals many clients' interval, and so disconnects those too."""

    connection_age_s: float = 1_800.0
    """A connection is closed at this age, so that clients spread over new replicas."""

    connection_age_grace_s: float = 60.0
    """How long the calls of a connection that is closed for its age may go on."""

    xds_stream_age_s: float = 1_500.0
    """A stream of xDS is ended at this age or up to a fifth before, so that not all come
    back at once; and before nine tenths of `connection_age_s`, which ends it less gently."""

    xds_write_s: float = 60.0
    """A client of xDS that takes in nothing for this long, while there is something to
    send, is ended."""

    retry_delay_s: float = 1.0
    """When to try again while the cache is not filled yet (RetryInfo)."""

    stop_grace_s: float = 1.0
    """How long the last statuses may take to reach clients when the server stops."""
