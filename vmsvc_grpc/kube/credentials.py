"""The address of the API server and our credentials: from a kubeconfig, or inside a pod.

Owns the choice between the two, and reading them again when they change. Knows nothing about
requests.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from vmsvc_grpc.kube import openid, plugin
from vmsvc_grpc.kube.credential_files import BlankFileError, filled_text_of, text_of
from vmsvc_grpc.kube.kubeconfig import (
    AuthProvider,
    Chosen,
    Cluster,
    KubeconfigError,
    Plugin,
    User,
    chosen,
)
from vmsvc_grpc.model.address import at_port
from vmsvc_grpc.model.problem import escaped, quoted
from vmsvc_grpc.model.validate import is_dns_1123_label

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes mounts the credentials of a pod."""

# The kubelet renews a pod's token in place, long before it expires; client-go, too, reads it
# again every minute.
_POD_TOKEN_FRESH_S = 60.0


# A plugin's credential is used for at least so long, even if it is about to expire: clocks differ,
# and the API server has the last word.
_PLUGIN_FRESH_MIN_S = 10.0
# The plugin is asked for a new one so long before the old one expires: a request takes time.
_PLUGIN_EARLY_S = 10.0

_PLUGIN_BOUNDS = plugin.PluginBounds()


class NoApiServer(Exception):  # noqa: N818 - names a state, like StopIteration
    """There are no credentials for an API server; one sentence says what was tried.

    `may_pass`: asking again may help. A plugin that failed or hung may succeed the next time, and a
    file that somebody else writes may have its content then.
    """

    def __init__(self, sentence: str, *, may_pass: bool = False) -> None:
        """The sentence is made safe to print, as it may quote a file or a program."""
        super().__init__(escaped(sentence))
        self.may_pass = may_pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What every request needs. `host` begins with `http://` or `https://`.

    `authorization` is the whole header, empty if there is none. `namespace` is that of the
    pod or of the kubeconfig's context. After `fresh_s` it should be read again; None: once it is
    refused.
    """

    host: str
    tls: ssl.SSLContext
    authorization: str = ""
    namespace: str = "default"
    server_name: str | None = None
    proxy: str | None = None
    fresh_s: float | None = None


class Credentials(Protocol):
    """A source of access, which can be read again and again."""

    async def load(self) -> Access:
        """The access as it is now. Raises NoApiServer."""

    def __str__(self) -> str:
        """What it is, for a person."""


@dataclass(frozen=True, slots=True)
class InCluster:
    """The credentials that Kubernetes mounts into a pod. `address` is `HOST:PORT`."""

    address: str
    folder: Path = SERVICE_ACCOUNT

    async def load(self) -> Access:
        """The pod's token, CA and namespace. Raises NoApiServer, which may pass."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> Access:
        try:
            token = _token(filled_text_of(self.folder / "token"))
            ca = filled_text_of(self.folder / "ca.crt")
            namespace = filled_text_of(self.folder / "namespace").strip()
            if not is_dns_1123_label(namespace):
                raise KubeconfigError(f"its namespace is no name of one: {quoted(namespace)}")
            tls = _tls(ca, None, verify=True)
        except (OSError, ValueError) as error:
            # The kubelet writes them, and may not have done so yet.
            raise NoApiServer(f"{self} cannot be read: {error}", may_pass=True) from error
        return Access(
            host=f"https://{self.address}",
            tls=tls,
            authorization=token,
            namespace=namespace,
            fresh_s=_POD_TOKEN_FRESH_S,
        )

    def __str__(self) -> str:
        return f"the pod's service account at {self.address}"


class _Identity(NamedTuple):
    """Who asks: a whole header or "", a certificate with its key as PEM, and for how long."""

    authorization: str = ""
    certificate: tuple[bytes, bytes] | None = None
    fresh_s: float | None = None


class Kubeconfig:
    """A kubeconfig: one file, or several as `KUBECONFIG` names them, and one of its contexts.

    Without `context` it is the one that is current at the first read. A later change of the current
    context means another cluster, and is not followed.
    """

    def __init__(
        self,
        path: str,
        context: str | None = None,
        *,
        environ: Mapping[str, str] = os.environ,
        bounds: plugin.PluginBounds = _PLUGIN_BOUNDS,
    ) -> None:
        """Nothing is read yet. A credential plugin is given `environ`."""
        self.path = path
        self.context = context
        self._environ = environ
        self._bounds = bounds
        self._openid_tokens = openid.OpenIDTokens()

    async def load(self) -> Access:
        """What the context says; runs its credential plugin if it has one. Raises NoApiServer.

        If it names credentials, they are obtained, or this raises: access is never anonymous then.
        Where a file that it names has no content, or a plugin or provider fails, that may pass.
        """
        try:
            found = await asyncio.to_thread(self._read)
            self.context = found.name
            identity = await self._identity(found)
            return await asyncio.to_thread(_access, found, identity)
        except plugin.PluginError as error:
            raise NoApiServer(f"{self} cannot be used: its {error}", may_pass=True) from error
        except (OSError, ValueError) as error:
            may_pass = isinstance(error, BlankFileError)
            raise NoApiServer(f"{self} cannot be used: {error}", may_pass=may_pass) from error

    def _read(self) -> Chosen:
        paths = list(_paths(self.path))
        # Of several files, missing ones are skipped, as kubectl does.
        files = [path for path in paths if path.exists()] or paths
        return chosen([(path, text_of(path)) for path in files], self.context)

    async def _identity(self, found: Chosen) -> _Identity:
        user, folder = found.user, found.user_folder
        named = await asyncio.to_thread(_named, found)
        if named.authorization:
            return named
        certificate = named.certificate
        if user.exec is not None and certificate is None:
            return await self._asked(found, user.exec)
        if user.auth_provider is not None:
            given = await self._openid(user.auth_provider, folder)
            return given._replace(certificate=certificate)
        return _Identity(certificate=certificate)

    async def _asked(self, found: Chosen, named: Plugin) -> _Identity:
        """The identity that the user's plugin prints."""
        # A command with a slash is a file, and relative to the kubeconfig as other files are.
        command = named.command
        if "/" in command:
            command = str(found.user_folder / command)
        cluster = await asyncio.to_thread(_cluster_info, found)
        got = await plugin.ask(named, command, cluster, self._environ, self._bounds)
        pair = None
        if got.client_certificate_data and got.client_key_data:
            pair = got.client_certificate_data.encode(), got.client_key_data.encode()
        fresh_s = None
        if (expires := got.expiration_timestamp) is not None:
            # A time without zone is UTC's.
            at = expires if expires.tzinfo else expires.replace(tzinfo=UTC)
            left_s = (at - datetime.now(UTC)).total_seconds()
            fresh_s = max(_PLUGIN_FRESH_MIN_S, left_s - _PLUGIN_EARLY_S)
        try:
            authorization = _token(got.token) if got.token else ""
        except KubeconfigError as error:
            raise plugin.of_no_use(named, error) from error
        return _Identity(authorization, pair, fresh_s)

    async def _openid(self, named: AuthProvider, folder: Path) -> _Identity:
        """The token of the user's OpenID provider, renewed by it if it has expired."""
        provider = openid.provider(named.config)
        ca = await asyncio.to_thread(
            _data_or_file,
            "idp-certificate-authority",
            provider.idp_certificate_authority_data,
            provider.idp_certificate_authority,
            folder,
        )
        tls = await asyncio.to_thread(_tls, ca, None, verify=True)
        try:
            async with asyncio.timeout(self._bounds.plugin_s):
                token = await self._openid_tokens.token(provider, tls, time.time())
        except openid.OpenIDError as error:
            raise plugin.PluginError(f"OpenID provider gives no token: {error}") from error
        except TimeoutError as error:
            reason = f"no answer within {self._bounds.plugin_s:g} s"
            raise plugin.PluginError(f"OpenID provider gives no token: {reason}") from error
        return _Identity(_token(token.text), fresh_s=token.fresh_s)

    def __str__(self) -> str:
        return f"kubeconfig {self.path}" + (f", context {self.context}" if self.context else "")


def find(
    kubeconfig: str | None,
    context: str | None,
    environ: Mapping[str, str],
    service_account: Path = SERVICE_ACCOUNT,
) -> Credentials:
    """The credentials to use: those asked for, else the pod's, else the default kubeconfig's.

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
        return InCluster(at_port(host, port), service_account)
    if _some_exist(default):
        return Kubeconfig(default)
    raise NoApiServer(
        f"no API server to read from: this is no pod with a service account ({service_account}), "
        f"and there is no kubeconfig {default}; use --kubeconfig FILE"
    )


def _some_exist(paths: str) -> bool:
    """Whether one of the files exists; there may be several, as in `KUBECONFIG`."""
    # pathlib's methods raise if a name is too long, or a directory may not be entered.
    return any(os.path.isfile(path) for path in _paths(paths))  # noqa: PTH113


def _paths(text: str) -> Iterator[Path]:
    """The files that a text names. An unknown home directory (`~nobody`) stays as it is."""
    return (Path(os.path.expanduser(path)) for path in text.split(os.pathsep) if path)  # noqa: PTH111


class _ClientCertificateError(KubeconfigError):
    """A client certificate or its key cannot be read, or they do not belong together."""


def _access(found: Chosen, identity: _Identity) -> Access:
    """The access that a context and an identity give.

    Raises PluginError if a plugin gave a certificate that cannot be used; OSError and ValueError.
    """
    cluster, user = found.cluster, found.user
    if user.exec is not None and identity.certificate and cluster.is_plain:
        reason = "a client certificate needs https; server of the cluster is an http URL"
        raise plugin.of_no_use(user.exec, reason)
    ca = _ca(cluster, found.cluster_folder)
    try:
        tls = _tls(ca, identity.certificate, verify=not cluster.insecure_skip_tls_verify)
    except _ClientCertificateError as error:
        if user.exec is not None and not user.names_certificate:
            raise plugin.of_no_use(user.exec, error) from error
        raise KubeconfigError(f"user {quoted(found.user_name)}: {error}") from error
    return Access(
        host=cluster.server.rstrip("/"),
        tls=tls,
        authorization=identity.authorization,
        namespace=found.namespace,
        server_name=cluster.tls_server_name or None,
        proxy=cluster.proxy_url or None,
        fresh_s=identity.fresh_s,
    )


def _ca(cluster: Cluster, folder: Path) -> str | None:
    return _data_or_file(
        "certificate-authority",
        cluster.certificate_authority_data,
        cluster.certificate_authority,
        folder,
    )


def _cluster_info(found: Chosen) -> dict[str, Any]:
    """The cluster as it is passed to a plugin (`client.authentication.k8s.io`)."""
    cluster = found.cluster
    ca = _ca(cluster, found.cluster_folder)
    info = {
        "server": cluster.server,
        "tls-server-name": cluster.tls_server_name,
        "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
        "certificate-authority-data": base64.b64encode(ca.encode()).decode() if ca else None,
        "proxy-url": cluster.proxy_url,
    }
    return {name: value for name, value in info.items() if value}


def _data_or_file(field: str, data: str | None, path: str | None, folder: Path) -> str | None:
    """A PEM text in the kubeconfig, or in the file that it names; None if neither is there."""
    if data:
        try:
            return base64.b64decode(data, validate=True).decode()
        except ValueError as error:
            raise KubeconfigError(f"{field}-data is not text in base64") from error
    return filled_text_of(folder / path) if path else None


def _named(found: Chosen) -> _Identity:
    """Who asks by what stands in the kubeconfig, and in files that it names."""
    user, folder = found.user, found.user_folder
    try:
        certificate = _named_certificate(user, folder)
        return _Identity(_named_token(user, folder) if user.names_token else "", certificate)
    except BlankFileError as error:
        raise BlankFileError(f"user {quoted(found.user_name)}: {error}") from error
    except (OSError, ValueError) as error:
        raise KubeconfigError(f"user {quoted(found.user_name)}: {error}") from error


def _named_certificate(user: User, folder: Path) -> tuple[bytes, bytes] | None:
    certificate = _data_or_file(
        "client-certificate", user.client_certificate_data, user.client_certificate, folder
    )
    key = _data_or_file("client-key", user.client_key_data, user.client_key, folder)
    if certificate is None or key is None:
        return None
    return certificate.encode(), key.encode()


def _named_token(user: User, folder: Path) -> str:
    """The header of a user with a token file, a token or a password; the file comes first."""
    if user.token_file:
        return _token(filled_text_of(folder / user.token_file), "tokenFile")
    if user.token:
        return _token(user.token)
    secret = f"{user.username}:{user.password or ''}".encode()
    return f"Basic {base64.b64encode(secret).decode()}"


def _token(text: str, field: str = "token") -> str:
    """The header for a token. A token file usually ends with a newline, unlike a header."""
    token = text.strip()
    if not token:
        raise KubeconfigError(f"{field}: the token is empty")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise KubeconfigError(f"{field}: the token has characters that no header may hold")
    return f"Bearer {token}"


@lru_cache(maxsize=4)
def _tls(ca: str | None, client: tuple[bytes, bytes] | None, *, verify: bool) -> ssl.SSLContext:
    """How to check the server and show who we are.

    Equal content gives the same object, so that connections stay in use when credentials are read
    again unchanged.
    """
    try:
        context = ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError) as error:
        raise KubeconfigError(f"the certificate authority cannot be read: {error}") from error
    # Python 3.13 checks parts of RFC 5280 that the CAs of many clusters break.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if client is not None:
        # Python reads them from files only; this one is gone before the first request.
        with tempfile.NamedTemporaryFile() as file:
            file.write(client[1] + b"\n" + client[0])
            file.flush()
            try:
                # Without a password, Python would ask the terminal for one.
                context.load_cert_chain(file.name, password="")
            except (ssl.SSLError, ValueError) as error:
                raise _ClientCertificateError(
                    f"the client certificate and its key cannot be used: {error}"
                ) from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
