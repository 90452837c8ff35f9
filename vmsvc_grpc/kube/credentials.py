"""Where the API server is, and as whom we ask it: from a kubeconfig, or from inside a pod.

Owns the choice between the two, and reading them again when they change. Knows nothing of
requests.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import yaml

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes mounts the credentials of a pod."""

# The kubelet renews a pod's token in place, long before it expires; client-go, too, reads it
# again every minute.
_POD_TOKEN_FRESH_S = 60.0


class NoApiServer(Exception):  # noqa: N818 - tells of a state, like StopIteration
    """There is no way to reach an API server; one sentence says what was tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What every request needs. `host` begins with `http://` or `https://`.

    `authorization` is the whole header, empty if there is none. `namespace` is that of the
    pod or of the kubeconfig's context. It may be used for `fresh_s` before it is to be
    read again; None: until it is refused.
    """

    host: str
    tls: ssl.SSLContext
    authorization: str = ""
    namespace: str = "default"
    server_name: str | None = None
    proxy: str | None = None
    fresh_s: float | None = None


class Credentials(Protocol):
    """A place where access can be read, and read again."""

    async def load(self) -> Access:
        """What stands there now. Raises NoApiServer."""

    def __str__(self) -> str:
        """What it is, for a person."""


@dataclass(frozen=True, slots=True)
class InCluster:
    """The credentials that Kubernetes mounts into a pod. `address` is `HOST:PORT`."""

    address: str
    folder: Path = SERVICE_ACCOUNT

    async def load(self) -> Access:
        """The pod's token, CA and namespace. Raises NoApiServer."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> Access:
        try:
            token = (self.folder / "token").read_text().strip()
            ca = (self.folder / "ca.crt").read_text()
            namespace = (self.folder / "namespace").read_text().strip()
            tls = _tls(ca, None, verify=True)
        except (OSError, ValueError) as error:
            raise NoApiServer(f"{self} cannot be read: {error}") from error
        return Access(
            host=f"https://{self.address}",
            tls=tls,
            authorization=f"Bearer {token}",
            namespace=namespace,
            fresh_s=_POD_TOKEN_FRESH_S,
        )

    def __str__(self) -> str:
        return f"the pod's service account at {self.address}"


class Kubeconfig:
    """A kubeconfig: one file, or several as `KUBECONFIG` names them, and one of its contexts.

    Without `context` it is the current one when it is first read; if another becomes the
    current one later, that is another cluster, and nothing that we follow.
    """

    def __init__(self, path: str, context: str | None = None) -> None:
        """Nothing is read yet."""
        self.path = path
        self.context = context

    async def load(self) -> Access:
        """What the context says; runs its credential plugin if it has one. Raises NoApiServer."""
        # A pod never comes here, and is spared the 20 MB that this import takes.
        from kubernetes.aio.client import Configuration  # noqa: PLC0415 - see above
        from kubernetes.aio.config import (  # noqa: PLC0415 - see above
            ConfigException,
            load_kube_config,
        )

        configuration = Configuration()
        try:
            loader = await load_kube_config(  # type: ignore[no-untyped-call]  # it has no types
                self.path, self.context, configuration, persist_config=False
            )
            current = loader.current_context
            self.context = str(current["name"])
            return Access(
                host=configuration.host,
                tls=_tls(
                    _text(configuration.ssl_ca_cert),
                    _client_certificate(configuration.cert_file, configuration.key_file),
                    verify=configuration.verify_ssl,
                ),
                # A token file usually ends with a newline, which no header may hold.
                authorization=configuration.api_key.get("BearerToken", "").strip(),
                namespace=current["context"].get("namespace") or "default",
                server_name=configuration.tls_server_name or None,
                proxy=configuration.proxy or None,
            )
        except (ConfigException, OSError, yaml.YAMLError) as error:
            # A YAML error has several lines.
            text = " ".join(str(error).split())
            raise NoApiServer(f"{self} cannot be used: {text}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # What the loader raises for a file of another shape than it expects.
            raise NoApiServer(
                f"{self} cannot be used: it is not a kubeconfig ({type(error).__name__}: {error})"
            ) from error

    def __str__(self) -> str:
        return f"kubeconfig {self.path}" + (f", context {self.context}" if self.context else "")


def find(
    kubeconfig: str | None,
    context: str | None,
    environ: Mapping[str, str],
    service_account: Path = SERVICE_ACCOUNT,
) -> Credentials:
    """The credentials to use: what was asked for, else the pod's, else the default kubeconfig.

    `kubeconfig` and `context` are what the user gave. Only looks whether files exist.
    Raises NoApiServer, with a sentence of what was tried.
    """
    default = environ.get("KUBECONFIG") or "~/.kube/config"
    if kubeconfig is not None:
        if not _some_exist(kubeconfig):
            raise NoApiServer(f"--kubeconfig: there is no file {kubeconfig}")
        return Kubeconfig(kubeconfig, context)
    if context is not None:
        if not _some_exist(default):
            raise NoApiServer(
                f"--context {context}: there is no kubeconfig {default}; name one with --kubeconfig"
            )
        return Kubeconfig(default, context)
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if host and port and (service_account / "token").exists():
        return InCluster(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", service_account)
    if _some_exist(default):
        return Kubeconfig(default)
    raise NoApiServer(
        f"no API server to read from: this is no pod with a service account ({service_account}), "
        f"and there is no kubeconfig {default}; use --kubeconfig FILE, or --manifests DIR to "
        "read files"
    )


def _some_exist(paths: str) -> bool:
    """Whether there is any of the files; there may be several, as in `KUBECONFIG`."""
    return any(Path(path).expanduser().is_file() for path in paths.split(os.pathsep) if path)


def _text(path: str | None) -> str | None:
    return Path(path).read_text() if path else None


def _client_certificate(certificate: str | None, key: str | None) -> tuple[str, str, bytes] | None:
    """The files of a client certificate, and what stands in them now."""
    if not certificate:
        return None
    key = key or certificate
    return certificate, key, Path(certificate).read_bytes() + Path(key).read_bytes()


@lru_cache(maxsize=4)
def _tls(ca: str | None, client: tuple[str, str, bytes] | None, *, verify: bool) -> ssl.SSLContext:
    """How to check the server and show who we are.

    The same object for the same content, so that connections are used on when credentials
    are read again and have not changed.
    """
    context = ssl.create_default_context(cadata=ca)
    # Python 3.13 checks more of RFC 5280 than the CAs of many clusters hold.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if client is not None:
        context.load_cert_chain(client[0], client[1])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
