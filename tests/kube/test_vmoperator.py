"""The double of VM Operator holds what VM Operator would, writes no more than that, and rests."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.kube.apiserver import Cluster
from tests.kube.plugin import StartVMOperator
from tests.kube.vm_operator import VMOperator, Write

API = "/apis/vmoperator.vmware.com/v1alpha6"
SELECTOR = {"app": "shop"}
PORTS = [
    {"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080},
    {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 5353},
]
ENDPOINT_PORTS = [
    {"name": "dns", "port": 5353, "protocol": "UDP"},
    {"name": "http", "port": 8080, "protocol": "TCP"},
]
PROBE = {"tcpSocket": {"port": 22}}
TIMEOUT_S = 30

Object = dict[str, Any]


class Bench:
    """A namespace in which a double works, and what a test does and sees there."""

    def __init__(self, kube: Cluster, start: StartVMOperator) -> None:
        self.kube = kube
        self.namespace = kube.create_namespace()
        self.double: VMOperator = start(kube, namespace=self.namespace)
        self._barriers = 0

    def path(self, resource: str, name: str = "") -> str:
        api = API if resource.startswith("virtual") else "/api/v1"
        return f"{api}/namespaces/{self.namespace}/{resource}" + (f"/{name}" if name else "")

    def create(self, resource: str, body: Object) -> Object:
        response = self.kube.request("POST", self.path(resource), body)
        assert response.status == 201, response
        created: Object = response.body
        return created

    def patch(self, resource: str, name: str, body: Object, subresource: str = "") -> Object:
        path = self.path(resource, name) + subresource
        merge = "application/merge-patch+json"
        response = self.kube.request("PATCH", path, body, content_type=merge)
        assert response.status == 200, response
        patched: Object = response.body
        return patched

    def delete(self, resource: str, name: str) -> None:
        assert self.kube.request("DELETE", self.path(resource, name)).status == 200

    def get(self, resource: str, name: str = "shop") -> Object | None:
        """The object, or None where there is none."""
        response = self.kube.request("GET", self.path(resource, name))
        assert response.status in (200, 404), response
        return response.body if response.status == 200 else None

    def gone(self, resource: str, name: str) -> bool:
        return self.get(resource, name) is None

    def vm(self, name: str, ip: str, **options: Any) -> str:
        """Creates a VM with a status; returns its uid."""
        conditions = options.pop("conditions", [])
        body = {
            "apiVersion": "vmoperator.vmware.com/v1alpha6",
            "kind": "VirtualMachine",
            "metadata": {"name": name, "labels": options.pop("labels", SELECTOR)},
            "spec": {"className": "small", "imageName": "vmi-0a0044d7c690bcbea", **options},
        }
        uid = self.create("virtualmachines", body)["metadata"]["uid"]
        status = {"network": {"primaryIP4": ip}, "conditions": conditions}
        self.patch("virtualmachines", name, {"status": status}, "/status")
        return str(uid)

    def vm_service(self, name: str = "shop", **spec: Any) -> Object:
        body = {
            "apiVersion": "vmoperator.vmware.com/v1alpha6",
            "kind": "VirtualMachineService",
            "metadata": {"name": name, "labels": {"team": "blue"}, "annotations": {"note": "n"}},
            "spec": {"type": "ClusterIP", "selector": SELECTOR, "ports": PORTS, **spec},
        }
        return self.create("virtualmachineservices", body)

    def wait_until(self, true: Callable[[], object], what: str) -> None:
        self.double.process.wait_until(lambda: bool(true()), what, TIMEOUT_S)

    def subsets(self) -> Any:
        """What the stored Endpoints hold, ports in the order of their names."""
        stored = self.get("endpoints")
        subsets = (stored or {}).get("subsets", [])
        for subset in subsets:
            subset["ports"].sort(key=lambda port: port["name"])
        return subsets

    def wait_for(self, ready: list[Object], not_ready: list[Object]) -> None:
        """Returns once the Endpoints hold one subset of these, or none if both are empty."""
        both = {"addresses": ready, "notReadyAddresses": not_ready}
        subset = {key: value for key, value in both.items() if value} | {"ports": ENDPOINT_PORTS}
        expected = [subset] if ready or not_ready else []
        self.wait_until(lambda: self.subsets() == expected, f"holding {expected}")

    def address(self, ip: str, name: str, uid: str) -> Object:
        """An address of Endpoints as VM Operator writes it."""
        reference = {"kind": "VirtualMachine", "namespace": self.namespace, "name": name}
        version = {"apiVersion": "vmoperator.vmware.com/v1alpha6"}
        return {"ip": ip, "targetRef": {**reference, "uid": uid, **version}}

    def settle(self) -> None:
        """Returns once all that was seen so far is worked off: keys are taken one by one."""
        self._barriers += 1
        name = f"barrier-{self._barriers}"
        self.vm_service(name, selector={"app": name})
        self.wait_until(
            lambda: (self.get("virtualmachineservices", name) or {}).get("status"), f"done: {name}"
        )

    def writes(self) -> Counter[tuple[str, str]]:
        """The resources and verbs of the writes for the VMService of the test."""
        counted = self.double.writes().items()
        return Counter({(w.resource, w.verb): n for w, n in counted if w.name == "shop"})


@pytest.fixture
def bench(kube: Cluster, start_vm_operator: StartVMOperator) -> Bench:
    return Bench(kube, start_vm_operator)


def test_it_holds_service_endpoints_and_status_and_then_rests(bench: Bench) -> None:
    unready = {"type": "Ready", "status": "False", "reason": "Probe", "message": ""}
    unready["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    plain = bench.vm("plain", "10.20.0.11", conditions=[unready])
    failing = bench.vm("failing", "10.20.0.12", readinessProbe=PROBE, conditions=[unready])
    unprobed = bench.vm("unprobed", "10.20.0.9", readinessProbe=PROBE)
    bench.vm("other", "10.20.0.14", labels={"app": "other"})
    bench.vm("no-address", "")
    owner = bench.vm_service()

    bench.wait_for(
        [bench.address("10.20.0.11", "plain", plain)],
        [
            bench.address("10.20.0.12", "failing", failing),
            bench.address("10.20.0.9", "unprobed", unprobed),
        ],
    )
    service, endpoints = bench.get("services"), bench.get("endpoints")
    assert service is not None
    assert endpoints is not None
    assert "selector" not in service["spec"]
    assert [{k: v for k, v in p.items() if k != "nodePort"} for p in service["spec"]["ports"]] == [
        PORTS[0],
        PORTS[1],
    ]
    for child in (service, endpoints):
        assert child["metadata"]["labels"] == {"team": "blue"}
        assert child["metadata"]["annotations"] == {"note": "n"}
        assert child["metadata"]["ownerReferences"] == [
            {
                "apiVersion": "vmoperator.vmware.com/v1alpha6",
                "kind": "VirtualMachineService",
                "name": "shop",
                "uid": owner["metadata"]["uid"],
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
    bench.settle()
    stored = bench.get("virtualmachineservices")
    assert stored is not None
    assert stored["metadata"]["finalizers"] == ["vmoperator.vmware.com/virtualmachineservice"]
    (condition,) = stored["status"]["conditions"]
    assert condition["type"] == "VirtualMachineServiceServiceReady"
    assert (condition["status"], condition["reason"]) == ("Unknown", "ServiceReadyNotPresent")

    before = bench.writes()
    assert before["services", "create"] == before["endpoints", "create"] == 1
    bench.patch("virtualmachines", "plain", {"metadata": {"annotations": {"seen": "often"}}})
    bench.settle()
    bench.double.stop()
    rested = [bench.get(r) for r in ("services", "endpoints", "virtualmachineservices")]
    bench.double.start()
    bench.settle()
    assert bench.writes() == Counter()
    assert [bench.get(r) for r in ("services", "endpoints", "virtualmachineservices")] == rested


def test_readiness_without_a_result_is_what_it_was(bench: Bench) -> None:
    uid = bench.vm("web", "10.20.0.11")
    bench.vm_service()
    web = bench.address("10.20.0.11", "web", uid)
    bench.wait_for([web], [])
    bench.patch("virtualmachines", "web", {"spec": {"readinessProbe": PROBE}})
    late = bench.vm("late", "10.20.0.12", readinessProbe=PROBE)
    bench.wait_for([web], [bench.address("10.20.0.12", "late", late)])
    bench.patch("virtualmachines", "late", {"metadata": {"labels": {"app": "gone"}}})
    bench.wait_for([web], [])
    bench.delete("virtualmachines", "web")
    bench.wait_for([], [])
    assert bench.get("endpoints") is not None


def test_drift_is_put_right(bench: Bench) -> None:
    uid = bench.vm("web", "10.20.0.11")
    bench.vm_service()
    web = bench.address("10.20.0.11", "web", uid)
    bench.wait_for([web], [])
    bench.patch("endpoints", "shop", {"subsets": None, "metadata": {"labels": {"mine": "yes"}}})
    bench.wait_for([web], [])
    bench.delete("endpoints", "shop")
    bench.wait_for([web], [])
    bench.delete("services", "shop")
    bench.wait_until(lambda: bench.get("services"), "creating the Service again")
    bench.patch("services", "shop", {"metadata": {"labels": {"theirs": "stays"}}})

    def labels() -> Any:
        return (bench.get("endpoints") or {}).get("metadata", {}).get("labels")

    bench.wait_until(lambda: labels() == {"team": "blue", "theirs": "stays"}, "copying labels")


def test_a_load_balancer_is_reported(bench: Bench) -> None:
    bench.vm_service(type="LoadBalancer", loadBalancerSourceRanges=["10.0.0.0/8"])
    bench.wait_until(lambda: bench.get("services"), "creating the Service")
    ready = {"type": "Ready", "status": "True", "reason": "Any", "message": "well"}
    ready["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    ingress = {"ip": "192.0.2.1", "ipMode": "VIP"}
    status = {"loadBalancer": {"ingress": [ingress]}, "conditions": [ready]}
    service = bench.patch("services", "shop", {"status": status}, "/status")
    assert service["spec"]["allocateLoadBalancerNodePorts"] is False
    assert service["spec"]["externalTrafficPolicy"] == "Cluster"
    assert service["spec"]["loadBalancerSourceRanges"] == ["10.0.0.0/8"]

    def told() -> Any:
        status = (bench.get("virtualmachineservices") or {}).get("status", {})
        conditions = [(c["status"], c["reason"], c["message"]) for c in status["conditions"]]
        return status.get("loadBalancer"), conditions

    bench.wait_until(
        lambda: told() == ({"ingress": [{"ip": "192.0.2.1"}]}, [("True", "True", "")]),
        "reporting the load balancer",
    )


def test_what_is_deleted_leaves_nothing_but_what_is_anothers(bench: Bench) -> None:
    bench.vm("web", "10.20.0.11")
    bench.vm_service()
    other = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "them", "controller": True}
    metadata = {"name": "theirs", "ownerReferences": [{**other, "uid": "1"}]}
    bench.create("services", {"metadata": metadata, "spec": {"ports": [{"port": 8}]}})
    theirs = bench.get("services", "theirs")
    bench.vm_service("theirs")
    bench.wait_until(lambda: "is controlled by" in bench.double.process.log.read_text(), "refusing")
    bench.wait_until(lambda: bench.get("endpoints"), "holding Endpoints")
    bench.settle()
    for name in ("shop", "theirs"):
        bench.delete("virtualmachineservices", name)
    for name in ("shop", "theirs"):
        gone = partial(bench.gone, "virtualmachineservices", name)
        bench.wait_until(gone, f"letting {name} go")
    assert [bench.get(r) for r in ("services", "endpoints")] == [None, None]
    assert bench.get("services", "theirs") == theirs
    assert bench.get("endpoints", "theirs") is None
    written = bench.double.writes()
    assert written[Write("services", bench.namespace, "shop", "delete")] == 1
    assert written[Write("services", bench.namespace, "theirs", "delete")] == 0
