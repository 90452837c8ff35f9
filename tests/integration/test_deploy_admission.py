"""Whose objects the account of `deploy/` may write: its admission policy on a real API server."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kube.apiserver import Cluster, Response, User
from tests.program import awaited

ROOT = Path(__file__).parents[2]
OURS = "vmsvc-grpc"
SHOP = "shop"
MERGE = "application/merge-patch+json"
SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
PORTS = [{"name": "http", "port": 80}]

Object = dict[str, Any]
_names = count()


@dataclass(frozen=True)
class Account:
    """The account that writes, and the administrator who has no bounds."""

    cluster: Cluster
    user: User

    def write(self, method: str, path: str, body: object = None) -> Response:
        return _request(self.cluster, method, path, body, self.user)

    def administer(self, method: str, path: str, body: object = None) -> Response:
        return _request(self.cluster, method, path, body, None)


def _request(cluster: Cluster, method: str, path: str, body: object, user: User | None) -> Response:
    content_type = MERGE if method == "PATCH" else "application/json"
    return cluster.request(method, path, body, user=user, content_type=content_type)


@pytest.fixture(scope="module")
def account(
    find_binary: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Account]:
    """Of a cluster of its own, on which everything in `deploy/` is installed."""
    with Cluster(tmp_path_factory.mktemp("kube-admission"), find=find_binary) as cluster:
        cluster.kubectl("create", "namespace", SHOP)
        variant = ROOT / "deploy" / "overlays" / "own-secret"  # It needs no cert-manager.
        cluster.kubectl("apply", "--server-side", "--kustomize", str(variant))
        entered = Account(cluster, cluster.service_account(OURS, OURS))
        # An API server learns of rules and policies by watches of its own.
        trial = service("trial")
        path = _path(trial) + "?dryRun=All"
        awaited(lambda: "vmsvc-grpc-writer" in str(entered.write("POST", path, trial).body))
        yield entered


def owner(name: str, **fields: Any) -> Object:
    """A reference to the VMService that controls something, unless the fields say otherwise."""
    vmservice = {
        "apiVersion": "vmoperator.vmware.com/v1alpha6",
        "kind": "VirtualMachineService",
        "name": name,
        "uid": "2a7d4c2e-0000-4000-8000-000000000001",
        "controller": True,
    }
    return vmservice | fields


def service(name: str, *owners: Object, **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "ownerReferences": list(owners)},
        "spec": {"ports": PORTS, **spec},
    }


def endpoints(name: str, *owners: Object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": name, "ownerReferences": list(owners)},
        "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": PORTS}],
    }


def endpoint_slice(of: str, *owners: Object, **labels: str) -> Object:
    given = {SERVICE_NAME: of, MANAGED_BY: labels.get("managed_by", OURS)}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{of}-ipv4-0", "labels": given, "ownerReferences": list(owners)},
        "addressType": "IPv4",
        "endpoints": [],
    }


def _path(body: Object, name: str = "") -> str:
    api = "/api/v1" if body["apiVersion"] == "v1" else f"/apis/{body['apiVersion']}"
    plural = {"Service": "services", "Endpoints": "endpoints", "EndpointSlice": "endpointslices"}
    path = f"{api}/namespaces/{SHOP}/{plural[body['kind']]}"
    return f"{path}/{name}" if name else path


Make = Callable[[str], Object]


def _of(make: Callable[..., Object], *changes: Mapping[str, Any], **fields: Any) -> Make:
    """One of a name, with an owner reference of that name for each of the changes."""
    return lambda name: make(name, *(owner(name) | dict(change) for change in changes), **fields)


NOT_CONTROLLING = {"controller": False}
REPLICA_SET = {"apiVersion": "apps/v1", "kind": "ReplicaSet"}
OF_ANOTHER_NAME = {"name": "another"}
OTHER_GROUP = {"apiVersion": "example.com/v1"}
GROUP_AS_PREFIX = {"apiVersion": "vmoperator.vmware.com.example.com/v1"}
OLD_VERSION = {"apiVersion": "vmoperator.vmware.com/v1alpha1"}
OTHER_KIND = {"kind": "VirtualMachine"}

SERVICE, ENDPOINTS, SLICE = _of(service), _of(endpoints), _of(endpoint_slice)
OUR_SERVICE, OUR_ENDPOINTS = _of(service, {}), _of(endpoints, {})
OUR_SLICE = _of(endpoint_slice, {})
SERVES_PODS = {"selector": {"app": "web"}}

NOT_CONTROLLED = "the VirtualMachineService of its name would not control it"
ANOTHERS = "another object controls it, or it has a selector and no owner"
NOT_OURS = "the VirtualMachineService of its name does not control it"
NOT_OUR_SLICE = "no VirtualMachineService controls the slice, or its managed-by label is another's"
LABEL = "the managed-by label of its slices is vmsvc-grpc"
SHAPE = "its Services have no selector, and are of type ClusterIP or LoadBalancer"
EXTERNAL_IPS = "it gives no Service external IPs"
FILLED = "Kubernetes filled these Endpoints from Pods; if nobody needs them, delete them"
API_SERVER = "Service and Endpoints default/kubernetes are the API server's own"


def _refused(response: Response, says: str) -> bool:
    if response.status != 403:
        return False
    text = response.body["message"]
    return "ValidatingAdmissionPolicy 'vmsvc-grpc-writer'" in text and says in text


def _checked(response: Response, says: str, done: int) -> None:
    """What was answered is a refusal that says so; or, where it should say nothing, it is done."""
    assert _refused(response, says) if says else response.status == done, response


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(OUR_SERVICE, "", id="Service of its VMService"),
        pytest.param(OUR_ENDPOINTS, "", id="Endpoints of its VMService"),
        pytest.param(OUR_SLICE, "", id="slice of its VMService"),
        pytest.param(_of(service, OLD_VERSION), "", id="by an older version"),
        pytest.param(_of(service, REPLICA_SET | NOT_CONTROLLING, {}), "", id="of several owners"),
        pytest.param(_of(service, {}, type="LoadBalancer"), "", id="load balancer"),
        pytest.param(_of(service, {}, clusterIP="None"), "", id="headless Service"),
        pytest.param(SERVICE, NOT_CONTROLLED, id="Service of nobody"),
        pytest.param(ENDPOINTS, NOT_CONTROLLED, id="Endpoints of nobody"),
        pytest.param(SLICE, NOT_CONTROLLED, id="slice of nobody"),
        pytest.param(_of(service, NOT_CONTROLLING), NOT_CONTROLLED, id="owned, not controlled"),
        pytest.param(_of(endpoints, OF_ANOTHER_NAME), NOT_CONTROLLED, id="another VMService's"),
        pytest.param(
            _of(endpoint_slice, OF_ANOTHER_NAME), NOT_CONTROLLED, id="another VMService's slice"
        ),
        pytest.param(_of(service, REPLICA_SET), NOT_CONTROLLED, id="a ReplicaSet's"),
        pytest.param(_of(service, OTHER_KIND), NOT_CONTROLLED, id="a VM's"),
        pytest.param(_of(service, OTHER_GROUP), NOT_CONTROLLED, id="of another group"),
        pytest.param(_of(service, GROUP_AS_PREFIX), NOT_CONTROLLED, id="a group that begins alike"),
        pytest.param(_of(service, {}, **SERVES_PODS), SHAPE, id="with a selector"),
        pytest.param(_of(service, {}, type="NodePort"), SHAPE, id="NodePort"),
        pytest.param(
            _of(service, {}, type="ExternalName", externalName="example.com"), SHAPE, id="a name"
        ),
        pytest.param(
            _of(service, {}, externalIPs=["192.0.2.1"]), EXTERNAL_IPS, id="with external IPs"
        ),
        pytest.param(_of(endpoint_slice, {}, managed_by="other"), LABEL, id="slice of another"),
    ],
)
def test_what_it_may_create(account: Account, make: Make, says: str) -> None:
    body = make(f"made-{next(_names)}")
    _checked(account.write("POST", _path(body), body), says, 201)


def test_it_may_not_create_under_a_name_that_is_made_up(account: Account) -> None:
    body = service("", owner("made"))
    body["metadata"] = {**body["metadata"], "name": None, "generateName": "made"}
    _checked(account.write("POST", _path(body), body), NOT_CONTROLLED, 201)


def _adopted(name: str) -> Object:
    return {"metadata": {"ownerReferences": [owner(name)]}}


def _changed(name: str) -> Object:
    return {"metadata": {"annotations": {"changed": name}}}


def _let_go(_: str) -> Object:
    return {"metadata": {"ownerReferences": None}}


def _marked(make: Make, kind: str, **marks: str) -> Make:
    """One with labels or annotations of `endpoints.kubernetes.io/`."""
    given = {f"endpoints.kubernetes.io/{key.replace('_', '-')}": to for key, to in marks.items()}

    def marked(name: str) -> Object:
        body = make(name)
        return body | {"metadata": body["metadata"] | {kind: given}}

    return marked


def _of_pods(*owners: Mapping[str, Any], field: str = "addresses") -> Make:
    """Endpoints with addresses of Pods, with owners as `_of` has them."""
    pod = {"ip": "192.0.2.1", "targetRef": {"kind": "Pod", "name": "web-0"}}
    subsets = [{field: [pod], "ports": PORTS}]
    return lambda name: _of(endpoints, *owners)(name) | {"subsets": subsets}


FILLED_SINCE = {"last_change_trigger_time": "2026-08-01T00:00:00Z"}


def _spec(**fields: Any) -> Make:
    return lambda name: _adopted(name) | {"spec": fields}


@pytest.mark.parametrize(
    ("before", "patch", "says"),
    [
        pytest.param(OUR_SERVICE, _changed, "", id="our Service"),
        pytest.param(OUR_ENDPOINTS, _changed, "", id="our Endpoints"),
        pytest.param(OUR_SLICE, _changed, "", id="our slice"),
        pytest.param(
            _of(service, {"uid": "2a7d4c2e-0000-4000-8000-000000000002"}),
            _adopted,
            "",
            id="a former VMService's",
        ),
        pytest.param(SERVICE, _adopted, "", id="a Service that nobody controls is adopted"),
        pytest.param(ENDPOINTS, _adopted, "", id="Endpoints that nobody controls are adopted"),
        pytest.param(
            _of(service, REPLICA_SET | NOT_CONTROLLING), _adopted, "", id="owned by somebody"
        ),
        pytest.param(
            _of(service, {}, **SERVES_PODS),
            _spec(selector=None),
            "",
            id="a selector is taken off ours",
        ),
        pytest.param(
            _of(service, NOT_CONTROLLING, **SERVES_PODS),
            _spec(selector=None),
            "",
            id="or off one that a VMService owns",
        ),
        pytest.param(
            _of(service, type="ExternalName", externalName="example.com"),
            _spec(type="ClusterIP", externalName=None),
            "",
            id="an external name is adopted, and is none then",
        ),
        pytest.param(
            _of(service, {}, externalIPs=["192.0.2.1"]), _changed, "", id="external IPs stay"
        ),
        pytest.param(SERVICE, _changed, NOT_CONTROLLED, id="a Service that nobody controls"),
        pytest.param(ENDPOINTS, _changed, NOT_CONTROLLED, id="Endpoints that nobody controls"),
        pytest.param(OUR_SERVICE, _let_go, NOT_CONTROLLED, id="ours is let go of"),
        pytest.param(
            _of(service, REPLICA_SET), _adopted, ANOTHERS, id="a ReplicaSet's Service is taken"
        ),
        pytest.param(
            _of(service, OF_ANOTHER_NAME), _adopted, ANOTHERS, id="another VMService's is taken"
        ),
        pytest.param(
            _of(endpoints, REPLICA_SET), _adopted, ANOTHERS, id="a ReplicaSet's Endpoints are taken"
        ),
        pytest.param(
            _of(service, **SERVES_PODS), _spec(selector=None), ANOTHERS, id="one that serves Pods"
        ),
        pytest.param(
            _marked(ENDPOINTS, "labels", managed_by="endpoint-controller"),
            _adopted,
            FILLED,
            id="Endpoints that Kubernetes manages",
        ),
        pytest.param(
            _marked(ENDPOINTS, "annotations", **FILLED_SINCE),
            _adopted,
            FILLED,
            id="Endpoints that Kubernetes before 1.33 manages",
        ),
        pytest.param(_of_pods(), _adopted, FILLED, id="Endpoints of Pods"),
        pytest.param(
            _of_pods(field="notReadyAddresses"), _adopted, FILLED, id="of Pods that are not ready"
        ),
        pytest.param(
            _of_pods(NOT_CONTROLLING), _adopted, FILLED, id="of Pods, and a VMService owns them"
        ),
        pytest.param(
            _marked(_of_pods({}), "labels", managed_by="endpoint-controller"),
            _adopted,
            "",
            id="ours that Kubernetes filled while a selector was there",
        ),
        pytest.param(
            lambda name: endpoints(name) | {"subsets": []}, _adopted, "", id="of nobody, and empty"
        ),
        pytest.param(SLICE, _adopted, NOT_OUR_SLICE, id="a slice of nobody is taken"),
        pytest.param(
            _of(endpoint_slice, {}, managed_by="other"),
            lambda _: {"metadata": {"labels": {MANAGED_BY: OURS}}},
            NOT_OUR_SLICE,
            id="a slice of another is relabelled",
        ),
        pytest.param(
            OUR_SLICE,
            lambda _: {"metadata": {"labels": {SERVICE_NAME: "another"}}},
            NOT_CONTROLLED,
            id="our slice is given to another service",
        ),
        pytest.param(OUR_SERVICE, _spec(**SERVES_PODS), SHAPE, id="ours is given a selector"),
        pytest.param(
            OUR_SERVICE, _spec(externalIPs=["192.0.2.1"]), EXTERNAL_IPS, id="ours, external IPs"
        ),
    ],
)
def test_what_it_may_update(account: Account, before: Make, patch: Make, says: str) -> None:
    name = f"held-{next(_names)}"
    held = before(name)
    made = account.administer("POST", _path(held), held)
    assert made.status == 201, made
    path = _path(held, made.body["metadata"]["name"])
    _checked(account.write("PATCH", path, patch(name)), says, 200)


@pytest.mark.parametrize("kind", ["services", "endpoints"])
def test_the_api_servers_own_service_is_not_adopted(account: Account, kind: str) -> None:
    plural = f"/api/v1/namespaces/default/{kind}"
    path = f"{plural}/kubernetes"
    if kind == "endpoints":  # An API server that listens on loopback has none.
        held = endpoints("kubernetes")
        awaited(lambda: account.administer("POST", plural, held).status in (201, 409))
    _checked(account.write("PATCH", path, _adopted("kubernetes")), API_SERVER, 200)


@pytest.mark.parametrize(
    "make", [OUR_SERVICE, OUR_ENDPOINTS, OUR_SLICE], ids=["Service", "Endpoints", "slice"]
)
def test_nor_is_anything_made_for_it(account: Account, make: Make) -> None:
    body = make("kubernetes")
    path = _path(body).replace(f"/{SHOP}/", "/default/")
    _checked(account.write("POST", path, body), API_SERVER, 201)


def test_the_name_is_as_any_other_in_another_namespace(account: Account) -> None:
    body = OUR_SERVICE("kubernetes")
    _checked(account.write("POST", _path(body), body), "", 201)


@pytest.mark.parametrize(
    ("before", "says"),
    [
        pytest.param(OUR_SERVICE, "", id="our Service"),
        pytest.param(OUR_ENDPOINTS, "", id="our Endpoints"),
        pytest.param(OUR_SLICE, "", id="our slice"),
        pytest.param(_of(service, {}, **SERVES_PODS), "", id="ours, that was given a selector"),
        pytest.param(SERVICE, NOT_OURS, id="a Service of nobody"),
        pytest.param(ENDPOINTS, NOT_OURS, id="Endpoints of nobody"),
        pytest.param(SLICE, NOT_OUR_SLICE, id="a slice of nobody"),
        pytest.param(_of(service, NOT_CONTROLLING), NOT_OURS, id="owned, not controlled"),
        pytest.param(_of(service, OF_ANOTHER_NAME), NOT_OURS, id="another VMService's"),
        pytest.param(_of(endpoints, REPLICA_SET), NOT_OURS, id="a ReplicaSet's"),
        pytest.param(
            _of(endpoint_slice, {}, managed_by="other"), NOT_OUR_SLICE, id="a slice of another"
        ),
    ],
)
def test_what_it_may_delete(account: Account, before: Make, says: str) -> None:
    held = before(f"held-{next(_names)}")
    made = account.administer("POST", _path(held), held)
    assert made.status == 201, made
    path = _path(held, made.body["metadata"]["name"])
    _checked(account.write("DELETE", path), says, 200)
    gone = account.administer("GET", path).status == 404
    assert gone is not bool(says)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(_of(service, {}, type="LoadBalancer"), "", id="ours"),
        pytest.param(_of(service, type="LoadBalancer"), NOT_CONTROLLED, id="of nobody"),
    ],
)
def test_a_status_is_held_as_its_service_is(account: Account, make: Make, says: str) -> None:
    """By whoever gave the account a right to it."""
    rule = {"apiGroups": [""], "resources": ["services/status"], "verbs": ["patch"]}
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    role = {"metadata": {"name": "statuses"}, "rules": [rule]}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "statuses"}
    subject = {"kind": "ServiceAccount", "name": OURS, "namespace": OURS}
    binding = {"metadata": {"name": "statuses"}, "roleRef": reference, "subjects": [subject]}
    account.administer("POST", f"{rbac}/clusterroles", role)
    account.administer("POST", f"{rbac}/clusterrolebindings", binding)
    name = f"held-{next(_names)}"
    held = make(name)
    assert account.administer("POST", _path(held), held).status == 201
    path = f"{_path(held, name)}/status"
    body = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}

    def answered() -> Response | None:
        response = account.write("PATCH", path, body)
        unbound = response.status == 403 and "cannot patch" in response.body["message"]
        return None if unbound else response

    answer = awaited(answered)
    assert answer is not None
    _checked(answer, says, 200)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(OUR_SERVICE, "", id="ours"),
        pytest.param(SERVICE, NOT_CONTROLLED, id="of nobody"),
    ],
)
def test_a_server_side_apply_that_creates_is_a_creation(
    account: Account, make: Make, says: str
) -> None:
    name = f"applied-{next(_names)}"
    path = f"{_path(make(name), name)}?fieldManager=test"
    response = account.cluster.request(
        "PATCH", path, make(name), user=account.user, content_type="application/apply-patch+yaml"
    )
    _checked(response, says, 201)


def test_an_object_with_many_owners_is_judged(account: Account) -> None:
    """What is looked through is bounded; 500 cost an API server a tenth of a second in any case."""
    name = f"held-{next(_names)}"
    many = [owner(f"another-{n}", controller=False) for n in range(500)]
    body = service(name, *many, owner(name))
    assert account.administer("POST", _path(body), body).status == 201
    _checked(account.write("PATCH", _path(body, name), _changed(name)), "", 200)


def test_kubernetes_finds_nothing_wrong_with_its_expressions(account: Account) -> None:
    """Its controller holds them against the schemas of all kinds that they are for."""
    account.cluster.start_controllers("validatingadmissionpolicy-status-controller")
    policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"

    def checked() -> Object | None:
        body = account.administer("GET", f"{policies}/vmsvc-grpc-writer").body
        status: Object = body.get("status", {})
        return status if "typeChecking" in status else None

    status = awaited(checked)
    assert status is not None
    assert status["typeChecking"] == {}


def test_in_another_namespace_the_account_is_named_as_the_readme_says(
    account: Account, tmp_path: Path
) -> None:
    """What the README has between `namespace:` and the end of its block, word for word."""
    text = (ROOT / "deploy" / "README.md").read_text()
    snippet = text[text.index("namespace: virtual-machines") :].partition("```")[0]
    base = tmp_path / "base"
    shutil.copytree(ROOT / "deploy" / "base", base)
    (tmp_path / "kustomization.yaml").write_text(f"resources: [base]\n{snippet}")
    built = account.cluster.kubectl("kustomize", str(tmp_path))
    (policy,) = (
        manifest
        for manifest in yaml.safe_load_all(built)
        if manifest["kind"] == "ValidatingAdmissionPolicy"
    )
    (condition,) = policy["spec"]["matchConditions"]
    name = f"system:serviceaccount:virtual-machines:{OURS}"
    assert condition["expression"] == f'request.userInfo.username == "{name}"'
    subjects = [
        subject["namespace"]
        for manifest in yaml.safe_load_all(built)
        for subject in manifest.get("subjects", ())
    ]
    assert set(subjects) == {"virtual-machines"}


def test_others_are_not_held(account: Account) -> None:
    """The policy is for one account: another with the same rights writes what it likes."""
    other = account.cluster.service_account(SHOP, OURS)
    binding = {
        "metadata": {"name": "other-writer"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "vmsvc-grpc-writer",
        },
        "subjects": [{"kind": "ServiceAccount", "name": OURS, "namespace": SHOP}],
    }
    path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    assert account.administer("POST", path, binding).status == 201
    trial = service("others", **SERVES_PODS)

    def made() -> bool:
        response = account.cluster.request("POST", _path(trial) + "?dryRun=All", trial, user=other)
        return response.status == 201

    awaited(made)
