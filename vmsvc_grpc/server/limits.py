"""The server's bounds: each a setting with its unit, and why it is what it is."""

from __future__ import annotations

import math
import resource
from dataclasses import dataclass, replace

CLIENT_PART = 4
"""One client may have this part of a bound in bytes that is for all clients: a quarter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one server. An error at a limit names the field.

    A client is known by its address; with IPv6, by the /64 that it is in, of which a host may
    take any address.
    """

    streams_max: int = 20_000
    """Streams open at once, of all clients. At about 6 KB each: 120 MB; on grpcio, 600 MB. Of
    callers of a guarded listener of whom it is being found out who they are, there may be as many
    besides; and a tenth as many of health watches of callers who do not say who they are."""

    streams_per_client_max: int = 2_000
    """Streams open at once of one client: of one who calls or, where nobody is asked who, of one
    address. So it is with all bounds of a client but those on connections. Strangers to a guarded
    listener have as many for each address, and a tenth as many health watches, apart from those;
    they take none from callers who are known there. One stream can watch many services."""

    calls_per_second_max: int = 1_000
    """Calls a second that one caller of a guarded listener may begin in the long run; those that
    say nothing true of who calls count for their address. Questions for health of callers who do
    not say who they are have a tenth of it, apart. A look-up costs some 50 us of CPU."""

    calls_burst_max: int = 10_000
    """Calls that it may begin at once, if it made few before: five times its streams, which all
    come back at once after a restart."""

    services_per_stream_max: int = 20_000
    """Services, and namespaces, that one watch may name. For services that it follows without
    naming them a stream holds no entry, so they need no bound."""

    names_per_client_max: int = 200_000
    """Names that all streams of one address follow: 20 Envoys that ask for the endpoints of
    10,000 services each. A name without a service that no other stream follows takes 1.4 to 3 KB:
    600 MB at most. A stream that follows a namespace or everything follows no names; but what its
    client refuses of it is kept name by name, and counts here."""

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
    """Names of one type that a stream of xDS asks for: one for each port of 10,000 services with
    four ports each, and some to spare. A further name is treated as one that does not exist."""

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
    """Bytes of large requests that are kept while they are taken in, for all clients; for one, a
    quarter: 180 Envoys with the endpoints of 10,000 services that connect at once."""

    connection_window_bytes: int = 4 * 1024 * 1024
    """Bytes of requests that a connection may send before any is taken in, on all its calls; on
    one call, a quarter. Further bytes wait in the client. A connection begins with 64 KiB, as
    HTTP/2 has it, and its window grows while its client uses it up. An Envoy that speaks delta xDS
    repeats its node, of 60 KB, with each ACK: 200 ACKs a second, from 40 ms away, are 480 KB, and
    windows are opened half at a time."""

    window_bytes_max: int = 128 * 1024 * 1024
    """Bytes by which the windows of all connections may have grown; those of one client, by a
    quarter: 8 such Envoys of one address, 32 in all. Further windows stay as HTTP/2 begins them,
    and their clients are slower."""

    upload_bytes_max: int = 64 * 1024 * 1024
    """Bytes kept of unfinished requests that do not fit that, for all clients; for one, a quarter.
    Further bytes wait in the client, too."""

    request_s: float = 30.0
    """How long a client may take to send the only request of a call, or (http2 only) the rest of
    a request that has begun to arrive."""

    response_bytes_max: int = 1024 * 1024
    """The largest response of xDS that can be split. Clients take no more than 4 MiB, and
    a larger one makes them connect again for ever. Smaller yet, as making one holds up all
    other streams, and each client that does not read has one waiting for it."""

    page_bytes_max: int = 256 * 1024
    """The largest page of a list of services, or of an explanation's VMs. Making one holds up
    all streams: this much takes some 10 ms."""

    status_bytes_max: int = 1024 * 1024
    """The largest status of xDS clients; to see more, ask for some clients at a time. Making one
    holds up all streams: this much takes some 30 ms."""

    pending_calls_max: int = 50_000
    """Calls that wait to be accepted. gRPC's own bound (1,000) cancels the calls of
    5,000 clients that reconnect at once."""

    connections_max: int = 10_000
    """gRPC connections open at once, of all clients: 170 MB while they are idle. Fewer if the
    process may not open that many files."""

    connections_per_client_max: int = 2_500
    """gRPC connections open at once from one address: a quarter of all, and more than it may have
    streams. So a client with one connection a stream meets the bound on streams, with its words."""

    handshake_s: float = 20.0
    """A connection is closed if its client has not sent HTTP/2's preface and SETTINGS within this
    time, or takes longer for its part of the TLS handshake. What it has sent may wait for us as
    long as it must."""

    connection_idle_s: float = 600.0
    """A connection without a call for this long is closed; its client makes another when it
    calls again."""

    connection_write_s: float = 60.0
    """A connection whose socket takes nothing for this long, while there is something to
    write, is closed; as long as `xds_write_s`."""

    unread_bytes_max: int = 256 * 1024 * 1024
    """Bytes that wait for clients that do not read them, in all; for one address a quarter, for
    one connection 8 MiB. At that bound a connection's streams send no more, and after
    `connection_write_s` the connection that has taken nothing for longest is closed. A client for
    which nothing waits is sent one message all the same."""

    header_list_bytes_max: int = 16 * 1024
    """Bytes of a call's header fields, with 32 more for each. gRPC's own bound. A call with more
    is refused; a connection that sends four times as many is closed."""

    continuations_max: int = 8
    """CONTINUATION frames of a call's header fields."""

    resets_max: int = 2_000
    """Calls that a connection may reset in 30 s: a client's streams, all at once."""

    settings_max: int = 300
    """SETTINGS frames that a connection may send in 30 s; gRPC's clients send some when they
    find that their windows are too small."""

    empty_frames_max: int = 10_000
    """Frames without effect that a connection may send in 30 s: empty ones, all padding, of
    unknown types, or windows opened again and again. Each message that it is sent allows a few
    more."""

    files_reserved: int = 512
    """Open files that gRPC's connections leave to probes, manifests and the API server; at
    most half of those that the process may open."""

    http_connections_max: int = 64
    """Connections of the HTTP port at once. One more ends the oldest, as probes are answered
    within milliseconds."""

    http_request_s: float = 10.0
    """How long a connection of the HTTP port may take for its one request and answer."""

    page_streams_max: int = 32
    """Pages that are open in browsers at once. Together they take one slice of some ms a turn of
    the event loop."""

    calls_per_connection_max: int = 4_000
    """HTTP/2 streams of one connection; further calls wait in the client. More than
    `streams_per_client_max`, so that a client at that bound gets an error instead of waiting."""

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
    """An xDS stream is ended if its client reads nothing for this long while there is something
    to send."""

    retry_delay_s: float = 1.0
    """When to try again while the cache is not filled yet (RetryInfo)."""

    stop_grace_s: float = 1.0
    """How long the last statuses may take to reach clients when the server stops."""


FILES_MIN = 32
"""What the event loops, two listeners and the reading of a source take, and some for clients."""


def within_files(limits: Limits, files_max: int) -> Limits:
    """The limits, with connections bounded so that open files are left for other uses.

    One client's part of them stays the same. `files_max` may be `resource.RLIM_INFINITY`.
    """
    if files_max == resource.RLIM_INFINITY:
        return limits
    reserved = min(limits.files_reserved, files_max // 2)
    connections = min(limits.connections_max, files_max - reserved)
    part = math.ceil(limits.connections_per_client_max * connections / limits.connections_max)
    return replace(limits, connections_max=connections, connections_per_client_max=part)
