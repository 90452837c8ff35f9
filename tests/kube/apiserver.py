"""A small Kubernetes for tests: one etcd and one or several kube-apiservers on it, on loopback.

Everything a real cluster would check is on: TLS with a CA, authentication by token, RBAC, admission
(all but ServiceAccount, which would want a controller). Controllers run only where a test starts
them, so a namespace that is deleted stays Terminating, and nothing is garbage-collected.

Plain blocking calls, usable from any thread: a test with an event loop of its own writes
`await asyncio.to_thread(cluster.server.restart)`.
"""

import base64
import contextlib
import http.client
import json
import os
import secrets
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import yaml

from tests import confidential
from tests.kube.binaries import binary
from tests.kube.process import Port, Process

IPV4_RANGE = "10.96.0.0/16"
IPV6_RANGE = "fd00:10:96::/112"

# Ready takes 2 to 4 s on an idle machine; this is for one whose cores others use.
START_TIMEOUT_S = 120
REQUEST_TIMEOUT_S = 30
KUBECTL_TIMEOUT_S = 120

_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

FindBinary = Callable[[str], Path]


class KubectlError(Exception):
    """kubectl ended with a failure; the message is what it wrote to standard error."""


@dataclass(frozen=True)
class User:
    """Someone the API servers know by a token; may do what RBAC grants to the name and groups."""

    name: str
    groups: tuple[str, ...] = ()
    token: str = field(
        default_factory=lambda: confidential.token(secrets.token_hex(16)), repr=False
    )


@dataclass(frozen=True)
class Response:
    """An answer: its HTTP status, and its body as JSON, or as text where it is not JSON."""

    status: int
    body: Any


class Etcd:
    """The store of one cluster. Data and ports last until `close`, even over a kill."""

    def __init__(self, folder: Path, find: FindBinary) -> None:
        executable = find("etcd")
        self._client_port, self._peer_port = Port(), Port()
        self.url = f"http://127.0.0.1:{self._client_port.number}"
        peer_url = f"http://127.0.0.1:{self._peer_port.number}"
        self.data = folder / "etcd"
        self._backup = folder / "backup"
        command = [
            str(executable),
            "--name=test",
            f"--data-dir={self.data}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=test={peer_url}",
            # Alone, it need not wait 1 s for another member's heartbeat before it leads.
            "--heartbeat-interval=10",
            "--election-timeout=100",
            "--socket-reuse-port",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]
        self.process = Process("etcd", command, folder / "etcd.log")

    def start(self) -> None:
        """Returns once it serves."""
        self.process.start()
        self.process.wait_until(self._healthy, "healthy", START_TIMEOUT_S)

    def close(self) -> None:
        """Kills it, and removes its data and ports."""
        self.process.kill()
        shutil.rmtree(self.data, ignore_errors=True)
        self._client_port.close()
        self._peer_port.close()

    def back_up(self) -> None:
        """Copies its data, all at one revision, for `set_back`. Requests wait meanwhile."""
        self.process.pause()
        shutil.copytree(self.data, self._backup)
        self.process.resume()

    def set_back(self) -> None:
        """Kills it, and starts it with the data that `back_up` copied."""
        self.process.kill()
        shutil.rmtree(self.data)
        self._backup.rename(self.data)
        self.start()

    def compact(self) -> int:
        """Forgets every revision before the newest, which it returns.

        An API server still answers from its own watch cache; only one started afterwards says 410
        to a watch from an older resourceVersion.
        """
        revision = self._call("/v3/maintenance/status", {})["header"]["revision"]
        self._call("/v3/kv/compaction", {"revision": revision, "physical": True})
        return int(revision)

    def put(self, key: str, value: object) -> None:
        """Stores an object as JSON past the API servers, which then check nothing of it."""
        self.put_all({key: value})

    def put_all(self, objects: Mapping[str, object]) -> None:
        """Stores objects by key; each in a revision of its own, as API servers do it."""
        connection = _connection(self.url)
        with contextlib.closing(connection):
            for key, value in objects.items():
                put = {"key": _base64(key), "value": _base64(json.dumps(value))}
                body = json.dumps(put).encode()
                response = _answer(connection, "POST", "/v3/kv/put", body, {})
                assert response.status == HTTPStatus.OK, f"etcd answers {response}"

    def _healthy(self) -> bool:
        response = _exchange(_connection(self.url), "GET", "/health", None, {})
        return response.status == HTTPStatus.OK

    def _call(self, path: str, body: dict[str, object]) -> Any:
        data = json.dumps(body).encode()
        response = _exchange(_connection(self.url), "POST", path, data, {})
        assert response.status == HTTPStatus.OK, f"etcd answers {response} to {path}"
        return response.body


class ApiServer:
    """One kube-apiserver. It keeps its port, and its data are etcd's, whatever is done to it."""

    def __init__(
        self, name: str, folder: Path, flags: Sequence[str], admin: User, find: FindBinary
    ) -> None:
        executable = find("kube-apiserver")
        self._port = Port()
        self._admin = admin
        self._certificates = folder / "certificates"
        self.url = f"https://127.0.0.1:{self._port.number}"
        command = [
            str(executable),
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._port.number}",
            "--permit-port-sharing",
            f"--cert-dir={self._certificates}",
            *flags,
        ]
        self.process = Process(name, command, folder / f"{name}.log")

    @property
    def ca_file(self) -> Path:
        """The certificates to trust (PEM). All servers of a cluster share them."""
        return self._certificates / "apiserver.crt"

    def start(self) -> None:
        """Returns once it is ready; makes a certificate, by a CA of its own, where none is yet."""
        self.process.start()
        self.process.wait_until(self._ready, "ready", START_TIMEOUT_S)

    def stop(self) -> None:
        """Ends it in order: requests are answered, watches ended."""
        self.process.stop()

    def kill(self) -> None:
        """Ends it at once, as a crash does."""
        self.process.kill()

    def restart(self, *, new_ca: bool = False) -> None:
        """Ends it in order and starts it on the same port and data; `new_ca` renews its trust."""
        self.stop()
        if new_ca:
            shutil.rmtree(self._certificates)
        self.start()

    def close(self) -> None:
        """Kills it, and gives its port back."""
        self.process.kill()
        self._port.close()

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        user: User | None = None,
        content_type: str = "application/json",
    ) -> Response:
        """One request (by default the admin's) with `body` as JSON; every status is an answer.

        Raises OSError where there is none.
        """
        headers = _headers(user or self._admin, content_type)
        connection = _connection(self.url, self.ca_file)
        return _exchange(connection, method, path, _json(body), headers)

    def session(self) -> "Session":
        """Requests of the admin over one connection, for one who makes many of them."""
        return Session(_connection(self.url, self.ca_file), self._admin)

    def _ready(self) -> bool:
        return self.request("GET", "/readyz").status == HTTPStatus.OK


class Session:
    """One connection to an API server that is not stopped meanwhile; for one thread at a time.

    A request costs a tenth of what one over a connection of its own does.
    """

    def __init__(self, connection: http.client.HTTPConnection, user: User) -> None:
        self._connection = connection
        self._user = user

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
    ) -> Response:
        """`ApiServer.request`."""
        headers = _headers(self._user, content_type)
        return _answer(self._connection, method, path, _json(body), headers)

    def close(self) -> None:
        """Closes the connection; the next request makes another."""
        self._connection.close()


class Cluster:
    """An etcd, its API servers, and what tests ask of them. Use as a context manager.

    `users` are known besides `admin` (group system:masters), and `nobody`, to whom no rule applies.
    `flags` are added to those of each API server. Logs stay in `folder`, data do not.
    """

    def __init__(
        self,
        folder: Path,
        *,
        service_ranges: Sequence[str] = (IPV4_RANGE,),
        users: Iterable[User] = (),
        servers: int = 1,
        flags: Sequence[str] = (),
        find: FindBinary = binary,
    ) -> None:
        assert servers > 0
        self.admin = User("admin", ("system:masters",))
        self.nobody = User("nobody")
        self.servers: list[ApiServer] = []
        self.etcd = Etcd(folder, find)
        self._folder = folder
        self._find = find
        self._first_servers = servers
        self._others: list[Process] = []
        self._write_credentials([self.admin, self.nobody, *users])
        self._flags = [*self._server_flags(service_ranges), *flags]

    @property
    def server(self) -> ApiServer:
        """The first API server."""
        return self.servers[0]

    def __enter__(self) -> Self:
        try:
            self.etcd.start()
            for _ in range(self._first_servers):
                self.add_server()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kills every process of the cluster. May be called twice."""
        for process in self._others:
            process.kill()
        for server in self.servers:
            server.close()
        self.etcd.close()

    def set_back(self) -> None:
        """Sets etcd, and the first API server with it, back to what `etcd.back_up` copied."""
        self.server.kill()
        self.etcd.set_back()
        self.server.start()

    def add_server(self) -> ApiServer:
        """One more API server on the same etcd, ready; it shares the CA, tokens and keys."""
        name = f"kube-apiserver-{len(self.servers)}"
        server = ApiServer(name, self._folder, self._flags, self.admin, self._find)
        self.servers.append(server)
        server.start()
        return server

    def start_controllers(self, *names: str) -> Process:
        """Runs kube-controller-manager with the named controllers, as --controllers takes them.

        For example `endpointslice-mirroring-controller`, `namespace-controller`, or `*`.
        """
        command = [
            str(self._find("kube-controller-manager")),
            f"--kubeconfig={self.kubeconfig(self._folder / 'controllers.kubeconfig')}",
            f"--controllers={','.join(names)}",
            "--leader-elect=false",
            "--secure-port=0",
        ]
        log = self._folder / f"kube-controller-manager-{len(self._others)}.log"
        process = Process("kube-controller-manager", command, log)
        self._others.append(process)
        process.start()
        return process

    def request(self, method: str, path: str, body: object = None, **options: Any) -> Response:
        """`ApiServer.request` on the first server."""
        return self.server.request(method, path, body, **options)

    def create_namespace(self, prefix: str = "test") -> str:
        """Makes a namespace with a name that no one else has, and returns the name."""
        body = {"metadata": {"generateName": f"{prefix}-"}}
        response = self.request("POST", "/api/v1/namespaces", body)
        assert response.status == HTTPStatus.CREATED, response
        return str(response.body["metadata"]["name"])

    def service_account(self, namespace: str, name: str, *, valid_s: int = 3600) -> User:
        """Makes a ServiceAccount if there is none, and a new token of it (600 s at the least).

        This is how a user is added while the servers run. To take its tokens' worth away, delete
        the ServiceAccount.
        """
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        made = self.request("POST", accounts, {"metadata": {"name": name}})
        assert made.status in (HTTPStatus.CREATED, HTTPStatus.CONFLICT), made
        asked = {"spec": {"expirationSeconds": valid_s}}
        response = self.request("POST", f"{accounts}/{name}/token", asked)
        assert response.status == HTTPStatus.CREATED, response
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
        token = confidential.token(response.body["status"]["token"])
        return User(f"system:serviceaccount:{namespace}:{name}", groups, token)

    def kubeconfig(
        self,
        path: Path,
        *,
        user: User | None = None,
        token_file: Path | None = None,
        namespace: str = "default",
        server: ApiServer | None = None,
    ) -> Path:
        """Writes a kubeconfig for a user (the admin), or for whose token stands in `token_file`."""
        chosen = server or self.server
        token = (user or self.admin).token
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [
                {
                    "name": "test",
                    "context": {"cluster": "test", "user": "test", "namespace": namespace},
                }
            ],
            "clusters": [
                {
                    "name": "test",
                    "cluster": {"server": chosen.url, "certificate-authority": str(chosen.ca_file)},
                }
            ],
            "users": [
                {
                    "name": "test",
                    "user": {"tokenFile": str(token_file)} if token_file else {"token": token},
                }
            ],
        }
        path.write_text(json.dumps(config, indent=2))
        return path

    def kubectl(self, *arguments: str, stdin: str = "", user: User | None = None) -> str:
        """What kubectl writes, run against the first server; raises KubectlError."""
        command = [
            str(self._find("kubectl")),
            f"--server={self.server.url}",
            f"--certificate-authority={self.server.ca_file}",
            f"--token={(user or self.admin).token}",
            f"--cache-dir={self._folder / 'kubectl-cache'}",
        ]
        done = subprocess.run(
            [*command, *arguments],
            input=stdin,
            env=os.environ | {"KUBECONFIG": os.devnull},
            capture_output=True,
            text=True,
            timeout=KUBECTL_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise KubectlError(done.stderr)
        return done.stdout

    def install_crds(self, *files: Path) -> None:
        """Creates the CustomResourceDefinitions of YAML files, and returns once all are served."""
        crds = [crd for file in files for crd in yaml.load_all(file.read_text(), yaml.CSafeLoader)]
        for crd in crds:
            response = self.request("POST", _CRDS, crd)
            assert response.status == HTTPStatus.CREATED, response
        for crd in crds:
            what = f"serving {crd['metadata']['name']}"
            self.server.process.wait_until(partial(self._serves, crd), what, START_TIMEOUT_S)

    def _serves(self, crd: Any) -> bool:
        """Whether a CustomResourceDefinition is Established and each of its versions is served."""
        stored = self.request("GET", f"{_CRDS}/{crd['metadata']['name']}").body
        conditions = stored.get("status", {}).get("conditions") or []
        established = any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
        return established and all(
            self.request("GET", f"{path}?limit=1").status == HTTPStatus.OK
            for path in _list_paths(crd)
        )

    def _write_credentials(self, users: Iterable[User]) -> None:
        rows = [f'{u.token},{u.name},{u.name},"{",".join(u.groups)}"\n' for u in users]
        (self._folder / "tokens.csv").write_text("".join(rows))
        (self._folder / "service-account.key").write_text(_private_key())

    def _server_flags(self, service_ranges: Sequence[str]) -> list[str]:
        key = self._folder / "service-account.key"
        return [
            f"--etcd-servers={self.etcd.url}",
            f"--service-cluster-ip-range={','.join(service_ranges)}",
            f"--token-auth-file={self._folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={key}",
            f"--service-account-key-file={key}",
            # It would write this loopback address into Endpoints, which the API refuses.
            "--endpoint-reconciler-type=none",
        ]


def _list_paths(crd: Any) -> list[str]:
    """Where each served version of a CustomResourceDefinition is listed."""
    spec = crd["spec"]
    versions = [version["name"] for version in spec["versions"] if version["served"]]
    return [f"/apis/{spec['group']}/{version}/{spec['names']['plural']}" for version in versions]


def _private_key() -> str:
    """A new P-256 key as PEM, which needs no library: RFC 5915 asks for the secret number only.

    An odd number of 255 bits is never zero and always below the order of the curve.
    """
    secret = (secrets.randbits(255) | 1).to_bytes(32, "big")
    prime256v1 = bytes.fromhex("a00a06082a8648ce3d030107")
    der = bytes.fromhex("3031020101") + bytes.fromhex("0420") + secret + prime256v1
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN EC PRIVATE KEY-----\n{body}-----END EC PRIVATE KEY-----\n"


def _connection(url: str, ca_file: Path | None = None) -> http.client.HTTPConnection:
    address = urlsplit(url).netloc
    if ca_file is None:
        return http.client.HTTPConnection(address, timeout=REQUEST_TIMEOUT_S)
    trust = ssl.create_default_context(cafile=ca_file)
    return http.client.HTTPSConnection(address, timeout=REQUEST_TIMEOUT_S, context=trust)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _headers(user: User, content_type: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {user.token}", "Content-Type": content_type}


def _json(body: object) -> bytes | None:
    return None if body is None else json.dumps(body).encode()


def _exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
) -> Response:
    """One request and its whole answer; closes the connection. Raises OSError."""
    try:
        return _answer(connection, method, path, body, headers)
    finally:
        connection.close()


def _answer(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
) -> Response:
    """One request and its whole answer. Raises OSError."""
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        text = response.read().decode()
    except http.client.HTTPException as error:
        raise ConnectionError(f"no whole answer to {method} {path}") from error
    is_json = "json" in response.headers.get_content_type()
    return Response(response.status, json.loads(text) if is_json else text)
