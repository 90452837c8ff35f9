"""What a person sees and does in a cluster where the real program runs, and what it writes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.cluster import (
    Hands,
    Replica,
    World,
    churn,
    eventually,
    path,
    vm,
    vm_service,
    vm_status,
    world,
)

__all__ = ["world"]


@pytest.fixture(scope="module")
def replica(world: World) -> Iterator[Replica]:
    """The process that runs in most tests here."""
    with world.replica() as running:
        yield running


@pytest.fixture
def namespace(world: World) -> str:
    return world.cluster.create_namespace("objects")


def make_vm(hands: Hands, namespace: str, name: str, address: str, app: str = "web") -> None:
    made = hands.create("virtualmachines", vm(namespace, name, {"app": app}))
    assert made.status == 201, made
    report(hands, namespace, name, address)


def report(hands: Hands, namespace: str, name: str, address: str) -> None:
    where = path("virtualmachines", namespace, name)
    assert hands.patch(f"{where}/status", vm_status(address)).status == 200


def make_service(hands: Hands, namespace: str, name: str = "web") -> None:
    made = hands.create("virtualmachineservices", vm_service(namespace, name, {"app": name}))
    assert made.status == 201, made


def held(hands: Hands, namespace: str, name: str = "web") -> set[str]:
    """The ready addresses in a stored Endpoints."""
    stored = hands.ask("GET", path("endpoints", namespace, name)).body
    subsets = stored.get("subsets") or ()
    return {a["ip"] for subset in subsets for a in subset.get("addresses") or ()}


def test_200_changes_at_once_are_few_writes(world: World, replica: Replica, namespace: str) -> None:
    """LESSONS: a burst of VM changes writes the object once a change."""
    for number in range(10):
        make_vm(world.hands, namespace, f"vm-{number}", f"10.9.0.{number + 1}")
    make_service(world.hands, namespace)
    world.agrees(replica)
    start = world.mark()
    for change in range(200):
        report(world.hands, namespace, f"vm-{change % 10}", f"10.9.{change + 1}.1")
    world.agrees(replica)
    assert held(world.hands, namespace) == {f"10.9.{change + 1}.1" for change in range(190, 200)}
    log = world.log(start)
    began = min(w.at for w in log if w.resource == "virtualmachines")
    ended = max(w.at for w in log if w.resource == "virtualmachines")
    wrote = [w for w in log if w.resource == "endpoints"]
    # A service rests for a second after a write.
    assert len(wrote) <= 2 + (ended - began).total_seconds(), wrote
    assert {w.name for w in wrote} == {f"{namespace}/web"}


def test_nothing_is_written_at_rest(world: World, replica: Replica) -> None:
    """Not even by what happens to others: another service's changes pass through meanwhile."""
    site, other = world.site(), world.site()
    with churn(site):
        eventually(lambda: len(replica.listener.told()) > 4, "told")
    world.agrees(replica)
    before, start = world.versions(site.namespace), world.mark()
    with churn(other):
        seen = replica.listener.messages
        eventually(lambda: replica.listener.messages > seen + 100, "told of others")
    # A change that none of its services shows is no reason to write, either.
    where = path("virtualmachines", site.namespace, "steady-0")
    world.hands.patch(where, {"metadata": {"annotations": {"a": "b"}}})
    world.agrees(replica)
    assert world.versions(site.namespace) == before
    wrote = {w.name for w in world.writes(start)}
    assert not [name for name in wrote if name.startswith(f"{site.namespace}/")]


def test_a_vm_of_a_mebibyte(world: World, replica: Replica, namespace: str) -> None:
    """LESSONS: a long event line breaks `readline()`."""
    make_service(world.hands, namespace)
    make_vm(world.hands, namespace, "small", "10.9.0.1")
    big = vm(namespace, "big", {"app": "web"})
    big["spec"]["volumes"] = [
        {"name": f"volume-{n}", "persistentVolumeClaim": {"claimName": f"{n:04}" + "x" * 200}}
        for n in range(4000)
    ]
    assert world.hands.create("virtualmachines", big).status == 201
    report(world.hands, namespace, "big", "10.9.0.2")
    eventually(lambda: held(world.hands, namespace) == {"10.9.0.1", "10.9.0.2"}, "held")
    world.agrees(replica)
    stored = world.hands.ask("GET", path("virtualmachines", namespace, "big")).body
    assert len(str(stored)) > 1024 * 1024


def test_an_object_that_does_not_parse(world: World, replica: Replica, namespace: str) -> None:
    """linkerd2 #14176: the others are served, and what was known of it stays until it is right."""
    make_service(world.hands, namespace)
    for number in (1, 2):
        make_vm(world.hands, namespace, f"vm-{number}", f"10.9.0.{number}")
    eventually(lambda: held(world.hands, namespace) == {"10.9.0.1", "10.9.0.2"}, "held")
    good = world.hands.ask("GET", path("virtualmachines", namespace, "vm-1")).body
    key = f"/registry/vmoperator.vmware.com/virtualmachines/{namespace}/vm-1"
    # A schema that was less strict once may have let it in; this one would not.
    bad = good | {"status": {"network": {"primaryIP4": 7}}}
    world.cluster.etcd.put(key, bad)
    eventually(lambda: f"VirtualMachine {namespace}/vm-1: status" in replica.program.said(), "told")
    report(world.hands, namespace, "vm-2", "10.9.0.3")
    eventually(lambda: held(world.hands, namespace) == {"10.9.0.1", "10.9.0.3"}, "held")
    world.cluster.etcd.put(key, good)
    report(world.hands, namespace, "vm-1", "10.9.0.4")
    world.agrees(replica)
    assert held(world.hands, namespace) == {"10.9.0.4", "10.9.0.3"}


def test_what_kubectl_shows(world: World, replica: Replica, namespace: str) -> None:
    """The same of all objects, and what a person needs to know about one that is refused."""
    kubectl = world.cluster.kubectl
    make_vm(world.hands, namespace, "vm-1", "10.9.0.1")
    make_service(world.hands, namespace)
    bad = vm_service(namespace, "bad", {"app": "web"}, type="NodePort")
    assert world.hands.create("virtualmachineservices", bad).status == 201
    eventually(lambda: held(world.hands, namespace) == {"10.9.0.1"}, "held")
    shown = kubectl("get", "vmservice,svc,ep", "-n", namespace)
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line}
    assert rows["virtualmachineservice.vmoperator.vmware.com/web"][1] == "ClusterIP"
    assert rows["service/web"][1] == "ClusterIP"
    assert rows["service/web"][4] == "80/TCP"
    assert rows["endpoints/web"][1] == "10.9.0.1:8080"
    assert "service/bad" not in rows
    assert "endpoints/bad" not in rows

    def described(what: str) -> str:
        return kubectl("describe", what, "-n", namespace)

    eventually(lambda: "CreateK8sServiceSuccess" in described("vmservice/web"), "an event")
    eventually(lambda: "Warning" in described("vmservice/bad"), "a warning")
    text = described("vmservice/bad")
    assert "VirtualMachineServiceAccepted" in text
    assert text.count("NodePort is not supported") >= 2, "the condition and the event say why"
    assert "TargetPort:               8080" in described("svc/web").replace("/TCP", "")


def test_a_look_from_a_laptop_says_what_it_reads_and_writes_nothing(
    world: World, replica: Replica, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a flag the kubeconfig of the shell is used, as kubectl does; it writes not at all."""
    user = world.account()
    file = world.kubeconfig(user)
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    start = world.mark()
    with world.looking(user) as laptop:
        assert f"reading from kubeconfig {file}" in laptop.program.said()
        whole = f"from kubeconfig {file}, context test, only reading"
        eventually(lambda: whole in laptop.program.said(), "told which context that is")
        make_vm(world.hands, namespace, "vm-1", "10.9.0.1")
        make_service(world.hands, namespace)
        world.agrees(replica, laptop)
        assert world.writes(start)
        assert [w for w in world.writes(start) if w.by == laptop.token_id] == []
