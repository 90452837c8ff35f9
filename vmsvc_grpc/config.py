"""Settings, checked once. Nothing but `__main__` makes them from arguments and environment."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from vmsvc_grpc.kube.credentials import Credentials, InCluster
from vmsvc_grpc.model.address import at_port
from vmsvc_grpc.model.from_wire import DEFAULT_NAMESPACE
from vmsvc_grpc.model.problem import escaped, quoted
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.reconciler.copying import Copying
from vmsvc_grpc.reconciler.election import LEASE_BASE_NAME
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.tls.files import TlsFiles

LOAD_BALANCER_PROVIDERS = ("nsx-t-lb",)
AUTHS = ("kubernetes", "certificates", "none")
TOKEN_AUDIENCE = ("vmsvc-grpc",)
AUTH_STALE_S = 600.0
LOG_LEVELS = ("debug", "info", "warning", "error")


class ConfigError(Exception):
    """A setting is wrong; the message names it and says what to do.

    It is one line, cut and escaped, as it may quote a variable that somebody else has set.
    """

    def __init__(self, message: str) -> None:
        """The message is made safe to print."""
        super().__init__(escaped(message))


class ListenAddress(NamedTuple):
    """Where to listen. `host` is an IP address or `localhost`; port 0 is any free one.

    `tls`: TLS is used there although only this machine can reach it.
    """

    host: str
    port: int
    tls: bool = False

    def __str__(self) -> str:
        return at_port(self.host, self.port)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        return ipaddress.ip_address(self.host).is_loopback


_GRPC = (ListenAddress("127.0.0.1", 50051),)
_HTTP = ListenAddress("127.0.0.1", 8080)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of `serve`. Raises ConfigError if they do not fit together."""

    manifests: Path | None = None
    output: Path | None = None
    credentials: Credentials | None = None
    cluster_only: tuple[str, ...] = ()
    """Settings that were given, but mean nothing without an API server."""
    namespaces: tuple[str, ...] = ()
    """The namespaces to read on an API server, each by itself; none: all at once."""
    manifests_namespace: str = DEFAULT_NAMESPACE
    """The namespace of manifests that name none."""
    reconcile: bool = False
    endpoint_slices: str = "mirror"
    lease_namespace: str | None = None
    """None: the pod's."""
    lease_name: str | None = None
    """None: a name that follows from the namespaces."""
    lease_duration_s: float = 15.0
    watch_silence_s: float = 75.0
    listen: tuple[ListenAddress, ...] = _GRPC
    """Where gRPC listens: at least one, none twice."""
    http_listen: ListenAddress = _HTTP
    page_listen: ListenAddress | None = None
    """Where the page for browsers listens; None: nowhere."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    auth: str = "none"
    token_audience: tuple[str, ...] | None = None
    """Whom bearer tokens must be for, one of these; None: TOKEN_AUDIENCE."""
    auth_stale_s: float | None = None
    """How long verdicts hold while the API server is away; None: AUTH_STALE_S."""
    auth_policy: Path | None = None
    client_ca_of_cluster: bool = False
    spiffe_trust_domain: str = ""
    insecure: bool = False
    rules: AddressRules = field(default_factory=AddressRules)
    copying: Copying = field(default_factory=Copying)
    load_balancer_provider: str = ""
    transport: str = "http2"
    xds_scope: str = "all"
    service_metrics: str = "namespaces"
    cluster_domain: str = "cluster.local"
    drain_s: float = 10.0
    settle_s: float = 0.2
    rescan_s: float = 10.0
    manifest_bytes_max: int = 16 * 1024 * 1024
    workers: int = 4
    writes_per_s: float = 200.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.manifests is None:
            self._check_cluster()
        else:
            self._check_manifests(self.manifests)
        self._check_tls()
        self._check_listen()
        self._check_page()
        self._check_auth()
        provider = self.load_balancer_provider
        if provider and provider not in LOAD_BALANCER_PROVIDERS:
            known = ", ".join(LOAD_BALANCER_PROVIDERS)
            raise ConfigError(
                f"--load-balancer-provider: {quoted(provider)} is not known; use {known}"
            )

    @property
    def tls(self) -> TlsFiles | None:
        """The files for TLS; None if they are not named."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        return TlsFiles(self.tls_cert, self.tls_key, self.client_ca)

    def uses_tls(self, address: ListenAddress) -> bool:
        """Whether connections there use TLS: on loopback only where that is asked for."""
        return self.tls is not None and (address.tls or not address.loopback)

    def guards(self, address: ListenAddress) -> bool:
        """Whether callers there are asked who they are: not on plain loopback."""
        return self.auth != "none" and (self.uses_tls(address) or not address.loopback)

    @property
    def exposed(self) -> tuple[ListenAddress, ...]:
        """Where other machines reach what is not both encrypted and authenticated."""
        return tuple(
            address
            for address in self._addresses
            if not (address.loopback or (self.uses_tls(address) and self.guards(address)))
        )

    @property
    def _addresses(self) -> tuple[ListenAddress, ...]:
        """Where anything listens: gRPC, and HTTP last."""
        return (*self.listen, self.http_listen)

    def _check_tls(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("--tls-cert", "--tls-key")[:: 1 if self.tls_cert else -1]
            raise ConfigError(f"{given} goes with {missing}; name both files")
        if self.tls is None and self.client_ca is not None:
            raise ConfigError("--client-ca goes with --tls-cert and --tls-key; name all three")
        for address in self._addresses:
            if address.tls and self.tls is None:
                raise ConfigError(f"tls://{address} needs --tls-cert and --tls-key")

    def _check_listen(self) -> None:
        for address in self.listen:
            tls = self.uses_tls(address)
            if self.transport == "grpcio" and (tls or not address.loopback):
                raise ConfigError(
                    f"--listen {address}: --transport=grpcio has no TLS, and listens on loopback "
                    "only; leave it out, and the default transport is used"
                )
        if self.exposed and not self.insecure:
            flag = "--listen" if self.exposed[0] in self.listen else "--http-listen"
            raise ConfigError(
                f"{flag} {self.exposed[0]} can be reached from other machines, so it needs TLS "
                "(--tls-cert, --tls-key) and --auth; or add --insecure, if everybody there may "
                "read along and ask"
            )

    def _check_page(self) -> None:
        page = self.page_listen
        if page is None:
            return
        if not page.loopback:
            raise ConfigError(
                f"--page-listen {page} can be reached from other machines, and the page asks "
                "nobody who they are: use 127.0.0.1, and from elsewhere kubectl port-forward or "
                "ssh -L"
            )
        if page.tls:
            raise ConfigError(f"--page-listen: the page has no TLS; write {page}")

    def _check_auth(self) -> None:
        if self.auth == "kubernetes" and self.manifests is not None:
            raise ConfigError(
                "--auth=kubernetes asks an API server, and with --manifests there is none; use "
                "--auth=certificates"
            )
        certificates = self.auth == "certificates"
        if certificates and (self.client_ca is None or self.auth_policy is None):
            raise ConfigError("--auth=certificates goes with --client-ca and --auth-policy")
        if self.auth_policy is not None and not certificates:
            raise ConfigError("--auth-policy goes with --auth=certificates")
        if self.auth != "none" and not any(map(self.guards, self._addresses)):
            raise ConfigError(
                f"--auth={self.auth} asks nobody who they are: on loopback without TLS everything "
                "is allowed; give --listen another address, or tls://HOST:PORT"
            )
        for given, flag in (
            (self.token_audience is not None, "--token-audience"),
            (self.auth_stale_s is not None, "--auth-stale-s"),
        ):
            if given and self.auth != "kubernetes":
                raise ConfigError(f"{flag} goes with --auth=kubernetes")
        for given, flag in (
            (self.client_ca_of_cluster, "--client-ca-of-cluster"),
            (bool(self.spiffe_trust_domain), "--spiffe-trust-domain"),
        ):
            if given and (self.auth == "none" or self.client_ca is None):
                raise ConfigError(f"{flag} goes with --client-ca, and with --auth other than none")

    def _check_cluster(self) -> None:
        if self.output is not None:
            raise ConfigError("--output goes with --manifests; on an API server use --reconcile=on")
        if self.credentials is None:
            raise ConfigError("name what to serve: --manifests DIR, or --kubeconfig FILE")
        if self.rules.allow_loopback and self.reconcile:
            raise ConfigError(
                "--allow-loopback with --reconcile=on: an API server refuses Endpoints with "
                "loopback addresses; use one of them"
            )
        in_pod = isinstance(self.credentials, InCluster)
        if self.reconcile and not in_pod and self.lease_namespace is None:
            raise ConfigError(
                "--reconcile=on outside a cluster: name the Lease's namespace by "
                "--lease-namespace, the one where the replicas in the cluster run "
                f"({LEASE_BASE_NAME} as deploy/ has it), so that one of them and this one write in "
                "turn"
            )

    def _check_manifests(self, manifests: Path) -> None:
        if self.cluster_only:
            flag = self.cluster_only[0].replace("_", "-")
            raise ConfigError(
                f"--{flag} is for an API server, not for --manifests; use one of them"
            )
        if self.endpoint_slices != "mirror":
            raise ConfigError(
                f"--endpoint-slices={self.endpoint_slices} is for an API server, not for "
                "--manifests; use one of them"
            )
        if not manifests.is_dir():
            raise ConfigError(f"--manifests: {manifests} is not a directory")
        if self.output is None:
            return
        if (self.output.exists() or self.output.is_symlink()) and not self.output.is_dir():
            raise ConfigError(f"--output: {self.output} is there, but is no directory; name one")
        read, held = manifests.resolve(), self.output.resolve()
        if read == held or read in held.parents or held in read.parents:
            raise ConfigError(
                f"--output {self.output} and --manifests {manifests} lie in one another; "
                "what is written must not be read as input"
            )
