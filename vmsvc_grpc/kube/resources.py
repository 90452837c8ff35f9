"""Where an API server keeps objects of each kind, and in which version it serves them."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

from vmsvc_grpc.kube.client import ApiServer
from vmsvc_grpc.kube.errors import ApiServerError
from vmsvc_grpc.model.decoding import decoder
from vmsvc_grpc.model.objects import GROUP, KNOWN_VERSIONS, MANAGED_BY, MANAGED_BY_LABEL, Kind

_RESOURCES = {
    Kind.VIRTUAL_MACHINE: "virtualmachines",
    Kind.VIRTUAL_MACHINE_SERVICE: "virtualmachineservices",
    Kind.SERVICE: "services",
    Kind.ENDPOINTS: "endpoints",
    Kind.ENDPOINT_SLICE: "endpointslices",
}

_GROUPS = {Kind.SERVICE: "", Kind.ENDPOINTS: "", Kind.ENDPOINT_SLICE: "discovery.k8s.io"}

VERSIONS = dict.fromkeys(_GROUPS, "v1")
"""The version of each kind that every API server serves in one version alone."""

LABEL_SELECTORS = {Kind.ENDPOINT_SLICE: f"{MANAGED_BY_LABEL}={MANAGED_BY}"}
"""The label selector for a kind that is not read whole: only our EndpointSlices matter."""


def resource_path(kind: Kind, version: str, namespace: str | None = None, name: str = "") -> str:
    """The path of one object, or of all of a kind in a namespace or everywhere."""
    group = _GROUPS.get(kind, GROUP)
    root = f"/apis/{group}/{version}" if group else f"/api/{version}"
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{scope}/{_RESOURCES[kind]}{name and f'/{name}'}"


async def newest_served(api: ApiServer, kind: Kind) -> str:
    """The newest served version of a kind of VM Operator's that we know.

    Raises ApiServerError, with status 404 if there is none; and msgspec.DecodeError.
    """
    try:
        group = await api.request("GET", f"/apis/{GROUP}")
        served = {v.version for v in _decode_group(group).versions}
        for version in reversed(KNOWN_VERSIONS):
            if version in served and await _has(api, version, kind):
                return version
    except ApiServerError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
    raise ApiServerError(
        HTTPStatus.NOT_FOUND,
        f"CustomResourceDefinition {_RESOURCES[kind]}.{GROUP} is not installed, or serves none "
        f"of {KNOWN_VERSIONS[0]} to {KNOWN_VERSIONS[-1]}; install VM Operator's "
        "CustomResourceDefinitions",
    )


async def _has(api: ApiServer, version: str, kind: Kind) -> bool:
    raw = await api.request("GET", f"/apis/{GROUP}/{version}")
    resources = _decode_resources(raw).resources
    return any(resource.name == _RESOURCES[kind] for resource in resources)


class _ApiVersion(msgspec.Struct):
    version: str


class _ApiGroup(msgspec.Struct):
    versions: list[_ApiVersion]


class _ApiResource(msgspec.Struct):
    name: str


class _ApiResources(msgspec.Struct):
    resources: list[_ApiResource]


_decode_group = decoder(_ApiGroup)
_decode_resources = decoder(_ApiResources)
