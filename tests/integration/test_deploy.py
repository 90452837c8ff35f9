"""What `deploy/` installs: valid to a real API server, and with the rights it needs and no more."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kube.apiserver import Cluster, KubectlError, User
from tests.kube.plugin import FLAVOURS
from tests.kube.vm_operator import VMOperator
from tests.program import PATIENCE_S, awaited
from vmsvc.options import parse as client_options
from vmsvc_grpc import flags
from vmsvc_grpc.__main__ import parser
from vmsvc_grpc.reconciler.election import lease_name
from vmsvc_grpc.server.limits import Limits

ROOT = Path(__file__).parents[2]
BASE = ROOT / "deploy" / "base"
OVERLAYS = ROOT / "deploy" / "overlays"
VARIANTS = {"base": BASE} | {path.name: path for path in sorted(OVERLAYS.iterdir())}

CERT_MANAGER = ROOT / "tests" / "crds" / "cert-manager.yaml"

OURS = "vmsvc-grpc"
SERVED = "shop"
OTHER = "default"

READ = {
    "virtualmachines.vmoperator.vmware.com": "list watch",
    "virtualmachineservices.vmoperator.vmware.com": "list watch",
    "services": "list watch",
    "endpoints": "list watch",
}
WRITE = {
    "virtualmachineservices.vmoperator.vmware.com": "get patch",
    "virtualmachineservices/status.vmoperator.vmware.com": "patch",
    "virtualmachineservices/finalizers.vmoperator.vmware.com": "update",
    "services": "get create patch delete",
    "endpoints": "get create patch delete",
    "endpointslices.discovery.k8s.io": "get list watch create patch delete",
    "events.events.k8s.io": "create",
}
REVIEW = {
    "tokenreviews.authentication.k8s.io": "create",
    "subjectaccessreviews.authorization.k8s.io": "create",
}
LEAD = {
    "leases.coordination.k8s.io": "create",
    "leases.coordination.k8s.io vmsvc-grpc": "get update",
}
LEAD_ONE = {
    "leases.coordination.k8s.io": "create",
    f"leases.coordination.k8s.io {lease_name([SERVED])}": "get update",
}
ALL = (READ, WRITE, REVIEW)
RIGHTS: dict[str, dict[str, tuple[dict[str, str], ...]]] = {
    "base": {OURS: (*ALL, LEAD), SERVED: ALL, OTHER: ALL},
    "own-secret": {OURS: (*ALL, LEAD), SERVED: ALL, OTHER: ALL},
    "insecure": {OURS: (READ, WRITE, LEAD), SERVED: (READ, WRITE), OTHER: (READ, WRITE)},
    "serve-only": {OURS: (READ, REVIEW), SERVED: (READ, REVIEW), OTHER: (READ, REVIEW)},
    "one-namespace": {OURS: (LEAD_ONE, REVIEW), SERVED: ALL, OTHER: (REVIEW,)},
}

Object = dict[str, Any]
Rights = dict[str, set[str]]


@dataclass(frozen=True)
class Installed:
    """A variant that is on the cluster, and the account that its Pods run as."""

    cluster: Cluster
    variant: str
    manifests: list[Object]
    account: User

    def the(self, kind: str) -> Object:
        """The only object of a kind."""
        (found,) = (m for m in self.manifests if m["kind"] == kind)
        return found

    def namespaced(self, namespace: str, resource: str, name: str = "") -> str:
        api = (
            "/apis/vmoperator.vmware.com/v1alpha6" if resource.startswith("virtual") else "/api/v1"
        )
        return f"{api}/namespaces/{namespace}/{resource}" + (f"/{name}" if name else "")


@pytest.fixture(scope="module")
def cluster(
    find_binary: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """One of its own, as the names are fixed; it asks more of owner references than most."""
    plugins = ["--enable-admission-plugins=OwnerReferencesPermissionEnforcement"]
    folder = tmp_path_factory.mktemp("kube-deploy")
    with Cluster(folder, flags=plugins, find=find_binary) as started:
        started.install_crds(*FLAVOURS["single-stack"].crds, CERT_MANAGER)
        started.kubectl("create", "namespace", SERVED)
        yield started


@pytest.fixture(scope="module", params=VARIANTS)
def installed(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Installed]:
    """Each variant in turn, applied as a person would; its namespace stays."""
    variant: str = request.param
    text = cluster.kubectl("kustomize", str(VARIANTS[variant]))
    manifests: list[Object] = list(yaml.safe_load_all(text))
    namespace, *others = manifests
    assert namespace["kind"] == "Namespace"
    apply = ("apply", "--server-side", "--validate=strict", "-f", "-")
    cluster.kubectl(*apply, stdin=json.dumps(namespace))
    cluster.kubectl(*apply, "--dry-run=server", stdin=text)
    cluster.kubectl(*apply, stdin=text)
    account = cluster.service_account(OURS, "vmsvc-grpc")
    yield Installed(cluster, variant, manifests, account)
    cluster.kubectl("delete", "-f", "-", stdin=yaml.safe_dump_all(others))


def deployment() -> Object:
    manifest: Object = yaml.safe_load((BASE / "deployment.yaml").read_text())
    return manifest


def container() -> Object:
    (only,) = deployment()["spec"]["template"]["spec"]["containers"]
    found: Object = only
    return found


def given_to(found: Object) -> dict[str, Any]:
    """The settings that a container is given."""
    environment = {entry["name"]: entry.get("value", "") for entry in found.get("env", ())}
    assert environment.keys() <= {flag.variable for flag in flags.SERVE}
    return flags.settings(flags.SERVE, parser().parse_args(found["args"]), environment)


def union(*tables: Mapping[str, str]) -> Rights:
    rights: Rights = {}
    for resource, verbs in (row for table in tables for row in table.items()):
        rights.setdefault(resource, set()).update(verbs.split())
    return rights


def rights(cluster: Cluster, user: User, namespace: str) -> Rights:
    """The verbs that a user may use on each resource, as `kubectl auth can-i --list` has them."""
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    response = cluster.request("POST", path, {"spec": {"namespace": namespace}}, user=user)
    assert response.status == 201, response
    status = response.body["status"]
    assert not status["incomplete"]
    return union(
        *(
            {f"{resource}.{group}".rstrip(".") + f" {name}".rstrip(): " ".join(rule["verbs"])}
            for rule in status["resourceRules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for name in rule.get("resourceNames", [""])
        )
    )


def granted(installed: Installed, namespace: str) -> Rights:
    """What the account may do beyond what any account may."""
    anyone = installed.cluster.service_account(OURS, "anyone")
    common = rights(installed.cluster, anyone, namespace)
    found = rights(installed.cluster, installed.account, namespace)
    return {key: verbs for key, verbs in found.items() if verbs != common.get(key)}


def test_base_lists_each_file_and_each_file_holds_one_object() -> None:
    files = {path.name for path in BASE.iterdir()} - {"kustomization.yaml"}
    resources = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    assert set(resources) == files
    for name in files:
        assert len(list(yaml.safe_load_all((BASE / name).read_text()))) == 1, name


def test_every_flag_and_variable_of_a_variant_is_a_setting_with_a_value_that_is_taken(
    installed: Installed,
) -> None:
    (one,) = (m for m in installed.manifests if m["kind"] == "Deployment")
    (only,) = one["spec"]["template"]["spec"]["containers"]
    given = given_to(only)
    insecure = installed.variant == "insecure"
    assert ("insecure" in given) is insecure
    assert ("tls_cert" in given) is not insecure
    schemes = {only[probe]["httpGet"]["scheme"] for probe in ("livenessProbe", "readinessProbe")}
    assert schemes == {"HTTP" if insecure else "HTTPS"}
    assert given["auth"] == ("none" if insecure else "kubernetes")
    assert ("reconcile" in given) is (installed.variant == "serve-only")
    assert ("namespace" in given) is (installed.variant == "one-namespace")


def test_the_image_is_ours_of_this_version_and_its_user() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert container()["image"] == f"{project['name']}:{project['version']}"
    user = re.findall(r"(?m)^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text())[-1]
    context = deployment()["spec"]["template"]["spec"]["securityContext"]
    assert (str(context["runAsUser"]), str(context["runAsGroup"])) == user


def test_the_ports_are_those_that_the_arguments_name() -> None:
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    given = given_to(container())
    outside, inside = given["listen"]
    assert ports == {"grpc": outside.port, "http": given["http_listen"].port}
    # What `kubectl port-forward` reaches, and no other Pod does.
    assert (outside.loopback, inside.loopback) == (False, True)
    probes = [container()[probe]["httpGet"] for probe in ("livenessProbe", "readinessProbe")]
    expected = ({"path": path, "port": "http", "scheme": "HTTPS"} for path in ("/livez", "/readyz"))
    assert probes == list(expected)


def test_certificate_key_and_secret_are_where_the_flags_say(installed: Installed) -> None:
    pod = installed.the("Deployment")["spec"]["template"]["spec"]
    (only,) = pod["containers"]
    if installed.variant == "insecure":
        assert not pod.get("volumes")
        assert not only.get("volumeMounts")
        return
    given = given_to(only)
    (mount,), (volume,) = only["volumeMounts"], pod["volumes"]
    assert mount["name"] == volume["name"]
    assert "subPath" not in mount, "what is mounted so never changes"
    where = Path(mount["mountPath"])
    assert (given["tls_cert"], given["tls_key"]) == (where / "tls.crt", where / "tls.key")
    kinds = {m["kind"] for m in installed.manifests}
    assert ({"Certificate", "Issuer"} <= kinds) is (installed.variant != "own-secret")
    for made in (m for m in installed.manifests if m["kind"] == "Certificate"):
        if not made["spec"].get("isCA"):
            assert made["spec"]["secretName"] == volume["secret"]["secretName"]
            hosts = {
                f"{m['metadata']['name']}.{OURS}.svc"
                for m in installed.manifests
                if m["kind"] == "Service"
            }
            assert hosts <= set(made["spec"]["dnsNames"])


def test_a_caller_with_the_clients_role_may_what_calls_need(installed: Installed) -> None:
    if installed.variant == "insecure":
        return
    kube = installed.cluster
    caller = kube.service_account(SERVED, f"caller-{installed.variant}")
    binding = ("create", "rolebinding", f"callers-{installed.variant}", "-n", SERVED)
    account = f"--serviceaccount={SERVED}:caller-{installed.variant}"
    kube.kubectl(*binding, "--clusterrole=vmsvc-grpc-client", account)
    needed = {
        "endpoints": {"get", "list", "watch"},
        "virtualmachines.vmoperator.vmware.com": {"get"},
    }

    def allowed() -> bool:
        found = rights(kube, caller, SERVED)
        return all(verbs <= found.get(resource, set()) for resource, verbs in needed.items())

    assert awaited(allowed)
    assert "endpoints" not in rights(kube, caller, OTHER)


def test_it_may_drain_before_it_is_killed() -> None:
    given = given_to(container())
    grace_s = deployment()["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s > given["drain_s"] + Limits().stop_grace_s


def test_what_selects_pods_selects_ours() -> None:
    pod = deployment()["spec"]["template"]
    manifests: list[Object] = [yaml.safe_load(path.read_text()) for path in BASE.iterdir()]
    specs: list[Object] = [manifest["spec"] for manifest in manifests if "spec" in manifest]
    specs += pod["spec"]["topologySpreadConstraints"]
    fields = ("selector", "podSelector", "labelSelector")
    selectors = [spec[field] for spec in specs for field in fields if field in spec]
    # The Deployment, two Services, the budget, the NetworkPolicy, and two spread constraints.
    assert len(selectors) == 7
    labels = pod["metadata"]["labels"]
    assert all(s.get("matchLabels", s).items() <= labels.items() for s in selectors)


def test_a_misspelt_field_would_be_refused(installed: Installed) -> None:
    wrong = installed.the("Deployment") | {"spec": {"replica": 2}}
    apply = ("apply", "--server-side", "--validate=strict", "--dry-run=server", "-f", "-")
    with pytest.raises(KubectlError, match="replica"):
        installed.cluster.kubectl(*apply, stdin=json.dumps(wrong))


def test_its_pods_meet_the_restricted_level(installed: Installed) -> None:
    pod = installed.the("Deployment")["spec"]["template"]
    path = installed.namespaced(OURS, "pods") + "?dryRun=All"
    body = {"metadata": {"name": "replica", **pod["metadata"]}, "spec": pod["spec"]}
    response = installed.cluster.request("POST", path, body)
    assert response.status == 201, response
    careless = body | {"spec": pod["spec"] | {"securityContext": {}}}
    response = installed.cluster.request("POST", path, careless)
    assert response.status == 403
    assert "violates PodSecurity" in response.body["message"]


@pytest.mark.parametrize("namespace", [OURS, SERVED, OTHER])
def test_the_account_has_these_rights_and_no_others(installed: Installed, namespace: str) -> None:
    expected = union(*RIGHTS[installed.variant][namespace])
    # The API server learns of rules by a watch of its own.
    awaited(lambda: granted(installed, namespace) == expected)
    assert granted(installed, namespace) == expected


def test_every_right_is_on_what_is_served(cluster: Cluster) -> None:
    def served(group: str) -> dict[str, set[str]]:
        versions = cluster.request("GET", f"/apis/{group}").body["versions"] if group else []
        paths = [f"/apis/{version['groupVersion']}" for version in versions] or ["/api/v1"]
        lists = [cluster.request("GET", path).body["resources"] for path in paths]
        return {row["name"]: set(row["verbs"]) for rows in lists for row in rows}

    for key, verbs in union(READ, WRITE, LEAD, REVIEW).items():
        resource, _, group = key.partition(" ")[0].partition(".")
        # The admission plugin's own, which nothing serves.
        if not resource.endswith("/finalizers"):
            assert verbs <= served(group)[resource], key


def test_the_rights_are_enough_for_a_writer(installed: Installed, tmp_path: Path) -> None:
    """VM Operator's double, as our account, does all that a writer does, or nothing at all."""
    kube = installed.cluster
    services = installed.namespaced(SERVED, "virtualmachineservices")
    body = {
        "apiVersion": "vmoperator.vmware.com/v1alpha6",
        "kind": "VirtualMachineService",
        "metadata": {"name": installed.variant},
        "spec": {
            "type": "ClusterIP",
            "selector": {"app": "web"},
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
        },
    }
    stored = f"{services}/{installed.variant}"
    endpoints = installed.namespaced(SERVED, "endpoints", installed.variant)
    where = SERVED if installed.variant == "one-namespace" else ""
    with VMOperator(kube, tmp_path, user=installed.account, namespace=where) as writer:
        log, wait_until = writer.process.log, writer.process.wait_until
        assert kube.request("POST", services, body).status == 201
        if installed.variant == "serve-only":
            refusal = 'cannot create resource "services"'
            wait_until(lambda: refusal in log.read_text(), "refused", PATIENCE_S)
        else:
            wait_until(lambda: "status" in kube.request("GET", stored).body, "done", PATIENCE_S)
            assert kube.request("GET", endpoints).status == 200
            assert kube.request("DELETE", stored).status == 200
            wait_until(lambda: kube.request("GET", stored).status == 404, "deleted", PATIENCE_S)
            assert kube.request("GET", endpoints).status == 404
            assert "forbidden" not in log.read_text()
    kube.request("DELETE", stored)


def test_the_sidecar_is_valid_and_meets_the_restricted_level(cluster: Cluster) -> None:
    where = "sidecars"
    parts = restricted(cluster, where, built(cluster, "sidecar"))
    (pod,) = (part for part in parts if part["kind"] == "Pod")
    (config,) = (part for part in parts if part["kind"] == "ConfigMap")
    mounts = {m["mountPath"] for c in pod["spec"]["containers"] for m in c.get("volumeMounts", ())}
    named = set(re.findall(r"(?:filename|path): (/etc/[^},\n]+)", "".join(config["data"].values())))
    assert named
    for each in named:
        assert any(each == mount or each.startswith(f"{mount}/") for mount in mounts), each
    for each in (each for each in named if each.startswith("/etc/vmsvc/")):
        assert each.removeprefix("/etc/vmsvc/") in config["data"]


def built(cluster: Cluster, name: str) -> str:
    return cluster.kubectl("kustomize", str(ROOT / "deploy" / name))


def restricted(cluster: Cluster, where: str, manifests: str) -> list[Object]:
    """The manifests, applied in a new namespace of the restricted level; a Pod for a trial only."""
    cluster.kubectl("create", "namespace", where)
    level = "pod-security.kubernetes.io/enforce=restricted"
    cluster.kubectl("label", "namespace", where, level)
    role = (BASE / "client.cluster-role.yaml").read_text()
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=role)
    apply = ("apply", "--server-side", "--validate=strict", "-n", where, "-f", "-")
    parts: list[Object] = list(yaml.safe_load_all(manifests))
    for part in parts:
        dry = ("--dry-run=server",) if part["kind"] == "Pod" else ()
        cluster.kubectl(*apply, *dry, stdin=json.dumps(part))
    return parts


def test_the_client_is_valid_meets_the_restricted_level_and_names_its_own_files(
    cluster: Cluster,
) -> None:
    where = "clients"
    parts = restricted(cluster, where, built(cluster, "client"))
    (pod,) = (part for part in parts if part["kind"] == "Pod")
    (only,) = pod["spec"]["containers"]
    assert only["image"] == container()["image"]
    command, *given = only["command"]
    assert command == "vmsvc"
    environment = {entry["name"]: entry.get("value", where) for entry in only["env"]}
    options = client_options(given, environment, terminal=False)
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in only["volumeMounts"]}
    assert Path(options.cacert) == mounts["ca"] / "ca.crt"
    (token,) = next(v for v in pod["spec"]["volumes"] if v["name"] == "token")["projected"][
        "sources"
    ]
    projected = token["serviceAccountToken"]
    assert Path(options.token_file) == mounts["token"] / projected["path"]
    assert projected["audience"] == "vmsvc-grpc"
    assert (options.tls, options.namespaces) == (True, (where,))


def test_the_load_balancer_is_valid_meets_the_restricted_level_and_fits_together(
    cluster: Cluster, tmp_path: Path
) -> None:
    where = "balancers"
    manifests = built(cluster, "load-balancer")
    found = {part["kind"]: part for part in yaml.safe_load_all(manifests)}
    template = found["Deployment"]["spec"]["template"]
    # The level is enforced on Pods; of a Deployment's, an API server only warns.
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": template["spec"]}
    restricted(cluster, where, f"{manifests}\n---\n{json.dumps(pod)}")
    haproxy, feed = template["spec"]["containers"]
    assert feed["image"] == container()["image"]
    environment = {entry["name"]: entry.get("value", where) for entry in feed["env"]}
    command, *given = (text.replace("$(NAMESPACE)", where) for text in feed["command"])
    assert command == "vmsvc"
    options = client_options(given, environment, terminal=False)
    assert options.feed is not None
    assert options.services == (f"{where}/web",)
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in feed["volumeMounts"]}
    assert Path(options.cacert) == mounts["ca"] / "ca.crt"
    assert Path(options.token_file) == mounts["token"] / "token"
    assert options.feed.state_file is not None
    assert options.feed.state_file.parent == mounts["states"]
    host, port = options.feed.http_listen or ("", 0)
    assert f"http://{host}:{port}/livez" in feed["livenessProbe"]["exec"]["command"][-1]
    config = tmp_path / "haproxy.cfg"
    config.write_text(found["ConfigMap"]["data"]["haproxy.cfg"])
    subprocess.run(["haproxy", "-c", "-f", config], check=True, capture_output=True)
    socket = f"stats socket {options.feed.given['runtime']} "
    assert socket in config.read_text()
    assert "runtime" in {mount["name"] for mount in haproxy["volumeMounts"]}
    [target] = options.feed.given["targets"]
    assert f"backend {target.name}\n" in config.read_text()
