"""The flags of the command line and their environment variables: texts in, values out."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from vmsvc_grpc.config import AUTHS, ConfigError
from vmsvc_grpc.logs.formats import FORMATS
from vmsvc_grpc.readers import (
    address,
    addresses,
    annotation_patterns,
    boolean,
    count,
    decimal,
    domain,
    ip_families,
    label_patterns,
    log_level,
    names_of,
    namespace,
    namespaces,
    object_name,
    on_off,
    one_of,
    path,
    seconds,
    trust_domain,
)
from vmsvc_grpc.reconciler.election import LEASE_DURATION_MAX_S, LEASE_DURATION_MIN_S
from vmsvc_grpc.server.limits import Limits


class Flag(NamedTuple):
    """One setting of the command line."""

    name: str
    convert: Callable[[str], Any]
    help: str
    default: str | None = None
    metavar: str = ""
    repeated: bool = False
    """Whether it may be given several times; a list of values then, commas in the variable."""

    @property
    def dest(self) -> str:
        """The name of its setting."""
        return self.name.removeprefix("--").replace("-", "_")

    @property
    def variable(self) -> str:
        """The name of its environment variable.

        The client's variables begin with `VMSVC_`: one name must not mean two things.
        """
        return f"VMSVC_GRPC_{self.dest.upper()}"


class FlagGroup(NamedTuple):
    """Flags that a help shows together, under a title."""

    title: str
    flags: Sequence[Flag]


_LIMITS = {
    "streams_max": "open streams, at most",
    "streams_per_client_max": "open streams of one client, at most: by who calls, else by address",
    "calls_per_second_max": "calls a second that one client may begin where it is asked who it is",
    "calls_burst_max": "calls that it may begin at once, at most",
    "services_per_stream_max": "services that one watch may name, at most",
    "names_per_client_max": "names that the streams of one client follow, at most",
    "name_bytes_per_client_max": "bytes of those names, at most",
    "names_max": "names that all streams follow, at most",
    "name_bytes_max": "bytes of those names, at most",
    "client_lines_per_minute_max": "log lines about one client address, a minute, at most",
    "xds_resources_max": "names of one type that an xDS stream may ask for; more name nothing",
    "message_bytes_max": "bytes of one request, at most",
    "one_name_bytes_max": "bytes of one request to a method that names one thing, at most",
    "request_fields_max": "fields of one request, those of the messages in it too, at most",
    "taking_in_bytes_max": "bytes of large requests of all clients while they are read, at most",
    "connection_window_bytes": "bytes that a connection may send before one is read (http2 only)",
    "window_bytes_max": "bytes by which these windows may grow beyond 64 KiB, in all (http2 only)",
    "upload_bytes_max": "bytes of unfinished requests of all clients; more wait (http2 only)",
    "request_s": "seconds that a client may take to send the request of a call",
    "response_bytes_max": "bytes of one xDS response, at most, where it can be split",
    "page_bytes_max": "bytes of one page of a list or an explanation, at most, roughly",
    "status_bytes_max": "bytes of one answer about the status of xDS clients, at most",
    "xds_stream_age_s": "seconds after which an xDS stream ends, so that clients spread anew",
    "xds_write_s": "seconds after which an xDS client that reads nothing is disconnected",
    "pending_calls_max": "calls that wait to be accepted, at most",
    "connections_max": "gRPC connections at once, at most; fewer if open files do not allow it",
    "connections_per_client_max": "gRPC connections of one client address, at most (http2 only)",
    "handshake_s": "seconds that the client of a connection has to begin as HTTP/2 does",
    "connection_idle_s": "seconds without a call after which a connection is closed",
    "connection_write_s": "seconds after which a socket that takes nothing is closed (http2 only)",
    "unread_bytes_max": "bytes that wait for clients that do not read, at most (http2 only)",
    "header_list_bytes_max": "bytes of a call's header fields, at most",
    "continuations_max": "frames that continue the header fields of a call, at most (http2 only)",
    "resets_max": "calls that a connection may reset in 30 s (http2 only)",
    "settings_max": "SETTINGS frames that a connection may send in 30 s (http2 only)",
    "empty_frames_max": "frames without content that it may send in 30 s (http2 only)",
    "files_reserved": "open files that gRPC leaves to probes, manifests and the API server",
    "http_connections_max": "connections of the HTTP port at once; one more ends the oldest",
    "http_request_s": "seconds that a connection of the HTTP port has for request and answer",
    "page_streams_max": "pages of --page-listen that are open in browsers at once, at most",
    "calls_per_connection_max": "calls on one connection, at most; more wait in the client",
    "keepalive_s": "seconds without traffic after which a client is pinged",
    "keepalive_timeout_s": "seconds after which a client that does not answer a ping is dropped",
    "client_ping_interval_min_s": "seconds between pings of a client, at least",
    "connection_age_s": "seconds after which a connection ends, so that clients spread anew",
    "connection_age_grace_s": "seconds in which its calls may then end by themselves",
    "retry_delay_s": "seconds after which clients should retry while the cache is not filled",
    "stop_grace_s": "seconds for the last answers to reach clients when the server stops",
}


def _limit_flags() -> list[Flag]:
    return [
        Flag(
            f"--{name.replace('_', '-')}",
            count() if isinstance(default, int) else seconds(0.001),
            _LIMITS[name],
            f"{default:g}" if isinstance(default, float) else str(default),
            "SECONDS" if name.endswith("_s") else "N",
        )
        for name, default in asdict(Limits()).items()
    ]


_ADDRESSES = [
    Flag(
        "--ip-families",
        ip_families,
        "address families of the cluster's Services, the default one first",
        "IPv4",
        "FAMILY[,FAMILY]",
    ),
    Flag(
        "--allow-loopback",
        boolean,
        "take 127.0.0.0/8 and ::1 for addresses of VMs, for trials on one machine",
    ),
]

_HELD = [
    Flag(
        "--load-balancer-provider",
        str,
        "mark Services for this load balancer: nsx-t-lb",
        "",
        "NAME",
    ),
    Flag(
        "--deny-labels",
        label_patterns,
        "labels of a VirtualMachineService that are not copied to its Service, by a pattern of "
        "their keys, such as example.com/*; may be repeated",
        None,
        "PATTERN",
        repeated=True,
    ),
    Flag(
        "--deny-annotations",
        annotation_patterns,
        "annotations that are not copied, in the same way",
        None,
        "PATTERN",
        repeated=True,
    ),
]


def _namespace(text: str) -> Flag:
    return Flag("--namespace", namespaces, text, None, "NAMESPACE", repeated=True)


def _manifest_bytes_max(text: str) -> Flag:
    return Flag("--manifest-bytes-max", count(), text, "16777216", "N")


RENDER = [
    *_ADDRESSES,
    *_HELD,
    _namespace("the namespace of objects that name none (default: default)"),
    _manifest_bytes_max("bytes of a file, or of standard input, at most; a larger one is refused"),
]

_CONNECTION = [
    Flag(
        "--kubeconfig",
        str,
        "kubeconfig of the API server to use; else the pod's, else the default one",
        None,
        "FILE",
    ),
    Flag(
        "--context", str, "context of the kubeconfig to use, if not its current one", None, "NAME"
    ),
]

_THESE_ONLY = "read only this namespace, and need rights there only; may be repeated"

LEASE = [
    Flag(
        "--lease-namespace",
        namespace,
        "namespace of the Lease (default: the pod's). Outside a cluster --reconcile=on needs it: "
        "name the one in which the replicas in the cluster run",
        None,
        "NAMESPACE",
    ),
    Flag(
        "--lease-name",
        object_name,
        "name of the Lease; replicas that share it write one at a time (default: vmsvc-grpc, and "
        "the names of --namespace if there are any: vmsvc-grpc.data.shop)",
        None,
        "NAME",
    ),
]

RELEASE = [
    *_CONNECTION,
    _namespace(_THESE_ONLY),
    Flag(
        "--lease-name",
        object_name,
        "name of the replicas' Lease, or its beginning, before the names of namespaces",
        "vmsvc-grpc",
        "NAME",
    ),
    Flag(
        "--lease-namespace",
        namespace,
        "namespace of the Lease; without it, all namespaces are searched",
        None,
        "NAMESPACE",
    ),
    Flag("--dry-run", boolean, "show what would be done, and do nothing"),
    Flag("--yes", boolean, "do not ask"),
]

_TO_SERVE = [
    Flag(
        "--manifests",
        path,
        "directory of YAML and JSON manifests to serve instead of an API server; followed live",
        None,
        "DIR",
    ),
    *_CONNECTION,
    _namespace(f"{_THESE_ONLY}. With --manifests: the namespace of objects that name none"),
    *_ADDRESSES,
]

_TO_HOLD = [
    Flag(
        "--output",
        path,
        "directory in which to hold the Service and Endpoints of each VirtualMachineService",
        None,
        "DIR",
    ),
    Flag(
        "--reconcile",
        on_off,
        "on: hold objects on the API server while this replica holds the Lease; off: only serve "
        "(default: on in a pod, off with a kubeconfig)",
        None,
        "on|off",
    ),
    Flag(
        "--endpoint-slices",
        one_of("mirror", "direct"),
        "mirror: leave EndpointSlices to Kubernetes; direct: write them, with zones and without "
        "its limit of 1,000 addresses",
        "mirror",
        "mirror|direct",
    ),
    *_HELD,
    *LEASE,
    Flag(
        "--lease-duration-s",
        seconds(LEASE_DURATION_MIN_S, LEASE_DURATION_MAX_S),
        "seconds after which another replica takes over from one that has vanished",
        "15",
        "SECONDS",
    ),
    Flag(
        "--writes-per-s",
        decimal("number", 0.1, 1_000_000),
        "writes of objects a second, at most",
        "200",
        "N",
    ),
    Flag(
        "--workers",
        count(most=1000),
        "services whose objects are written side by side; of 2 or more, half at most are ones "
        "that failed before",
        "4",
        "N",
    ),
]

LOG = [
    Flag(
        "--log-format",
        one_of(*FORMATS),
        "how the log, which goes to standard error, looks: text, or a JSON object a line (default: "
        "json in a pod, else text)",
        None,
        "|".join(FORMATS),
    ),
    Flag(
        "--log-level",
        log_level,
        "the least severe lines to log: debug (each publication and each write too), info, "
        "warning, error",
        "info",
        "LEVEL",
    ),
]

_PROCESS = [
    Flag(
        "--listen",
        addresses,
        "where gRPC listens; may be repeated. With --tls-cert it uses TLS where other machines can "
        "reach it, and on loopback as tls://HOST:PORT",
        "127.0.0.1:50051",
        "HOST:PORT",
        repeated=True,
    ),
    Flag(
        "--http-listen",
        address,
        "where /livez, /readyz and /metrics listen; with TLS where --listen would have it",
        "127.0.0.1:8080",
        "HOST:PORT",
    ),
    Flag(
        "--service-metrics",
        one_of("off", "namespaces", "all"),
        "which endpoints /metrics counts: none; those of each namespace; or those of each service, "
        "too, which makes two lines for it",
        "namespaces",
        "off|namespaces|all",
    ),
    Flag(
        "--page-listen",
        address,
        "where a page for a browser listens: services, endpoints and why, live and read only. On "
        "loopback only; in a pod, reach it by kubectl port-forward (default: nowhere)",
        None,
        "HOST:PORT",
    ),
    Flag(
        "--tls-cert",
        path,
        "certificate of --listen and the chain after it, in PEM; followed, as are --tls-key and "
        "--client-ca",
        None,
        "FILE",
    ),
    Flag("--tls-key", path, "its key, in PEM, not encrypted", None, "FILE"),
    Flag(
        "--client-ca",
        path,
        "CAs of clients, in PEM: a client may show a certificate of one of them",
        None,
        "FILE",
    ),
    Flag(
        "--transport",
        one_of("http2", "grpcio"),
        "what carries the calls: libnghttp2; or gRPC's own library for Python, which takes more "
        "CPU and memory, and does not bound the bytes of unfinished requests in all",
        "http2",
        "http2|grpcio",
    ),
    *LOG,
    Flag(
        "--drain-s",
        seconds(0),
        "seconds over which streams are ended at SIGTERM",
        "10",
        "SECONDS",
    ),
]

_ACCESS = [
    Flag(
        "--auth",
        one_of(*AUTHS),
        "who may ask, where it is not loopback without TLS. kubernetes: whoever has a bearer token "
        "or client certificate, and a right there: endpoints that somebody may read on the API "
        "server may be asked for here. certificates: whoever has a client certificate, and a rule "
        "in --auth-policy. none: everybody, which other machines need --insecure for",
        "none",
        "|".join(AUTHS),
    ),
    Flag(
        "--token-audience",
        names_of("audience"),
        "whom bearer tokens must be for; may be repeated (default: vmsvc-grpc)",
        None,
        "AUDIENCE",
        repeated=True,
    ),
    Flag(
        "--auth-stale-s",
        seconds(0, 3600),
        "seconds for which callers who are known are served while the API server does not answer "
        "(default: 600)",
        None,
        "SECONDS",
    ),
    Flag(
        "--auth-policy",
        path,
        "YAML file of rules for --auth=certificates: who may get, list and watch what in which "
        "namespaces; followed live",
        None,
        "FILE",
    ),
    Flag(
        "--client-ca-of-cluster",
        boolean,
        "the --client-ca is the cluster's own: names and groups that begin with system: are "
        "Kubernetes' own",
    ),
    Flag(
        "--spiffe-trust-domain",
        trust_domain,
        "the --client-ca certifies ServiceAccounts of this domain: a certificate with the URI "
        "spiffe://DOMAIN/ns/NAMESPACE/sa/NAME is one's",
        None,
        "DOMAIN",
    ),
    Flag(
        "--insecure",
        boolean,
        "allow --listen and --http-listen on an address that other machines can reach without TLS, "
        "or without --auth",
    ),
]

_XDS = [
    Flag(
        "--xds-scope",
        one_of("all", "namespace"),
        "what an xDS client may see: all services; or, with namespace, those of the namespace that "
        "its node's metadata names",
        "all",
        "all|namespace",
    ),
    Flag(
        "--cluster-domain",
        domain,
        "the cluster's DNS domain, at the end of xDS names such as web.shop.svc.cluster.local",
        "cluster.local",
        "DOMAIN",
    ),
]

_READING = [
    Flag(
        "--settle-s",
        seconds(0),
        "seconds that a file written in place must stay unchanged before it is read, once its "
        "writer has closed it (10 s if it does not)",
        "0.2",
        "SECONDS",
    ),
    _manifest_bytes_max(
        "bytes of a manifest, at most; a larger one is reported, and what it held stays"
    ),
    Flag(
        "--rescan-s",
        seconds(0.1),
        "seconds between looks at all manifests, for file systems that give no notice of changes",
        "10",
        "SECONDS",
    ),
    Flag(
        "--watch-silence-s",
        seconds(1),
        "seconds of silence after which a watch is opened anew; an API server sends something once "
        "a minute",
        "75",
        "SECONDS",
    ),
]

_BY_SUBJECT = (
    FlagGroup("objects to serve", _TO_SERVE),
    FlagGroup("objects to hold", _TO_HOLD),
    FlagGroup("listening, logging and stopping", _PROCESS),
    FlagGroup("access", _ACCESS),
    FlagGroup("xDS", _XDS),
    FlagGroup("how objects are read", _READING),
    FlagGroup("limits", _limit_flags()),
)

# A first look, and most installations, need no others.
_FIRST = (
    "--manifests",
    "--output",
    "--kubeconfig",
    "--namespace",
    "--reconcile",
    "--listen",
    "--tls-cert",
    "--tls-key",
    "--auth",
    "--log-format",
)


def _grouped() -> Iterator[FlagGroup]:
    """The flags that matter first, in the order of their names above; then the others."""
    known = {flag.name: flag for group in _BY_SUBJECT for flag in group.flags}
    yield FlagGroup("what matters first", [known[name] for name in _FIRST])
    for title, flags in _BY_SUBJECT:
        yield FlagGroup(title, [flag for flag in flags if flag.name not in _FIRST])


SERVE_GROUPS = tuple(_grouped())
"""The flags of `serve`, as its help shows them."""

SERVE = [flag for group in SERVE_GROUPS for flag in group.flags]


def add(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,
    flags: Sequence[Flag],
    *,
    hidden: bool = False,
) -> None:
    """Have a parser, or a group of it, know these flags. They stay texts; unset ones are None.

    `hidden`: its help does not show them.
    """
    for flag in flags:
        default = f" (default: {flag.default})" if flag.default else ""
        text = argparse.SUPPRESS if hidden else f"{flag.help}{default}"
        if flag.repeated:
            parser.add_argument(flag.name, metavar=flag.metavar, action="append", help=text)
        elif flag.convert is boolean:
            parser.add_argument(flag.name, action="store_const", const="true", help=text)
        else:
            parser.add_argument(flag.name, metavar=flag.metavar, help=text)


def misnamed(flags: Sequence[Flag], environment: Mapping[str, str]) -> list[str]:
    """Warnings about variables named without `GRPC_`, as ours once were: they set nothing.

    In the order of the flags. If our own variable is set too, the other one is the client's.
    """
    found = []
    for flag in flags:
        other = flag.variable.replace("VMSVC_GRPC_", "VMSVC_", 1)
        if other in environment and flag.variable not in environment:
            found.append(
                f"{other} is not read here; the variable of {flag.name} is {flag.variable}"
            )
    return found


def settings(
    flags: Sequence[Flag], arguments: argparse.Namespace, environment: Mapping[str, str]
) -> dict[str, Any]:
    """The value of each flag that is set: by argument, environment or default, in this order.

    Raises ConfigError, which names the flag or variable.
    """
    values = {}
    for flag in flags:
        text, origin = getattr(arguments, flag.dest), flag.name
        if isinstance(text, list):
            text = ",".join(text)
        if text is None and (text := environment.get(flag.variable)) is not None:
            origin = flag.variable
        if text is None:
            text = flag.default
        if text is None:
            continue
        try:
            values[flag.dest] = flag.convert(text)
        except ConfigError as error:
            raise ConfigError(f"{origin}: {error}") from None
    return values
