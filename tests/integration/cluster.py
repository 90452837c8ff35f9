"""The real program on a real API server: what is done to them, and whether all agree afterwards.

Plain blocking calls and threads. Whoever asks the API server here asks past every proxy.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO

import grpc
import pytest
import yaml

from soak.acting import repeating
from tests.conformance.told import Fold, NotTold, Told, ToldEndpoint, content, disagreements
from tests.conformance.told import told as told_of
from tests.kube.apiserver import Cluster, Response, Session, User
from tests.kube.binaries import binary
from tests.kube.plugin import FLAVOURS
from tests.kube.proxy import Proxy
from tests.program import Program, awaited, serving
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc.v1 import endpoint_service_pb2_grpc as api
from vmsvc_grpc.model.objects import (
    GROUP,
    Kind,
    StoredService,
    VirtualMachine,
    VirtualMachineService,
)
from vmsvc_grpc.model.parse import parse
from vmsvc_grpc.model.resolve import AddressRules, families, resolved

DEPLOY = Path(__file__).parents[2] / "deploy"
VARIANT = DEPLOY / "overlays" / "own-secret"
"""The one of deploy/ that is installed: it needs no cert-manager."""
INSTALLED = "vmsvc-grpc"
"""What deploy/ calls its namespace and the account of its Pods."""

LEASE_S = 3.0
"""The shortest lease that there is."""

PATIENCE_S = 60.0
MERGE = "application/merge-patch+json"
VERSION = f"{GROUP}/v1alpha6"
HTTP = {"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}
PROBE = {"tcpSocket": {"port": 22}}

# What the audit log has: writes, once they are answered, and no bodies.
_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {"level": "None", "verbs": ["get", "list", "watch"]},
        {"level": "None", "resources": [{"group": "coordination.k8s.io"}]},
        {"level": "Metadata"},
    ],
}
# A machine's own pace: some 30 changes a second, so that two cores do something else, too.
_CHURN_PAUSE_S = 0.03
_POLL_S = 0.1

Object = dict[str, Any]
_PATHS = {
    "virtualmachines": f"/apis/{VERSION}",
    "virtualmachineservices": f"/apis/{VERSION}",
    "services": "/api/v1",
    "endpoints": "/api/v1",
    "events": "/apis/events.k8s.io/v1",
}


def path(resource: str, namespace: str = "", name: str = "") -> str:
    """Where an object is; without a name all of a namespace, without that all there are."""
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"{_PATHS[resource]}{scope}/{resource}" + (f"/{name}" if name else "")


class Hands:
    """An administrator's requests, made again for as long as the API server is away.

    For any thread.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self._session: Session | None = None

    def ask(self, method: str, where: str, body: object = None, **options: Any) -> Response:
        """The answer; of a request made again, it may be one to the first."""
        deadline = time.monotonic() + PATIENCE_S
        while (answer := self._try(method, where, body, **options)) is None:
            assert time.monotonic() < deadline, f"no answer to {method} {where}"
            time.sleep(_POLL_S)
        return answer

    def _try(self, *arguments: Any, **options: Any) -> Response | None:
        """The answer, unless there is none, or it is that there may be one later."""
        with self._lock:
            try:
                self._session = self._session or self._cluster.server.session()
                answer = self._session.request(*arguments, **options)
            except OSError:
                self.close()
                return None
        later = answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        return None if later or answer.status == HTTPStatus.TOO_MANY_REQUESTS else answer

    def create(self, resource: str, manifest: Object) -> Response:
        """Make an object in the namespace that it names."""
        return self.ask("POST", path(resource, manifest["metadata"]["namespace"]), manifest)

    def patch(self, where: str, patch: object) -> Response:
        """Merge a patch into an object."""
        return self.ask("PATCH", where, patch, content_type=MERGE)

    def listed(self, resource: str, namespace: str = "") -> list[Object]:
        """All objects of a namespace, or of all; none where there is no such resource."""
        answer = self.ask("GET", path(resource, namespace))
        return answer.body["items"] if answer.status == HTTPStatus.OK else []

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


def vm(namespace: str, name: str, labels: Mapping[str, str], *, probe: bool = False) -> Object:
    spec: Object = {"className": "small", "imageName": "vmi-0a0044d7c690bcbea"}
    return {
        "apiVersion": VERSION,
        "kind": "VirtualMachine",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "spec": spec | ({"readinessProbe": PROBE} if probe else {}),
    }


def vm_status(address: str, ready: bool | None = None) -> Object:
    condition = {
        "type": "Ready",
        "status": str(ready),
        "reason": "Probe",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    conditions = [] if ready is None else [condition]
    return {"status": {"network": {"primaryIP4": address}, "conditions": conditions}}


def vm_service(namespace: str, name: str, selector: Mapping[str, str], **spec: Any) -> Object:
    return {
        "apiVersion": VERSION,
        "kind": "VirtualMachineService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": "ClusterIP", "selector": dict(selector), "ports": [HTTP], **spec},
    }


class Site:
    """A namespace with services and VMs whose lives are eventful, and one service that is steady.

    `steady` loses none of its three VMs, and one of them is always ready.
    """

    def __init__(self, hands: Hands, namespace: str, *, seed: int = 1) -> None:
        """Makes everything."""
        self.namespace = namespace
        self.steady = f"{namespace}/steady"
        self._hands = hands
        self._random = random.Random(seed)
        self._addresses = 0
        self.populate()

    def populate(self) -> None:
        """Make all VMs and services that are not there."""
        for number in range(3):
            self._make_vm(f"steady-{number}", "steady")
        for number in range(9):
            self._make_vm(f"vm-{number}", self._some_app())
        for name in ("steady", *_APPS):
            self._make_service(name)

    def step(self) -> None:
        """Change something."""
        self._random.choice(
            (
                self._move_steady,
                self._move,
                self._relabel,
                self._replace,
                self._flap,
                self._toggle_service,
                self._change_ports,
            )
        )()

    def _address(self) -> str:
        self._addresses += 1
        return f"10.1.{self._addresses // 250}.{self._addresses % 250 + 1}"

    def _some_app(self) -> str:
        return self._random.choice(_APPS)

    def _some_vm(self) -> str:
        return f"vm-{self._random.randrange(9)}"

    def _make_vm(self, name: str, app: str) -> None:
        self._hands.create("virtualmachines", vm(self.namespace, name, {"app": app}, probe=True))
        self._report(name, ready=True)

    def _report(self, name: str, *, ready: bool) -> None:
        where = path("virtualmachines", self.namespace, name)
        self._hands.patch(f"{where}/status", vm_status(self._address(), ready))

    def _make_service(self, name: str) -> None:
        made = vm_service(self.namespace, name, {"app": name})
        self._hands.create("virtualmachineservices", made)

    def _move_steady(self) -> None:
        self._report(f"steady-{self._random.randrange(1, 3)}", ready=self._random.random() < 0.5)

    def _move(self) -> None:
        self._report(self._some_vm(), ready=True)

    def _flap(self) -> None:
        self._report(self._some_vm(), ready=False)

    def _relabel(self) -> None:
        where = path("virtualmachines", self.namespace, self._some_vm())
        self._hands.patch(where, {"metadata": {"labels": {"app": self._some_app()}}})

    def _replace(self) -> None:
        name = self._some_vm()
        self._hands.ask("DELETE", path("virtualmachines", self.namespace, name))
        self._make_vm(name, self._some_app())

    def _toggle_service(self) -> None:
        name = self._some_app()
        where = path("virtualmachineservices", self.namespace, name)
        if self._hands.ask("DELETE", where).status == HTTPStatus.NOT_FOUND:
            self._make_service(name)

    def _change_ports(self) -> None:
        where = path("virtualmachineservices", self.namespace, self._some_app())
        port = {**HTTP, "targetPort": self._random.randrange(8000, 8010)}
        self._hands.patch(where, {"spec": {"ports": [port]}})


_APPS = ("web", "api", "db", "mail")


@contextmanager
def churn(site: Site) -> Iterator[None]:
    """Changes without a pause in a thread, until the block ends."""
    with repeating("churn", site.step, _CHURN_PAUSE_S):
        yield


class Listener:
    """A client with a stream of all services, all endpoints, open from first to last.

    Notes each message after which a service in `steady` that had endpoints has none.
    """

    def __init__(self, address: str, steady: Sequence[str] = ()) -> None:
        self.wrong: list[str] = []
        self.messages = 0
        self._steady = set(steady)
        self._fold = Fold()
        self._lock = threading.Lock()
        self._closing = False
        self._channel = grpc.insecure_channel(address)
        self._stub = api.EndpointServiceStub(self._channel)
        request = pb.WatchEndpointsRequest(all_services=True, readiness=pb.READINESS_ALL)
        self._stream = self._stub.WatchEndpoints(request, wait_for_ready=True)
        self._thread = threading.Thread(target=self._run, name="listener")
        self._thread.start()

    def _run(self) -> None:
        try:
            for message in self._stream:
                with self._lock:
                    before = {name: self._fold.services.get(name) for name in self._steady}
                    self._fold.take(message)
                    self.messages += 1
                    self._note_emptied(before)
        except Exception as error:  # noqa: BLE001 - whatever it is, `failures` tells
            if not self._closing:
                self.wrong.append(f"the stream ended: {error}")

    def _note_emptied(self, before: Mapping[str, Told | NotTold | None]) -> None:
        for name, state in before.items():
            now = self._fold.services.get(name)
            had = isinstance(state, Told) and state.endpoints
            if had and not (isinstance(now, Told) and any(e.ready for e in now.endpoints)):
                self.wrong.append(f"{name} was {state} and is {now}")

    def may_lose(self, service: str) -> None:
        """From now on the service may lose its VMs."""
        with self._lock:
            self._steady.discard(service)

    def loses_none(self, service: str) -> None:
        """From now on the service loses none of its VMs."""
        with self._lock:
            self._steady.add(service)

    def told(self) -> dict[str, Told | NotTold]:
        """What has been told of each service."""
        with self._lock:
            return dict(self._fold.services)

    def addresses(self, service: str) -> set[str]:
        """The addresses of a service, ready or not; none of one that is absent."""
        state = self.told().get(service)
        return {e.address for e in state.endpoints} if isinstance(state, Told) else set()

    def looked_up(self, service: str) -> Told | NotTold:
        """What a look-up answers now."""
        request = pb.ResolveEndpointsRequest(service=service, readiness=pb.READINESS_ALL)
        try:
            answer = self._stub.ResolveEndpoints(request, timeout=PATIENCE_S)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return NotTold(None)
        return told_of(answer.endpoint_set)

    def serves(self, service: str) -> bool:
        """Whether a look-up answers now with at least one endpoint."""
        state = self.looked_up(service)
        return isinstance(state, Told) and bool(state.endpoints)

    def close(self) -> None:
        self._closing = True
        self._stream.cancel()
        self._thread.join()
        self._channel.close()


class Wire:
    """A `tests.kube.proxy.Proxy`, on an event loop of its own in a thread."""

    def __init__(self, target_port: int) -> None:
        self.proxy = Proxy(target_port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire")
        self._thread.start()
        self.do(self.proxy.__aenter__())

    def do(self, work: Coroutine[Any, Any, Any]) -> None:
        """Have the proxy do something."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def close(self) -> None:
        self.do(self.proxy.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass
class Replica:
    """A running program, who listens to it, its way to the API server, and who it is there."""

    program: Program
    listener: Listener
    wire: Wire
    token_id: str

    @property
    def leads(self) -> bool:
        values = self.program.metrics()
        return any(values[name] for name in values if name.startswith("leader_election_"))

    def metric(self, name: str, **labels: str) -> float:
        """The value of one metric; 0 if there is none with these labels yet."""
        text = ",".join(f'{key}="{value}"' for key, value in labels.items())
        with contextlib.suppress(KeyError):
            return self.program.metric(f"{name}{{{text}}}" if text else name)
        return 0.0


@dataclass(frozen=True)
class Write:
    """A request that may have changed something, as the API server's audit log has it."""

    by: str
    """The id of the token it was made with; empty for the administrator's."""
    at: datetime
    """When it arrived."""
    verb: str
    resource: str
    part: str
    """The subresource; empty where it is the object itself."""
    name: str
    code: int


@dataclass
class World:
    """A cluster with the CRDs, with deploy/ installed, and with a log of all writes."""

    cluster: Cluster
    folder: Path
    hands: Hands
    audit: Path
    _names: Iterator[int] = field(default_factory=lambda: iter(range(1000)))

    def site(self, **options: Any) -> Site:
        """A new namespace, with all that `Site` makes."""
        return Site(self.hands, self.cluster.create_namespace("site"), **options)

    def account(self) -> User:
        """The account of our Pods, with a token of its own."""
        return self.cluster.service_account(INSTALLED, INSTALLED)

    @contextmanager
    def wired(self) -> Iterator[Wire]:
        """A way to the API server that may be broken."""
        port = int(self.cluster.server.url.rpartition(":")[2])
        with closing(Wire(port)) as wire:
            yield wire

    def kubeconfig(self, user: User, wire: Wire | None = None, namespace: str = INSTALLED) -> Path:
        """A kubeconfig of a user, by way of a wire if there is one; the Lease's namespace."""
        file = self.folder / f"{next(self._names)}.kubeconfig"
        self.cluster.kubeconfig(file, user=user, namespace=namespace)
        if wire is not None:
            config = json.loads(file.read_text())
            config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{wire.proxy.port}"
            file.write_text(json.dumps(config))
        return file

    @contextmanager
    def replica(
        self,
        *flags: str,
        steady: Sequence[str] = (),
        user: User | None = None,
        namespace: str = INSTALLED,
        within: Sequence[str] = (),
    ) -> Iterator[Replica]:
        """A replica that writes if it holds the Lease in a namespace, with a listener.

        It has the rights of deploy/base, unless a user is given who has others. `within` is a
        command that runs the one that it is given.
        """
        user = user or self.account()
        with ExitStack() as stack:
            wire = stack.enter_context(self.wired())
            arguments: list[str | Path] = ["--kubeconfig", self.kubeconfig(user, wire, namespace)]
            arguments += ["--reconcile", "on", "--lease-namespace", namespace]
            arguments += ["--lease-duration-s", f"{LEASE_S:g}"]
            arguments += ["--drain-s", "0", *flags]
            log = self.folder / f"{next(self._names)}.log"
            program = stack.enter_context(serving(arguments, log, within=within))
            listener = stack.enter_context(closing(Listener(program.grpc, steady)))
            yield Replica(program, listener, wire, _token_id(user.token))

    @contextmanager
    def looking(self, user: User) -> Iterator[Replica]:
        """A program that is not told what to read, and runs as the user if it finds out."""
        log = self.folder / f"{next(self._names)}.log"
        with (
            self.wired() as wire,
            serving(["--drain-s", "0"], log) as program,
            closing(Listener(program.grpc)) as listener,
        ):
            yield Replica(program, listener, wire, _token_id(user.token))

    def agrees(self, *replicas: Replica, namespace: str = "") -> None:
        """Returns once streams, look-ups and objects are all what a fresh computation says.

        Of one namespace, or of all.
        Fails with the differences if they do not come to be, or if a listener noted something.
        """
        wrong = self._differences(replicas, namespace)
        deadline = time.monotonic() + PATIENCE_S
        while wrong and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            wrong = self._differences(replicas, namespace)
        said = "\n".join(r.program.said()[-3000:] for r in replicas) if wrong else ""
        assert not wrong, "\n".join([*wrong, said])
        for replica in replicas:
            assert replica.listener.wrong == []

    def _differences(self, replicas: Sequence[Replica], namespace: str) -> list[str]:
        fresh = Fresh.read(self.hands, namespace)
        found = list(fresh.orphans())
        for replica in replicas:
            found += fresh.differences(replica.listener)
        return found

    def mark(self) -> int:
        """Where the log of writes ends now."""
        return self.audit.stat().st_size

    def log(self, since: int) -> list[Write]:
        """All writes after a mark, by their ends; without those of Leases."""
        with self.audit.open("rb") as log:
            return [_write(line) for line in whole_lines(log, since)]

    def writes(self, since: int) -> list[Write]:
        """Those of our replicas."""
        return [write for write in self.log(since) if write.by]

    def versions(self, namespace: str) -> dict[tuple[str, str], str]:
        """The resource versions of what is written in a namespace."""
        return {
            (resource, item["metadata"]["name"]): item["metadata"]["resourceVersion"]
            for resource in ("virtualmachineservices", "services", "endpoints")
            for item in self.hands.listed(resource, namespace)
        }


def whole_lines(log: BinaryIO, since: int) -> list[bytes]:
    """The lines of a log that another process writes, from a position on.

    Without one that had been begun there: what it tells of had happened. Without the last one,
    while it is not whole.
    """
    if since:
        log.seek(since - 1)
        log.readline()
    return [line for line in log if line.endswith(b"\n")]


def _token_id(token: str) -> str:
    claims = token.split(".")[1]
    decoded = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    return f"JTI={decoded['jti']}"


def _write(line: bytes) -> Write:
    entry = json.loads(line)
    extra, about = entry["user"].get("extra", {}), entry.get("objectRef", {})
    return Write(
        by=next(iter(extra.get("authentication.kubernetes.io/credential-id", ())), ""),
        at=datetime.fromisoformat(entry["requestReceivedTimestamp"]),
        verb=entry["verb"],
        resource=about.get("resource", ""),
        part=about.get("subresource", ""),
        name=f"{about.get('namespace', '')}/{about.get('name', '')}",
        code=entry["responseStatus"]["code"],
    )


@dataclass(frozen=True)
class Fresh:
    """Everything there is on the API server, read now, and what should follow from it."""

    vms: list[VirtualMachine]
    vm_services: dict[str, VirtualMachineService]
    services: dict[str, Object]
    endpoints: dict[str, Object]

    @classmethod
    def read(cls, hands: Hands, namespace: str) -> Fresh:
        """What is in one namespace, or in all."""
        vms = [
            parse(Kind.VIRTUAL_MACHINE, item) for item in hands.listed("virtualmachines", namespace)
        ]
        vm_services = [
            parse(Kind.VIRTUAL_MACHINE_SERVICE, item)
            for item in hands.listed("virtualmachineservices", namespace)
        ]
        return cls(
            [v for v in vms if isinstance(v, VirtualMachine)],
            {str(s.key): s for s in vm_services if isinstance(s, VirtualMachineService)},
            _by_name(hands.listed("services", namespace)),
            _by_name(hands.listed("endpoints", namespace)),
        )

    def endpoints_of(self, name: str) -> frozenset[ToldEndpoint]:
        """The endpoints that a service should have, by what is stored now and nothing else."""
        service = self.vm_services[name]
        assert service.spec is not None, f"{name} is refused: {service.problems}"
        stored = self.services.get(name)
        parsed = (
            parse(Kind.SERVICE, {"apiVersion": "v1", "kind": "Service", **stored})
            if stored
            else None
        )
        chosen = parsed.ip_families if isinstance(parsed, StoredService) else ()
        rules = AddressRules()
        wanted = families(service.spec, chosen, rules.cluster_families)
        own = [v for v in self.vms if v.key.namespace == service.key.namespace]
        found = resolved(service.spec, wanted, own, lambda _: False, rules)
        return frozenset(ToldEndpoint(e.address, e.vm_uid, e.vm_name, e.ready) for e in found)

    def differences(self, listener: Listener) -> Iterator[str]:
        """Where what is told, held and computed of a service is not the same."""
        told = listener.told()
        for name in sorted(told.keys() | self.vm_services.keys()):
            state, stored = told.get(name, NotTold(None)), self.vm_services.get(name)
            held = self.services.get(name), self.endpoints.get(name)
            if stored is None:
                # A Service of that name may well be somebody else's.
                if isinstance(state, Told):
                    yield f"{name} does not exist, and is told: {state}"
                continue
            yield from (f"{name}: {line}" for line in disagreements(state, *held))
            if stored.problems and isinstance(state, NotTold) and state.refused:
                continue
            if not isinstance(state, Told):
                yield f"{name} exists, and is told to be {state}"
            elif state.endpoints != (wanted := self.endpoints_of(name)):
                yield f"{name}: {sorted(state.endpoints)} are told, {sorted(wanted)} are right"
            elif content(listener.looked_up(name)) != content(state):
                yield f"{name}: a look-up answers something else than {state}"

    def orphans(self) -> Iterator[str]:
        """Objects of VMServices that are not there, and VMServices that cannot go."""
        uids = {service.meta.uid for service in self.vm_services.values()}
        for kind, held in (("Service", self.services), ("Endpoints", self.endpoints)):
            for name, item in held.items():
                owners = item["metadata"].get("ownerReferences") or ()
                if any(owner["uid"] not in uids for owner in owners):
                    yield f"{kind} {name} is an orphan"
        for name, service in self.vm_services.items():
            if service.meta.deleting:
                yield f"VirtualMachineService {name} waits for {service.meta.finalizers}"


def _by_name(items: Sequence[Object]) -> dict[str, Object]:
    return {f"{i['metadata']['namespace']}/{i['metadata']['name']}": i for i in items}


def within(seconds: float, condition: Callable[[], object], what: str) -> None:
    """Returns once the condition holds; fails, and says `what` it waited for, if it does not."""
    assert awaited(condition, seconds, 0.02), f"not {what} within {seconds:g} s"


def eventually(condition: Callable[[], object], what: str) -> None:
    """`within` a time in which everything should come."""
    within(PATIENCE_S, condition, what)


def kustomized(cluster: Cluster) -> None:
    """Installs deploy/ as kustomize makes it."""
    cluster.kubectl("apply", "--server-side", "--kustomize", str(VARIANT))


@contextmanager
def opened(
    folder: Path,
    find: Callable[[str], Path] = binary,
    install: Callable[[Cluster], None] = kustomized,
) -> Iterator[World]:
    """A cluster with the CRDs and with deploy/, until the block ends; logs go to the folder."""
    policy, audit = folder / "audit.yaml", folder / "audit.log"
    policy.write_text(yaml.safe_dump(_AUDIT))
    flags = [f"--audit-policy-file={policy}", f"--audit-log-path={audit}"]
    with Cluster(folder, flags=flags, find=find) as cluster:
        cluster.install_crds(*FLAVOURS["single-stack"].crds)
        install(cluster)
        with closing(Hands(cluster)) as hands:
            yield World(cluster, folder, hands, audit)


@pytest.fixture(scope="module")
def world(
    find_binary: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A cluster of the module's own: what is done to it is nothing to others."""
    with opened(tmp_path_factory.mktemp("world"), find_binary) as entered:
        yield entered
