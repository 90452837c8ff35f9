"""deploy/chart, rendered: it says the same as kustomize, and refuses values that mean nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.charts import (
    CHART,
    DEPLOY,
    MONITORING,
    NAMESPACE,
    RELEASE,
    VALUES,
    VARIANTS,
    Object,
    as_read,
    by_id,
    without_helms_labels,
)
from tests.integration.test_deploy import given_to
from tests.kube.charts import Helm, HelmError
from tests.monitoring.promtool import DASHBOARD, alerts, asked, rules
from vmsvc.kubectl import LABEL
from vmsvc_grpc.reconciler.election import lease_name

SCHEMA: Object = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS: Object = yaml.safe_load((CHART / "values.yaml").read_text())
FOUND_BY = dict([LABEL.split("=")])


@pytest.fixture(scope="module")
def helm(find_binary: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(tmp_path_factory.mktemp("helm"), find=find_binary)


@pytest.fixture(scope="module")
def kubectl(find_binary: Callable[[str], Path]) -> Path:
    return find_binary("kubectl")


def rendered(
    helm: Helm, release: str = RELEASE, namespace: str = NAMESPACE, **values: Any
) -> list[Object]:
    return helm.rendered(CHART, values, release=release, namespace=namespace)


def one(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = (o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name))
    return found


def container(objects: list[Object]) -> Object:
    (deployment,) = (o for o in objects if o["kind"] == "Deployment")
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    found: Object = only
    return found


def test_each_variant_of_kustomize_has_values_that_stand_for_it() -> None:
    assert VALUES.keys() == VARIANTS.keys()


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_makes_the_objects_that_kustomize_makes(helm: Helm, kubectl: Path, variant: str) -> None:
    """One truth in two places, compared object by object. Helm makes the namespace itself."""
    assert_same(rendered(helm, **VALUES[variant]), kustomized(kubectl, VARIANTS[variant]))


def test_it_makes_what_the_component_for_monitoring_makes(
    helm: Helm, kubectl: Path, tmp_path: Path
) -> None:
    way = os.path.relpath(DEPLOY, tmp_path)
    (tmp_path / "kustomization.yaml").write_text(
        f"resources: [{way}/base]\ncomponents: [{way}/monitoring]\n"
    )
    assert_same(rendered(helm, **MONITORING), kustomized(kubectl, tmp_path))


def kustomized(kubectl: Path, folder: Path) -> list[Object]:
    command = [str(kubectl), "kustomize", str(folder)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return list(yaml.safe_load_all(text))


def assert_same(objects: list[Object], as_by_kustomize: list[Object]) -> None:
    expected = by_id(o for o in as_by_kustomize if o["kind"] != "Namespace")
    found = by_id(map(without_helms_labels, objects))
    assert found.keys() == expected.keys()
    for where, made in expected.items():
        assert as_read(found[where]) == as_read(made), where


@pytest.mark.parametrize("variant", VARIANTS)
def test_helm_finds_nothing_to_complain_of(helm: Helm, variant: str) -> None:
    monitored = MONITORING if variant in ("base", "serve-only", "one-namespace") else {}
    values = VALUES[variant] | monitored
    assert "0 chart(s) failed" in helm.run("lint", "--strict", CHART, values=values)


def test_its_versions_are_the_programs() -> None:
    project = tomllib.loads((CHART.parents[1] / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["name"], chart["version"]) == (project["name"], project["version"])
    assert chart["appVersion"] == project["version"]


def properties(schema: Object, defaults: Any, path: str = "") -> list[str]:
    """Where schema and defaults do not name the same values."""
    if not isinstance(defaults, dict) or "properties" not in schema:
        return []
    known = schema["properties"]
    wrong = [f"{path}{name}" for name in known.keys() ^ defaults.keys()]
    for name in known.keys() & defaults.keys():
        # An empty object's fields are told of in a comment.
        wrong += properties(known[name], defaults[name] or None, f"{path}{name}.")
    return wrong


def test_the_schema_knows_each_value_and_each_value_has_a_default() -> None:
    # What Helm itself adds for charts within charts.
    assert properties(SCHEMA, DEFAULTS) == ["global"]


def test_every_value_changes_something(helm: Helm) -> None:
    """A value that nothing reads would be a promise that nobody keeps."""
    samples: dict[str, Any] = {
        "image": {"repository": "registry.example/vmsvc-grpc"},
        "imagePullSecrets": [{"name": "pull"}],
        "replicas": 3,
        "namespaces": ["shop"],
        "reconcile": False,
        "endpointSlices": "direct",
        "tls": {"from": "secret"},
        "auth": "none",
        "insecure": True,
        "listenHost": "[::]",
        "clusterDomain": "example.org",
        "log": {"format": "text"},
        "extraArgs": ["--drain-s=20"],
        "resources": {"limits": {"memory": "2Gi"}},
        "service": {"type": "LoadBalancer"},
        "networkPolicy": {"enabled": False},
        "admissionPolicy": {"enabled": False},
        "monitoring": {"rules": {"enabled": True}},
        "podAnnotations": {"example.com/a": "b"},
        "podLabels": {"team": "a"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    }
    assert samples.keys() == DEFAULTS.keys()
    before = rendered(helm)
    for name, value in samples.items():
        if name == "insecure":
            continue  # It permits what changes something, and does nothing by itself.
        permitted: Object = {"insecure": True} if name == "auth" else {}
        assert rendered(helm, **{name: value}, **permitted) != before, name


@pytest.mark.parametrize(
    ("values", "about"),
    [
        pytest.param({"replica": 3}, "replica", id="a misspelt value"),
        pytest.param({"tls": {"form": "secret"}}, "form", id="a misspelt value within"),
        pytest.param({"replicas": "2"}, "replicas", id="text for a number"),
        pytest.param({"replicas": -1}, "replicas", id="fewer than none"),
        pytest.param({"tls": {"from": "vault"}}, "from", id="a certificate from elsewhere"),
        pytest.param({"auth": "certificates"}, "auth", id="what needs no API server"),
        pytest.param({"namespaces": ["Shop"]}, "namespaces", id="no name of a namespace"),
        pytest.param({"namespaces": ["a", "a"]}, "namespaces", id="a namespace twice"),
        pytest.param({"namespaces": "shop"}, "namespaces", id="a text for a list"),
        pytest.param({"extraArgs": ["drain-s=3"]}, "extraArgs", id="an argument, not a flag"),
        pytest.param({"listenHost": "10.0.0.1"}, "listenHost", id="one Pod's address"),
        pytest.param(
            {"tls": {"issuer": {"kind": "ClusterIssuer"}}}, "issuer", id="an issuer without a name"
        ),
        pytest.param(
            {"podLabels": {"app.kubernetes.io/name": "other"}},
            "podLabels",
            id="the selector's label",
        ),
        pytest.param({"podLabels": FOUND_BY}, "podLabels", id="the label of kubectl vmsvc"),
        pytest.param({"image": {"digest": "abc"}}, "digest", id="no digest"),
        pytest.param({"networkPolicy": {"from": []}}, "from", id="from nobody, which is everybody"),
        pytest.param({"monitoring": {"enabled": True}}, "enabled", id="all of monitoring at once"),
        pytest.param(
            {"monitoring": {"podMonitor": {"interval": "30"}}}, "interval", id="30 of no unit"
        ),
        pytest.param(
            {"monitoring": {"podMonitor": {"tokenSecret": {"name": "a"}}}},
            "key",
            id="all of a Secret",
        ),
        pytest.param(
            {"monitoring": {"podMonitor": {"ca": {"file": "a"}}}}, "ca", id="a CA that is a file"
        ),
        pytest.param(
            {"monitoring": {"rules": {"runbookUrl": "docs/runbook.md"}}},
            "runbookUrl",
            id="a link to nowhere",
        ),
        pytest.param(
            {"monitoring": {"dashboard": {"labels": {"grafana_dashboard": 1}}}},
            "grafana_dashboard",
            id="a number for a label",
        ),
        pytest.param({"tls": {"from": "none"}}, "insecure=true", id="no TLS, unmeant"),
        pytest.param({"auth": "none"}, "insecure=true", id="no question who asks, unmeant"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(helm: Helm, values: Object, about: str) -> None:
    with pytest.raises(HelmError) as refused:
        rendered(helm, **values)
    assert about in str(refused.value)


@pytest.mark.parametrize("tls", ["cert-manager", "secret", "none"])
@pytest.mark.parametrize("auth", ["kubernetes", "none"])
def test_the_program_takes_what_it_is_given(helm: Helm, tls: str, auth: str) -> None:
    values: Object = {
        "tls": {"from": tls},
        "auth": auth,
        "insecure": tls == "none" or auth == "none",
        "namespaces": ["shop", "data"],
        "reconcile": False,
        "endpointSlices": "direct",
        "clusterDomain": "example.org",
        "listenHost": "[::]",
        "log": {"format": "text", "level": "debug"},
        "extraArgs": ["--drain-s=20", "--deny-annotations=external-dns.alpha.kubernetes.io/*"],
    }
    only = container(rendered(helm, **values))
    given = given_to(only)
    assert given["auth"] == auth
    assert ("tls_cert" in given) is (tls != "none")
    assert given["namespace"] == ("data", "shop")
    assert (given["drain_s"], given["reconcile"]) == (20.0, False)
    assert (given["log_format"], given["log_level"]) == ("text", "DEBUG")
    outside, *inside = given["listen"]
    assert not outside.loopback
    assert all(address.loopback for address in inside)
    # What `kubectl port-forward` reaches without a token, where others need one or TLS.
    assert len(inside) == (tls != "none" or auth != "none")
    scheme = "HTTP" if tls == "none" else "HTTPS"
    assert {only[p]["httpGet"]["scheme"] for p in ("livenessProbe", "readinessProbe")} == {scheme}


@pytest.mark.parametrize(
    "namespaces", [["shop"], ["shop", "data"], [f"tenant-{n}" for n in range(60)]], ids=len
)
def test_the_account_may_hold_the_lease_that_the_program_holds(
    helm: Helm, namespaces: list[str]
) -> None:
    for release in (RELEASE, "edge"):
        objects = rendered(helm, release=release, namespaces=namespaces)
        (role,) = (o for o in objects if o["metadata"]["name"].endswith("-leader") and "rules" in o)
        assert role["rules"][1]["resourceNames"] == [lease_name(namespaces)]
        for name in namespaces:
            mine = [o for o in objects if o["metadata"].get("namespace") == name]
            assert len([o for o in mine if o["kind"] == "Role"]) == 2
            assert len([o for o in mine if o["kind"] == "RoleBinding"]) == 2


def test_another_release_shares_no_name_with_the_first_and_no_pod(helm: Helm) -> None:
    here, there = rendered(helm), rendered(helm, "edge", "edge")
    assert not by_id(here).keys() & by_id(there).keys()
    name = "edge-vmsvc-grpc"
    label = {"app.kubernetes.io/name": name}
    deployment = one(there, "Deployment", name)["spec"]
    assert deployment["selector"]["matchLabels"] == label
    assert deployment["template"]["metadata"]["labels"] == {**label, **FOUND_BY}
    text = json.dumps(there)
    assert f"system:serviceaccount:edge:{name}" in text
    # The Lease is called after what it is for, and not after the release.
    assert one(there, "Role", f"{name}-leader")["rules"][1]["resourceNames"] == [RELEASE]
    volumes = deployment["template"]["spec"]["volumes"]
    assert volumes[0]["secret"]["secretName"] == f"{name}-tls"
    certificate = one(there, "Certificate", name)["spec"]
    assert f"{name}-headless.edge.svc.cluster.local" in certificate["dnsNames"]


def test_what_kubernetes_lets_nobody_change_depends_on_no_value_and_no_version(
    helm: Helm,
) -> None:
    """An upgrade that changes a Deployment's selector or a binding's role is refused."""

    def fixed(objects: list[Object]) -> dict[Any, Any]:
        return {
            where: o.get("roleRef") or o["spec"].get("selector")
            for where, o in by_id(objects).items()
            if "roleRef" in o or o["kind"] in ("Deployment", "PodDisruptionBudget")
        }

    before = fixed(rendered(helm))
    for values in (*VALUES.values(), {"podLabels": {"a": "b"}}, {"image": {"tag": "9"}}):
        after = fixed(rendered(helm, **values))
        both = before.keys() & after.keys()
        assert [before[w] for w in both] == [after[w] for w in both]


def notes_of(helm: Helm, values: Object) -> str:
    install = ("install", "edge", CHART, "--namespace", "vms", "--dry-run=client")
    return helm.run(*install, values=values).partition("NOTES:")[2]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_notes_lead_to_a_look_up_in_each_variant(helm: Helm, variant: str) -> None:
    values = VALUES[variant]
    notes = notes_of(helm, values)
    objects = rendered(helm, "edge", "vms", **values)
    forwarded = re.findall(r"kubectl -n vms port-forward deployment/(\S+) 50051:(\d+)", notes)
    ((name, port),) = forwarded
    assert one(objects, "Deployment", name)
    # Whoever comes by kubectl has no certificate to show, and no token.
    (plain,) = (a for a in given_to(container(objects))["listen"] if str(a).endswith(f":{port}"))
    assert plain.loopback is (variant != "insecure")
    for role in re.findall(r"--clusterrole=(\S+)", notes):
        assert one(objects, "ClusterRole", role)
    assert ("--clusterrole" in notes) is (variant != "insecure")
    assert ("INSECURE" in notes) is (variant == "insecure")
    assert ("create secret tls edge-vmsvc-grpc-tls" in notes) is (variant == "own-secret")
    assert ("vmsvc-grpc release" in notes) is (variant != "serve-only")


def test_an_issuer_of_ones_own_takes_the_place_of_ours(helm: Helm) -> None:
    issuer = {"kind": "ClusterIssuer", "name": "company"}
    objects = rendered(helm, tls={"issuer": issuer, "dnsNames": ["vms.example.com"]})
    assert not [o for o in objects if o["kind"] == "Issuer"]
    (certificate,) = (o for o in objects if o["kind"] == "Certificate")
    assert certificate["spec"]["issuerRef"] == issuer | {"group": "cert-manager.io"}
    assert "vms.example.com" in certificate["spec"]["dnsNames"]


def test_a_digest_counts_before_a_tag(helm: Helm) -> None:
    digest = f"sha256:{'0' * 64}"
    image = {"repository": "registry.example/a", "tag": "1.2", "digest": digest}
    assert container(rendered(helm, image=image))["image"] == f"registry.example/a@{digest}"
    assert container(rendered(helm, image={"tag": "1.2"}))["image"] == "vmsvc-grpc:1.2"


# -- Monitoring --


def monitored(helm: Helm, release: str = "edge", **values: Any) -> list[Object]:
    return rendered(helm, release, "vms", **MONITORING | values)


def scrape_of(objects: list[Object]) -> Object:
    (monitor,) = (o for o in objects if o["kind"] == "PodMonitor")
    (found,) = monitor["spec"]["podMetricsEndpoints"]
    scrape: Object = found
    return scrape


def test_prometheus_finds_the_pods_of_the_release_and_may_scrape_them(helm: Helm) -> None:
    objects = monitored(helm)
    name = "edge-vmsvc-grpc"
    monitor = one(objects, "PodMonitor", name)["spec"]
    labels = one(objects, "Deployment", name)["spec"]["template"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert labels[monitor["jobLabel"]] == name
    scrape, program = scrape_of(objects), container(objects)
    assert scrape["port"] in {port["name"] for port in program["ports"]}
    assert (
        scrape["tlsConfig"]["serverName"] in one(objects, "Certificate", name)["spec"]["dnsNames"]
    )
    shown = one(objects, "Certificate", f"{name}-metrics")["spec"]
    assert {scrape["tlsConfig"][part]["secret"]["name"] for part in ("ca", "cert")} == {
        shown["secretName"]
    }
    assert one(objects, "Issuer", shown["issuerRef"]["name"])
    assert given_to(program)["client_ca"] == Path("/etc/vmsvc-grpc/tls/ca.crt")
    binding = one(objects, "ClusterRoleBinding", f"{name}-metrics")
    assert [who["name"] for who in binding["subjects"]] == [shown["commonName"]]
    assert one(objects, "ClusterRole", binding["roleRef"]["name"])["rules"] == [
        {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}
    ]


OWN_ISSUER: Object = {"tls": {"issuer": {"kind": "ClusterIssuer", "name": "company"}}}
TOKEN = {"name": "scraper", "key": "token"}


@pytest.mark.parametrize(
    ("values", "ca"),
    [
        pytest.param({}, {"secret": {"name": "edge-vmsvc-grpc-tls", "key": "ca.crt"}}, id="our CA"),
        pytest.param(OWN_ISSUER, None, id="an issuer of one's own"),
        pytest.param(VALUES["own-secret"], None, id="a Secret of one's own"),
    ],
)
def test_a_token_takes_the_place_of_the_certificate(helm: Helm, values: Object, ca: Any) -> None:
    """And nobody's certificate is believed: that CA may have given others one."""
    told = {"podMonitor": {"enabled": True, "tokenSecret": TOKEN}}
    objects = monitored(helm, **values, monitoring=told)
    scrape = scrape_of(objects)
    assert scrape["authorization"] == {"credentials": TOKEN}
    name = "edge-vmsvc-grpc"
    tls = {"serverName": f"{name}.vms.svc"} | ({"ca": ca} if ca else {})
    assert scrape["tlsConfig"] == tls
    assert "client_ca" not in given_to(container(objects))
    own = {o["kind"] for o in objects if o["metadata"]["name"] == f"{name}-metrics"}
    assert own == {"ClusterRole"}
    trusted = {"configMap": {"name": "company", "key": "ca.crt"}}
    told["podMonitor"]["ca"] = trusted
    assert scrape_of(monitored(helm, **values, monitoring=told))["tlsConfig"]["ca"] == trusted


def test_the_notes_say_how_the_account_of_a_token_may_scrape(helm: Helm) -> None:
    told: Object = {"monitoring": {"podMonitor": {"enabled": True, "tokenSecret": TOKEN}}}
    (role,) = re.findall(r"-scraper --clusterrole=(\S+)", notes_of(helm, told))
    assert one(monitored(helm, **told), "ClusterRole", role)
    assert "clusterrolebinding" not in notes_of(helm, MONITORING)


@pytest.mark.parametrize("values", [OWN_ISSUER, VALUES["own-secret"]], ids=["issuer", "secret"])
def test_a_scrape_that_would_be_refused_is_not_made(helm: Helm, values: Object) -> None:
    with pytest.raises(HelmError, match="tokenSecret"):
        monitored(helm, **values)


def test_where_nobody_is_asked_prometheus_shows_nothing(helm: Helm) -> None:
    for values in (VALUES["insecure"], {"auth": "none", "insecure": True}):
        objects = monitored(helm, **values)
        scrape = scrape_of(objects)
        assert "authorization" not in scrape
        if "tls" in values:
            assert scrape["scheme"] == "http"
            assert "tlsConfig" not in scrape
        else:
            assert scrape["tlsConfig"].keys() == {"serverName", "ca"}
        assert not [o for o in objects if o["metadata"]["name"].endswith("-metrics")]
        assert "client_ca" not in given_to(container(objects))


def test_alerts_are_about_the_release_alone_and_prometheus_takes_them(
    helm: Helm, tmp_path: Path
) -> None:
    """Else they are those of the component, which tests/integration/test_monitoring.py has fire."""
    objects = monitored(helm)
    (found,) = (o["spec"] for o in objects if o["kind"] == "PrometheusRule")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(found))
    said = asked("check", "rules", "--lint=all", "--lint-fatal", tmp_path / "rules.yaml")
    assert said[0] == 0, said[1]
    text = json.dumps(found)
    assert 'job=\\"vmsvc-grpc\\"' not in text
    assert as_read(json.loads(text.replace('job=\\"edge-vmsvc-grpc', 'job=\\"vmsvc-grpc'))) == (
        as_read(rules())
    )
    for name, alert in alerts().items():
        selectors = re.findall(r"\{[^}]*\}", alert["expr"])
        assert [s for s in selectors if not s.startswith('{job="vmsvc-grpc"')] == [], name
        bare = re.sub(r"\{[^}]*\}", "{}", alert["expr"])
        assert re.findall(r"\b(?:up|(?:vmsvc|grpc|leader)_\w+)\b(?!\{)", bare) == [], name


def test_alerts_link_to_where_the_runbook_is(helm: Helm) -> None:
    url = "https://wiki.example/vms"
    objects = monitored(helm, monitoring={"rules": {"enabled": True, "runbookUrl": url}})
    (found,) = (o["spec"] for o in objects if o["kind"] == "PrometheusRule")
    links = [rule["annotations"]["runbook_url"] for g in found["groups"] for rule in g["rules"]]
    assert links == [f"{url}#{name.lower()}" for name in alerts()]


def test_each_release_has_a_dashboard_of_its_own(helm: Helm) -> None:
    """Grafana knows one by its uid, and its sidecar writes each into a file of the key's name."""
    long = "the-release-of-the-team-at-the-edge-of-it"
    for release, uid in ((RELEASE, RELEASE), ("edge", "edge-vmsvc-grpc"), (long, long[:40])):
        objects = monitored(helm, release)
        (found,) = (o for o in objects if o["kind"] == "ConfigMap")
        (name,) = (o["metadata"]["name"] for o in objects if o["kind"] == "Deployment")
        ((file, text),) = found["data"].items()
        dashboard = json.loads(text)
        assert (file, dashboard["title"], dashboard["uid"]) == (f"{name}.json", name, uid)
        assert dashboard["tags"] == ["vmsvc-grpc"]
        (job,) = (v for v in dashboard["templating"]["list"] if v["name"] == "job")
        assert job["current"] == {"text": name, "value": name}
        dashboard["title"] = dashboard["uid"] = RELEASE
        job["current"] = {"text": RELEASE, "value": RELEASE}
        assert dashboard == json.loads(DASHBOARD.read_text())


@pytest.mark.parametrize("part", ["podMonitor", "rules", "dashboard"])
def test_each_part_is_made_by_itself_with_the_labels_that_it_is_looked_for_by(
    helm: Helm, part: str
) -> None:
    kinds = {"podMonitor": "PodMonitor", "rules": "PrometheusRule", "dashboard": "ConfigMap"}
    labels = {"release": "prometheus"}
    told: Object = {"enabled": True, "labels": labels}
    if part != "podMonitor":
        told["namespace"] = "monitoring"
    if part == "dashboard":
        told["annotations"] = {"grafana_folder": "VMs"}
    objects = monitored(helm, monitoring={part: told})
    (found,) = (o for o in objects if o["kind"] in kinds.values())
    assert found["kind"] == kinds[part]
    assert labels.items() <= found["metadata"]["labels"].items()
    assert found["metadata"]["namespace"] == told.get("namespace", "vms")
    assert found["metadata"].get("annotations") == told.get("annotations")


def test_nobody_is_watched_unasked(helm: Helm) -> None:
    kinds = {o["kind"] for o in rendered(helm)}
    assert not kinds & {"PodMonitor", "PrometheusRule", "ConfigMap"}
