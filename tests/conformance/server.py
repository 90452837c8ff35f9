"""The requests that the runner makes of an API server, by kind, namespace and name."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from tests.conformance.case import VM, VM_SERVICE, CaseError, Manifest, ObjectId
from tests.kube.apiserver import Cluster, Response

_GROUP = "vmoperator.vmware.com"
_KNOWN_VERSIONS = tuple(f"{_GROUP}/v1alpha{number}" for number in range(6, 0, -1))
_EVENTS = "/apis/events.k8s.io/v1"

KINDS = (VM, VM_SERVICE, "Service", "Endpoints")
"""The kinds that the program knows; each case's objects of these are all looked at."""


class DeniedError(Exception):
    """An answer that is not the one a case needs. `fields` are those that a 422 names."""

    def __init__(self, what: str, response: Response) -> None:
        """The message is in one line."""
        body = response.body if isinstance(response.body, dict) else {}
        super().__init__(f"{what}: {response.status}: {body.get('message', response.body)}")
        self.status = response.status
        causes = (body.get("details") or {}).get("causes") or ()
        self.fields = tuple(str(cause.get("field")) for cause in causes)


class Server:
    """One API server, as its admin. For one thread."""

    def __init__(self, cluster: Cluster) -> None:
        """Asks at once which version of each kind is the newest; the CRDs are served already."""
        self.cluster = cluster
        self._session = cluster.server.session()
        self._resources: dict[str, dict[str, str]] = {}
        self.newest = {"Service": "v1", "Endpoints": "v1"} | {
            kind: next(v for v in _KNOWN_VERSIONS if kind in self._kinds_of(v))
            for kind in (VM, VM_SERVICE)
        }

    def close(self) -> None:
        """End the connection; the next request makes another."""
        self._session.close()

    def path(self, id_: ObjectId, api_version: str = "", subresource: str = "") -> str:
        """Where an object is, in the newest version if none is named; all of its kind if unnamed.

        Raises CaseError if there is no such kind.
        """
        version = api_version or self.newest[id_.kind]
        resource = self._kinds_of(version).get(id_.kind)
        if resource is None:
            raise CaseError(f"the API server has no {id_.kind} of {version}")
        path = f"{_root(version)}/namespaces/{id_.namespace}/{resource}"
        return "/".join(filter(None, (path, id_.name, subresource)))

    def get(self, id_: ObjectId, api_version: str = "") -> dict[str, Any] | None:
        """The object, or None if there is none."""
        return self._ask("GET", self.path(id_, api_version))

    def create(self, manifest: Manifest) -> dict[str, Any] | None:
        """The object as it is stored; None if there is one of its name. Raises DeniedError."""
        namespace = manifest["metadata"]["namespace"]
        all_of_kind = ObjectId(manifest["kind"], namespace, "")
        path = self.path(all_of_kind, manifest["apiVersion"])
        return self._ask("POST", path, manifest, none_for=HTTPStatus.CONFLICT)

    def replace(self, manifest: Manifest, subresource: str = "") -> dict[str, Any] | None:
        """The object as it is stored; None if it has changed since it was read. Raises DeniedError.

        With a subresource, only that part is stored.
        """
        meta = manifest["metadata"]
        id_ = ObjectId(manifest["kind"], meta["namespace"], meta["name"])
        path = self.path(id_, manifest["apiVersion"], subresource)
        return self._ask("PUT", path, manifest, none_for=HTTPStatus.CONFLICT)

    def patch(
        self, id_: ObjectId, patch: object, subresource: str = "", api_version: str = ""
    ) -> dict[str, Any] | None:
        """The object after a JSON merge patch; None if there is none. Raises DeniedError."""
        path = self.path(id_, api_version, subresource)
        return self._ask("PATCH", path, patch, content_type="application/merge-patch+json")

    def delete(self, id_: ObjectId, api_version: str = "") -> None:
        """Delete an object; what is gone stays gone. Raises DeniedError."""
        self._ask("DELETE", self.path(id_, api_version))

    def listed(
        self, kind: str, namespace: str, api_version: str = ""
    ) -> Iterator[tuple[ObjectId, dict[str, Any]]]:
        """All objects of a kind in a namespace."""
        path = self.path(ObjectId(kind, namespace, ""), api_version)
        found = self._ask("GET", path) or {"items": ()}
        for item in found["items"]:
            yield ObjectId(kind, namespace, item["metadata"]["name"]), item

    def events(self, namespace: str) -> list[dict[str, Any]]:
        """All events of a namespace."""
        found = self._ask("GET", f"{_EVENTS}/namespaces/{namespace}/events") or {}
        return list(found.get("items", ()))

    def _kinds_of(self, api_version: str) -> dict[str, str]:
        """The resources of an API version by their kinds."""
        if api_version not in self._resources:
            found = self._ask("GET", _root(api_version)) or {"resources": ()}
            self._resources[api_version] = {
                r["kind"]: r["name"] for r in found["resources"] if "/" not in r["name"]
            }
        return self._resources[api_version]

    def _ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        none_for: int = HTTPStatus.NOT_FOUND,
    ) -> dict[str, Any] | None:
        response = self._session.request(method, path, body, content_type=content_type)
        if response.status == none_for:
            return None
        if response.status not in (HTTPStatus.OK, HTTPStatus.CREATED):
            raise DeniedError(f"{method} {path}", response)
        answer: dict[str, Any] = response.body
        return answer


def _root(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
