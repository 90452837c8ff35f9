"""What the schemas of the CRDs refuse. Beside a real API server: integration/test_schema.py."""

from __future__ import annotations

from typing import Any

import pytest

from vmsvc_grpc.model.objects import GROUP, KNOWN_VERSIONS, Kind
from vmsvc_grpc.model.schema import faults

UNKNOWN, THERE = "is not a field here", ", which is there already"
PORT = {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}


def told(kind: Kind, version: str = "v1alpha6", **parts: Any) -> list[str]:
    whole = {"apiVersion": f"{GROUP}/{version}", "kind": kind.value, "metadata": {"name": "a"}}
    return [f"{f.field}: {f.message}" for f in faults(kind, {**whole, **parts})]


def of_vmservice(version: str = "v1alpha6", **spec: Any) -> list[str]:
    return told(Kind.VIRTUAL_MACHINE_SERVICE, version, spec=spec)


NOT = "must be a whole number or text, not"
TOO_LARGE = f"{2**63}, which is more than {2**63 - 1}"


def of_vm(version: str = "v1alpha6", **spec: Any) -> list[str]:
    return told(Kind.VIRTUAL_MACHINE, version, spec=spec)


@pytest.mark.parametrize("version", KNOWN_VERSIONS)
def test_what_files_may_leave_out_or_spell_otherwise(version: str) -> None:
    assert of_vmservice(version, ports=[{"port": 80}], clusterIP="None", selector=None) == []
    assert of_vmservice(version, ports=[PORT], type="ClusterIP", clusterIp="None") == []


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(
            of_vmservice(ports=[{"port": 80, "targetport": 1}]),
            ["spec.ports[0].targetport: is not a field here; did you mean targetPort?"],
            id="a field in small letters",
        ),
        pytest.param(
            of_vmservice(ports=[{**PORT, "tragetPort": 1}]),
            [f"spec.ports[0].tragetPort: {UNKNOWN}; did you mean targetPort{THERE}?"],
            id="a field beside the one that is meant",
        ),
        pytest.param(
            of_vmservice("v1alpha5", ipFamilies=["IPv4"]),
            ["spec.ipFamilies: is not a field here"],
            id="a field of another version",
        ),
        pytest.param(
            told(Kind.VIRTUAL_MACHINE, metadata={"name": "a", "label": {}}, statuss={}),
            [
                "metadata.label: is not a field here; did you mean labels?",
                "statuss: is not a field here; did you mean status?",
            ],
            id="fields of the object and its metadata",
        ),
        pytest.param(
            told(Kind.VIRTUAL_MACHINE, metadata={"name": "a", "labels": {"a.b/c": 1}}),
            ["metadata.labels.a.b/c: must be text, not 1"],
            id="a label that is a number",
        ),
        pytest.param(
            of_vm(powerState="poweredOn", readinessProbe={"tcpSocket": {}}),
            [
                "spec.powerState: 'poweredOn' is not one of PoweredOff, PoweredOn, Suspended",
                "spec.readinessProbe.tcpSocket.port: is missing; it is required",
            ],
            id="an enumeration, and a required field",
        ),
        pytest.param(
            of_vm(readinessProbe={"tcpSocket": {"port": "ssh"}, "timeoutSeconds": 2.0}),
            [],
            id="a port by name, and a whole number with a point",
        ),
        pytest.param(
            of_vm(readinessProbe={"tcpSocket": {"port": [22]}, "timeoutSeconds": 61}),
            [
                "spec.readinessProbe.tcpSocket.port: must be a whole number or text, not a list",
                "spec.readinessProbe.timeoutSeconds: 61 is more than 60",
            ],
            id="a list for a port, and a number too large",
        ),
        pytest.param(
            of_vm(readinessProbe={"tcpSocket": {"port": 2.5}, "timeoutSeconds": 1e300}),
            [
                "spec.readinessProbe.tcpSocket.port: must be a whole number or text, not 2.5",
                "spec.readinessProbe.timeoutSeconds: must be a whole number, not 1e+300",
            ],
            id="a part of a number for a port, and a number beyond 64 bits",
        ),
        pytest.param(
            of_vm(readinessProbe={"tcpSocket": {"port": 2**63}}),
            [f"spec.readinessProbe.tcpSocket.port: {NOT} {TOO_LARGE}"],
            id="a number too large by one",
        ),
        pytest.param(
            of_vmservice(ports={}, selector=[], externalName=True, ipFamilies="IPv4"),
            [
                "spec.ports: must be a list, not a mapping",
                "spec.selector: must be a mapping, not a list",
                "spec.externalName: must be text, not true",
                "spec.ipFamilies: must be a list, not 'IPv4'",
            ],
            id="wrong types",
        ),
        pytest.param(
            of_vmservice(ports=[None, {"name": "a", "port": 2.5}]),
            [
                "spec.ports[0]: must be a mapping, not null",
                "spec.ports[1].port: must be a whole number, not 2.5",
            ],
            id="null in a list, and part of a port",
        ),
        pytest.param(
            of_vm(network={"interfaces": [{"name": "Eth 0"}, {"name": "a"}, {"name": "a"}]}),
            [
                "spec.network.interfaces[0].name: 'Eth 0' does not have the form ^[a-z0-9]{2,}$",
                "spec.network.interfaces[1].name: 'a' does not have the form ^[a-z0-9]{2,}$",
                "spec.network.interfaces[2].name: 'a' does not have the form ^[a-z0-9]{2,}$",
                "spec.network.interfaces[2]: is the same as spec.network.interfaces[1], by name",
            ],
            id="a pattern, and an item that is there already",
        ),
        pytest.param(
            of_vm(network={"interfaces": [{"name": "ab\n"}]}),
            ["spec.network.interfaces[0].name: 'ab\\n' does not have the form ^[a-z0-9]{2,}$"],
            id="a line end is no end",
        ),
        pytest.param(
            of_vm(bootstrap={"cloudInit": {"cloudConfig": {"runcmd": [{"any": ["thing"]}]}}}),
            [],
            id="what is open",
        ),
        pytest.param(
            told(
                Kind.VIRTUAL_MACHINE,
                status={"zone": 1, "powerState": "on", "conditions": [{"type": "A", "stat": "B"}]},
            ),
            ["status.conditions[0].stat: is not a field here; did you mean status?"],
            id="of the status, fields only",
        ),
        pytest.param(
            told(Kind.VIRTUAL_MACHINE, "v9", spec={"any": "thing"}), [], id="an unknown version"
        ),
    ],
)
def test_faults(found: list[str], expected: list[str]) -> None:
    assert found == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(
            of_vm(biosUUID="x", instanceUUID="12345678123412341234123456789ABC"),
            ["spec.biosUUID: 'x' is not a UUID; write 8-4-4-4-12 hexadecimal digits"],
            id="a UUID",
        ),
        pytest.param(
            told(
                Kind.VIRTUAL_MACHINE,
                metadata={"name": "a", "managedFields": [{"time": "today"}, {"time": None}]},
            ),
            [
                (
                    "metadata.managedFields[0].time: 'today' is not a time; write it as in "
                    "2026-01-31T09:30:00Z"
                )
            ],
            id="a time",
        ),
        pytest.param(
            of_vm(network={"interfaces": [{"name": "eth0", "ipamModes": ["IPv4", "IPv4"]}]}),
            [
                (
                    "spec.network.interfaces[0].ipamModes[1]: is the same as "
                    "spec.network.interfaces[0].ipamModes[0]; remove one"
                )
            ],
            id="the same twice",
        ),
        pytest.param(
            of_vm(
                resources={"size": {"cpu": "100m"}},
                network={"interfaces": [{"name": "eth0", "vmxnet3": {"ctxPerDev": "10"}}]},
                cpuAdvanced={"topology": {"vnumaNodeCount": 2}},
            ),
            [
                (
                    "spec.resources.size.cpu: has the suffix m (milli); use whole numbers, as in "
                    "4 or 2000"
                ),
                "spec.network.interfaces[0]: has vmxnet3, which is only for type VMXNet3",
                (
                    "spec.network.interfaces[0].vmxnet3.ctxPerDev: is none of PerDevice, PerVM, "
                    "PerQueue and the numbers from 1 to 9"
                ),
                (
                    "spec.cpuAdvanced.topology: has vnumaNodeCount; give coresPerSocket, too, and "
                    "not 0"
                ),
            ],
            id="rules that the CRD has in CEL, all at once",
        ),
    ],
)
def test_formats_sets_and_rules(found: list[str], expected: list[str]) -> None:
    """Issue 9, point 15: each of these went unsaid."""
    assert found == expected
