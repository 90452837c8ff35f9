"""`vmsvc-grpc check` on a real API server: it names what is missing, and no more."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.certificates import Authority, Pair
from tests.kube.apiserver import Cluster, Response, User
from tests.program import awaited, serving
from vmsvc_grpc.__main__ import main

BASE = Path(__file__).parents[2] / "deploy" / "base"
ROLES = ("reader.cluster-role", "writer.cluster-role", "reviewer.cluster-role", "leader.role")
RBAC = "/apis/rbac.authorization.k8s.io/v1"

Object = dict[str, Any]


class Taken(NamedTuple):
    """A right of a role that is taken away: a verb on the resource of one of its rules."""

    role: str
    rule: int
    resource: str
    verb: str


def role(name: str) -> Object:
    found: Object = yaml.safe_load((BASE / f"{name}.yaml").read_text())
    return found


def every_right() -> Iterator[Taken]:
    for name in ROLES:
        for number, rule in enumerate(role(name)["rules"]):
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    yield Taken(name, number, resource, verb)


def rules(name: str, taken: Taken | None) -> list[Object]:
    """The rules of a role without what is taken: each resource in a rule of its own."""
    found = []
    for number, rule in enumerate(role(name)["rules"]):
        for resource in rule["resources"]:
            left = [v for v in rule["verbs"] if Taken(name, number, resource, v) != taken]
            if left:
                found.append({**rule, "resources": [resource], "verbs": left})
    return found


@dataclass
class Desk:
    """An account whose rights a test chooses, and what `check` says of it."""

    cluster: Cluster
    namespace: str
    account: User
    kubeconfig: Path
    pair: Pair
    capsys: pytest.CaptureFixture[str]

    def grant(self, taken: Taken | None = None) -> None:
        """All rights of deploy/base, but for one."""
        for name in ROLES:
            kind = "ClusterRole" if name.endswith("cluster-role") else "Role"
            scope = "" if kind == "ClusterRole" else f"/namespaces/{self.namespace}"
            ours = f"{self.namespace}-{name}"
            meta = {"name": ours}
            made: Object = {"metadata": meta, "rules": rules(name, taken)}
            self._put(f"{RBAC}{scope}/{kind.lower()}s", made)
            user = {"kind": "User", "name": self.account.name}
            bound = {
                "metadata": meta,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": ours},
                "subjects": [{**user, "apiGroup": "rbac.authorization.k8s.io"}],
            }
            self._put(f"{RBAC}{scope}/{kind.lower()}bindings", bound)

    def _put(self, where: str, manifest: Object) -> None:
        answer: Response = self.cluster.request("POST", where, manifest)
        if answer.status == 409:
            name = manifest["metadata"]["name"]
            answer = self.cluster.request("PUT", f"{where}/{name}", manifest)
        assert answer.status in (200, 201), answer

    def check(self, *arguments: str) -> tuple[int, Object]:
        """The status, and the report, with these flags beside those that ask for everything."""
        self.capsys.readouterr()
        code = main(
            [
                *("check", "-o", "json", "--kubeconfig", str(self.kubeconfig)),
                *("--reconcile=on", "--lease-namespace", self.namespace, "--auth=kubernetes"),
                *("--tls-cert", str(self.pair.certificate), "--tls-key", str(self.pair.key)),
                *("--listen=tls://127.0.0.1:0", "--http-listen=127.0.0.1:0", *arguments),
            ]
        )
        report: Object = json.loads(self.capsys.readouterr().out)
        assert report["ok"] is (code == 0)
        return code, report


def flaws(report: Object) -> list[Object]:
    return [each for each in report["checks"] if each["status"] in ("failed", "warning")]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Authority(tmp_path_factory.mktemp("check")).issue(days=30)


@pytest.fixture
def desk(kube: Cluster, tmp_path: Path, pair: Pair, capsys: pytest.CaptureFixture[str]) -> Desk:
    namespace = kube.create_namespace("check")
    account = kube.service_account(namespace, "vmsvc-grpc")
    kubeconfig = kube.kubeconfig(tmp_path / "kubeconfig", user=account)
    return Desk(kube, namespace, account, kubeconfig, pair, capsys)


def test_with_the_rights_of_deploy_nothing_is_missing(desk: Desk) -> None:
    desk.grant()
    # The API server's own memory of rights may be a moment older.
    code, report = (
        awaited(lambda: found if not (found := desk.check())[0] else None) or desk.check()
    )
    assert (code, flaws(report)) == (0, [])
    texts = [each["message"] for each in report["checks"]]
    assert any(f"as {desk.account.name}" in text for text in texts)
    assert f"Lease {desk.namespace}/vmsvc-grpc is not there yet, and can be created" in texts
    assert any("s apart" in text for text in texts)


def test_each_right_of_deploy_that_is_taken_away_is_named_and_nothing_else(desk: Desk) -> None:
    """One account for all of them, as making one takes longer than asking."""
    for taken in every_right():
        desk.grant(taken)
        said = awaited(lambda: flaws(desk.check()[1]))
        while len(said) > 1:  # The one before may not be known yet to have been given back.
            said = awaited(lambda: flaws(desk.check()[1]))
        [flaw] = said
        assert flaw["message"].startswith(f"may not {taken.verb} {taken.resource.split('/')[0]}")
        assert taken.resource.partition("/")[2] in flaw["message"]
        assert f'the verb "{taken.verb}" on "{taken.resource}"' in flaw["advice"]
        assert f"deploy/base/{taken.role}.yaml" in flaw["advice"]
        lenient = taken.resource in ("events", "virtualmachineservices/finalizers")
        assert (flaw["status"] == "warning") is lenient


def test_what_is_not_asked_for_is_not_checked(desk: Desk) -> None:
    """Only reading, and only one namespace, takes rights there alone."""
    code = main(
        [
            *("check", "-o", "json", "--kubeconfig", str(desk.kubeconfig), "--namespace", "shop"),
            *("--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0"),
        ]
    )
    report = json.loads(desk.capsys.readouterr().out)
    assert code == 1
    missing = [each["message"] for each in flaws(report)]
    assert len(missing) == 8
    assert all(text.endswith(" in namespace shop, to read") for text in missing)


def test_a_lease_in_no_namespace_and_one_that_is_held(desk: Desk) -> None:
    admin = desk.cluster.kubeconfig(desk.kubeconfig, user=desk.cluster.admin)
    assert admin == desk.kubeconfig
    _, report = desk.check("--lease-namespace", "nowhere")
    [flaw] = flaws(report)
    assert (flaw["name"], flaw["status"]) == ("lease", "failed")
    assert flaw["advice"].startswith("create namespace nowhere")
    where = f"/apis/coordination.k8s.io/v1/namespaces/{desk.namespace}/leases"
    lease = {"metadata": {"name": "vmsvc-grpc"}, "spec": {"holderIdentity": "pod-1"}}
    assert desk.cluster.request("POST", where, lease).status == 201
    _, report = desk.check()
    assert flaws(report) == []
    [held] = [each for each in report["checks"] if each["name"] == "lease"]
    assert "is held by pod-1" in held["message"]


def test_without_crds(start_cluster: Callable[..., Cluster], desk: Desk, tmp_path: Path) -> None:
    bare = start_cluster()
    bare.kubeconfig(desk.kubeconfig)
    code, report = desk.check("--lease-namespace", "default")
    assert code == 1
    named = {each["name"]: each for each in flaws(report)}
    assert set(named) == {"crd-VirtualMachine", "crd-VirtualMachineService"}
    for flaw in named.values():
        assert "is not installed" in flaw["message"]
        assert "install VM Operator" in flaw["advice"]
    bare.server.stop()
    code, report = desk.check("--lease-namespace", "default")
    assert code == 1
    [flaw] = flaws(report)
    assert flaw["name"] == "api-server"
    assert "cannot connect" in flaw["message"]
    skipped = [each["name"] for each in report["checks"] if each["status"] == "skipped"]
    assert skipped == ["clock", "crds", "rights", "lease"]


def test_a_token_that_is_refused(desk: Desk) -> None:
    desk.cluster.kubeconfig(desk.kubeconfig, user=User("nobody"))
    code, report = desk.check()
    assert code == 1
    [flaw] = flaws(report)
    assert flaw["message"].startswith("the API server: 401 ")
    assert "log in again" in flaw["advice"]


# -- This machine, from manifests --


def checked(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vmsvc_grpc", "check", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PYTHONIOENCODING": "utf-8"},
    )


def on(ports: Sequence[str | Path] = ("--listen=127.0.0.1:0",)) -> list[str | Path]:
    return ["--http-listen=127.0.0.1:0", *ports]


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    made = tmp_path / "manifests"
    (made / "deep" / "er").mkdir(parents=True)
    return made


def test_a_person_reads_marks_and_advice(manifests: Path, pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"--listen=127.0.0.1:{other.getsockname()[1]}"
        done = checked("--manifests", manifests, *on((taken,)))
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "this machine"
    assert any(line.startswith("\N{MULTIPLICATION SIGN} --listen") for line in lines)
    assert any(line.startswith("    choose another by --listen, or end") for line in lines)
    assert "√ changes of 3 directories are noticed at once (inotify)" in lines
    assert lines[-1].endswith("checks: 1 failed")


def test_a_port_that_serve_has_is_as_it_should_be(manifests: Path, tmp_path: Path) -> None:
    with serving(["--manifests", manifests], tmp_path / "log") as program:
        listen = f"--listen={program.grpc}"
        done = checked("--manifests", manifests, listen, f"--http-listen={program.http}")
    assert done.returncode == 0
    assert f"has a vmsvc-grpc already (process {program.process.pid})" in done.stdout


@pytest.mark.parametrize(
    ("days", "code", "says"),
    [
        pytest.param(-1, 1, "expired at", id="expired"),
        pytest.param(2, 0, "renew it", id="soon"),
        pytest.param(30, 0, "is valid until", id="good"),
    ],
)
def test_a_certificate(days: int, code: int, says: str, manifests: Path, tmp_path: Path) -> None:
    files = Authority(tmp_path / "ca").issue(days=days)
    tls = ("--tls-cert", files.certificate, "--tls-key", files.key)
    done = checked("--manifests", manifests, *on(("--listen=tls://127.0.0.1:0", *tls)))
    assert done.returncode == code, done.stdout
    assert says in done.stdout
    assert "changes of 1 directory are noticed at once (inotify)" in done.stdout


def test_a_policy_that_cannot_be_used(manifests: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    files, policy = authority.issue(days=30), tmp_path / "policy.yaml"
    policy.write_text("rules: [{verb: get}]")
    tls = ("--tls-cert", files.certificate, "--tls-key", files.key)
    access = ("--auth=certificates", "--client-ca", authority.certificate)
    listen = ("--listen=tls://127.0.0.1:0", *tls, *access, "--auth-policy", policy)
    done = checked("--manifests", manifests, *on(listen))
    assert done.returncode == 1
    assert f"--auth-policy {policy}, line 1" in done.stdout


def test_few_open_files_and_a_terminal_without_marks(manifests: Path) -> None:
    command = ["sh", "-c", 'ulimit -n 600; exec "$0" "$@"', sys.executable, "-m", "vmsvc_grpc"]
    done = subprocess.run(
        [*command, "check", "--manifests", str(manifests), *map(str, on())],
        capture_output=True,
        timeout=60,
        check=False,
        env={"PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0
    assert b"!!  at most 600 open files allow" in done.stdout


@pytest.mark.parametrize(
    "arguments", [["-o", "yaml"], ["--listen=x"], ["--manifests=/none"], ["--no-such-flag"]]
)
def test_a_wrong_flag_is_one_line(arguments: list[str]) -> None:
    done = checked(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
