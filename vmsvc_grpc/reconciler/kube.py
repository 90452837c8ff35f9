"""Holds objects on an API server: the only writes there.

Each write is one request with the resource version that it was planned from, so it overwrites
nothing unseen. An update sends only the fields that differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Any

import msgspec

from vmsvc_grpc.kube.client import FIELD_MANAGER, JSON, MERGE_PATCH, ApiServer
from vmsvc_grpc.kube.connector import NotSent
from vmsvc_grpc.kube.errors import NAMESPACE_TERMINATING, ApiServerError
from vmsvc_grpc.kube.resources import VERSIONS, newest_served, resource_path
from vmsvc_grpc.model.decoding import decoder
from vmsvc_grpc.model.from_wire import ParseError
from vmsvc_grpc.model.objects import (
    MANAGED_BY_LABEL,
    SERVICE_NAME_LABEL,
    Key,
    Kind,
    Object,
    VirtualMachineService,
)
from vmsvc_grpc.model.ownership import is_controlled_by
from vmsvc_grpc.model.parse import parse_json
from vmsvc_grpc.model.problem import quoted
from vmsvc_grpc.reconciler.fields import body
from vmsvc_grpc.reconciler.held import Child, Held
from vmsvc_grpc.reconciler.patch import PatchPath, merge_patch
from vmsvc_grpc.reconciler.plan import Change, Verb
from vmsvc_grpc.reconciler.store import ChangeError, Conflict, Gone, NotWriting

# Transient refusals, by status or by reason: the same request may succeed later.
_PASSING_STATUSES = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
# The statuses with which the API server refuses to create an object that exists. (A Service with a
# cluster address is refused because the address is taken.)
_PERHAPS_THERE = frozenset({HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY})

_MIRRORED_BY = "endpointslicemirroring-controller.k8s.io"

_PASSING_REASONS = frozenset({"ServerTimeout", "Timeout", "TooManyRequests", "ServiceUnavailable"})


class KubeStore:
    """Holds the objects of VMServices, and their own status, on an API server."""

    def __init__(
        self,
        api: ApiServer,
        *,
        may_write: Callable[[], bool] = lambda: True,
        write_s: float = 4.0,
    ) -> None:
        """`may_write` is asked right before each write is sent.

        A change is given up after `write_s`, which must be shorter than a lease's margin: the time
        after `may_write` turns false in which nobody else writes.
        """
        self._api = api
        self._may_write = may_write
        self._write_s = write_s
        # The version in which VMServices are read; empty until it is found out.
        self._served = ""

    async def apply(self, change: Change) -> Held | None:
        """Make one change. Raises Conflict, Gone, ChangeError and NotWriting.

        Before a Service or Endpoints is deleted, the API server is asked whether the VMService that
        controls it is gone: the watched VMServices may be older than their objects.
        """
        try:
            async with asyncio.timeout(self._write_s):
                match change.verb:
                    case Verb.CREATE:
                        return await self._create(change)
                    case Verb.UPDATE:
                        return await self._update(change)
                    case Verb.DELETE:
                        return await self._delete(change)
        except ApiServerError as error:
            raise _refused_change(change, error) from error
        except TimeoutError as error:
            message = f"cannot {change}: no answer within {self._write_s:g} s"
            raise ChangeError("NoAnswer", message, passing=True) from error
        except (msgspec.DecodeError, ParseError) as error:
            # It may not be the API server's answer. The watch will show whether it was written.
            message = f"cannot read an answer to {change}: {error}"
            raise ChangeError("AnswerUnreadable", message, passing=True) from error

    async def mirrored(self, service: Key) -> frozenset[str]:
        """The address types of the slices that Kubernetes has mirrored. Raises ChangeError."""
        selector = f"{SERVICE_NAME_LABEL}={service.name},{MANAGED_BY_LABEL}={_MIRRORED_BY}"
        # From the API server's cache, which may lag, but hardly as much as ours.
        query = {"labelSelector": selector, "resourceVersion": "0"}
        path = resource_path(Kind.ENDPOINT_SLICE, VERSIONS[Kind.ENDPOINT_SLICE], service.namespace)
        try:
            async with asyncio.timeout(self._write_s):
                raw = await self._api.request("GET", path, query=query)
            found = _decode_slices(raw)
        except (ApiServerError, TimeoutError, msgspec.DecodeError) as error:
            message = f"whether Endpoints {service} are mirrored cannot be read: {error}"
            raise ChangeError("EndpointSlicesUnread", message, passing=True) from error
        return frozenset(slice_.address_type for slice_ in found.items if slice_.endpoints)

    async def find(self, kind: Kind, key: Key) -> Held | None:
        """The object as the API server holds it now, ours or not. Raises ChangeError."""
        try:
            raw = await self._read(kind, key)
            return None if raw is None else _as_held(parse_json(kind, raw))
        except (ApiServerError, TimeoutError, msgspec.DecodeError, ParseError) as error:
            message = f"{kind.value} {key} cannot be read: {error}"
            raise ChangeError(f"{kind.value}Unread", message, passing=True) from error

    async def other_writer(self, kind: Kind, key: Key, fields: Collection[PatchPath]) -> str:
        """The other manager with the newest entry for these fields; else the newest of all.

        A manager that removes a field no longer owns it, so there may be no entry for the field.
        """
        try:
            raw = await self._read(kind, key)
            managed = _decode_managed(raw or b"{}").metadata.managed_fields
        except (ApiServerError, TimeoutError, msgspec.DecodeError):
            return ""
        others = [entry for entry in managed or () if entry.manager != FIELD_MANAGER]
        newest = max(others, key=lambda entry: (entry.holds(fields), entry.time), default=None)
        return quoted(newest.manager) if newest else ""

    async def _read(self, kind: Kind, key: Key) -> bytes | None:
        """The bytes of an object; None if there is none. Raises ApiServerError, TimeoutError."""
        version = VERSIONS.get(kind) or self._served or await newest_served(self._api, kind)
        try:
            async with asyncio.timeout(self._write_s):
                return await self._api.request("GET", resource_path(kind, version, *key))
        except ApiServerError as error:
            if error.object_not_found:
                return None
            raise

    async def _create(self, change: Change) -> Held | None:
        wanted = change.object
        path = resource_path(change.kind, _version(wanted), change.key.namespace)
        try:
            raw = await self._write("POST", path, body(wanted))
        except ApiServerError as error:
            if error.status in _PERHAPS_THERE and (found := await self._found(change)):
                raise Conflict(found, cause=f"it is there already ({error.message})") from error
            raise
        return self._held(change, raw)

    async def _found(self, change: Change) -> Held | None:
        """The object that exists already, although the watch has not shown it yet."""
        try:
            return self._held(change, await self._api.request("GET", _path(change.object)))
        except ApiServerError as error:
            if error.object_not_found:
                return None
            raise

    async def _update(self, change: Change) -> Held | None:
        before, after = change.before, change.after
        assert before is not None
        assert after is not None
        patch = merge_patch(before, after)
        # A status is a write of its own; the loop then finds out what is left to write.
        status = patch.pop("status", None)
        path = _path(after)
        if not patch:
            path, patch = f"{path}/status", {"status": status}
        patch.setdefault("metadata", {})["resourceVersion"] = before.meta.resource_version
        return self._held(change, await self._write("PATCH", path, patch, MERGE_PATCH))

    async def _delete(self, change: Change) -> Held | None:
        held = change.object
        assert not isinstance(held, VirtualMachineService), "it is its user's"
        if isinstance(held, Child):
            await self._check_owner(held)
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {
                "uid": held.meta.uid,
                "resourceVersion": held.meta.resource_version,
            },
        }
        raw = await self._write("DELETE", _path(held), options)
        # An object with finalizers stays until they are gone; otherwise the answer is a Status.
        stays = _decode_written(raw).metadata.finalizers
        return self._held(change, raw) if stays else None

    async def _check_owner(self, child: Child) -> None:
        """Raises Conflict if the VMService that controls the child is there to stay."""
        owner = child.meta.controller
        assert owner is not None, "only what a VMService controls is deleted"
        kind = Kind.VIRTUAL_MACHINE_SERVICE
        try:
            if not self._served:
                self._served = await newest_served(self._api, kind)
            path = resource_path(kind, self._served, child.key.namespace, owner.name)
            found = parse_json(kind, await self._api.request("GET", path))
        except ApiServerError as error:
            if error.object_not_found:
                return
            self._served = ""
            message = f"whether VirtualMachineService {child.key} exists cannot be read: {error}"
            raise ChangeError("VirtualMachineServiceUnread", message, passing=True) from error
        assert isinstance(found, VirtualMachineService)
        if is_controlled_by(child.meta, found.meta.uid) and not found.meta.deleting:
            raise Conflict(found, cause="its VirtualMachineService is there to stay")

    async def _write(self, method: str, path: str, body: Any, content_type: str = JSON) -> bytes:
        try:
            return await self._api.request(
                method, path, body=body, content_type=content_type, may_send=self._may_write
            )
        except NotSent:
            raise NotWriting from None

    def _held(self, change: Change, raw: bytes) -> Held | None:
        """The object in the answer; None if it went with its last finalizer."""
        held = parse_json(change.kind, raw)
        assert isinstance(held, Held)
        return None if held.meta.deleting and not held.meta.finalizers else held


class _ManagedEntry(msgspec.Struct, rename="camel"):
    manager: str = ""
    time: str = ""
    fields_v1: dict[str, Any] = msgspec.field(name="fieldsV1", default_factory=dict)

    def holds(self, fields: Collection[PatchPath]) -> bool:
        """Whether it has one of these fields, or one that contains it."""
        return any(self._holds(path) for path in fields)

    def _holds(self, path: PatchPath) -> bool:
        inner: Any = self.fields_v1
        for name in path:
            if not isinstance(inner, dict) or f"f:{name}" not in inner:
                return False
            inner = inner[f"f:{name}"]
        return True


class _ManagedMeta(msgspec.Struct, rename="camel"):
    managed_fields: list[_ManagedEntry] | None = None


class _Managed(msgspec.Struct):
    metadata: _ManagedMeta = msgspec.field(default_factory=_ManagedMeta)


class _WrittenMeta(msgspec.Struct):
    finalizers: list[str] = []


class _WrittenObject(msgspec.Struct):
    metadata: _WrittenMeta


class _Slice(msgspec.Struct, rename="camel"):
    address_type: str
    endpoints: list[msgspec.Raw] | None = None


class _SliceList(msgspec.Struct):
    items: list[_Slice]


_decode_managed = decoder(_Managed)
_decode_written = decoder(_WrittenObject)
_decode_slices = decoder(_SliceList)


def _as_held(found: Object) -> Held:
    assert isinstance(found, Held), "only what is written is looked for"
    return found


def _version(held: Held) -> str:
    """The version to write it in: for a VMService, the one that it was read in."""
    if isinstance(held, VirtualMachineService):
        return held.api_version.rpartition("/")[2]
    return VERSIONS[held.kind]


def _path(held: Held) -> str:
    return resource_path(held.kind, _version(held), held.key.namespace, held.key.name)


def _refused_change(change: Change, error: ApiServerError) -> Exception:
    """The exception that a refused write means."""
    if error.from_admission:
        return _failed(change, error)
    if NAMESPACE_TERMINATING in error.causes:
        # The VMService goes with the namespace, but its deletion may reach us later.
        cause = f"namespace {change.key.namespace} is being deleted; see what keeps it"
        return Conflict(cause=cause)
    if error.status == HTTPStatus.CONFLICT:
        cause = "see who else writes or holds it"
        return Conflict(cause=f"it was not as we had read it ({error.message}); {cause}")
    if error.status == HTTPStatus.NOT_FOUND and change.kind is Kind.VIRTUAL_MACHINE_SERVICE:
        # Maybe only the version is no longer served, and the VMService exists: the watch will show.
        return Conflict(cause=_absence(change, error))
    if error.object_not_found and change.verb is not Verb.CREATE:
        return Gone()
    return _failed(change, error)


def _absence(change: Change, error: ApiServerError) -> str:
    if error.object_not_found:
        return "it is not there any more, but we still read it; see who deletes and makes it"
    version = _version(change.object)
    return f"it is not served as {version} ({error.message}); see which versions its CRD serves"


def _failed(change: Change, error: ApiServerError) -> ChangeError:
    says_later = error.status in _PASSING_STATUSES or error.reason in _PASSING_REASONS
    return ChangeError(
        f"{change.verb.name.title()}{change.kind.value}Failed",
        f"cannot {change}: {error.message}",
        passing=error.status == 0 or says_later,
        retry_after_s=error.retry_after_s,
    )
