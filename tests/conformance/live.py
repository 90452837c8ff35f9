"""A case's objects on an API server, in namespaces of its own, edited as the case says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from tests.conformance.case import (
    VM,
    VM_SERVICE,
    Apply,
    Case,
    CaseError,
    Delete,
    Edit,
    Manifest,
    ObjectId,
    Patch,
    id_of,
)
from tests.conformance.names import Names
from tests.conformance.server import KINDS, DeniedError, Server
from tests.program import awaited

# What a writer who read the object just before may have to try again, for others write too.
_TRIES_MAX = 20

# The program's own finalizer, and the one that it takes for its own.
_OURS = (
    "vmoperator.vmware.com/virtualmachineservice",
    "virtualmachineservice.vmoperator.vmware.com",
)


class LiveError(Exception):
    """An edit cannot be made; the message says which and why, in a line."""


class Live:
    """One case's objects. All ids are the case's own."""

    def __init__(self, server: Server, case: Case) -> None:
        """Makes a namespace for each of the case's."""
        self.names = Names(
            {name: server.cluster.create_namespace("case") for name in namespaces_of(case)}
        )
        self.denied: dict[ObjectId, tuple[str, ...]] = {}
        """What the API server would not store, and the fields that it named."""
        self.uids: dict[ObjectId, set[str]] = {}
        """The uids that each object of the case has had."""
        self.written: dict[ObjectId, str] = {}
        """The resourceVersion of each object when the case last wrote it."""
        self._server = server
        self._may_be_denied = _denied_in(case)
        self._kinds = dict.fromkeys(KINDS, "") | _other_kinds(case)

    def perform(self, edit: Edit) -> None:
        """Make the edit. Raises LiveError and CaseError."""
        try:
            match edit:
                case Apply(manifest):
                    self._apply(id_of(manifest), manifest)
                case Patch(entry):
                    self._patch(edit.id, entry)
                case Delete(id_, api_version):
                    self._server.delete(self.names.live_id(id_), api_version)
        except DeniedError as error:
            id_ = id_of(edit.manifest) if isinstance(edit, Apply) else edit.id
            if error.status != HTTPStatus.UNPROCESSABLE_ENTITY or id_ not in self._may_be_denied:
                raise LiveError(f"{id_}: {error}") from None
            self.denied[id_] = error.fields

    def _apply(self, id_: ObjectId, manifest: Manifest) -> None:
        live = self.names.live(manifest)
        live["metadata"] = {**live["metadata"], "namespace": self.names.live_id(id_).namespace}
        may_exist = id_ in self.uids
        for _ in range(_TRIES_MAX):
            live_id, version = self.names.live_id(id_), live["apiVersion"]
            stored = self._server.get(live_id, version) if may_exist else None
            new = created(live) if stored is None else replaced(stored, live)
            written = self._server.replace(new) if stored else self._server.create(new)
            if written is None:
                may_exist = True
                continue
            self._made(id_, manifest["metadata"].get("uid"), written["metadata"]["uid"])
            if (status := status_of(live, stored)) is not None:
                written = self._with_status(id_, written, status)
            self.written[id_] = written["metadata"]["resourceVersion"]
            return
        raise LiveError(f"{id_}: is written by others all the time")

    def _made(self, id_: ObjectId, uid: str | None, live_uid: str) -> None:
        self.uids.setdefault(id_, set()).add(live_uid)
        if uid:
            self.names.stands_for(uid, live_uid)

    def _with_status(
        self, id_: ObjectId, written: dict[str, Any], status: Mapping[str, Any]
    ) -> dict[str, Any]:
        for _ in range(_TRIES_MAX):
            if done := self._server.replace({**written, "status": status}, "status"):
                return done
            stored = self._server.get(self.names.live_id(id_), written["apiVersion"])
            if stored is None:
                break
            written = stored
        raise LiveError(f"{id_}: its status cannot be written, for others write it all the time")

    def _patch(self, id_: ObjectId, entry: Mapping[str, Any]) -> None:
        live_id, patch = self.names.live_id(id_), self.names.live(entry["patch"])
        subresource, version = entry.get("subresource") or "", entry.get("apiVersion") or ""
        if self._server.patch(live_id, patch, subresource, version) is None:
            raise LiveError(f"{id_}: is to be patched, but does not exist")

    def objects(self) -> dict[ObjectId, Manifest]:
        """The objects that are there, the program's too, in the API server's words."""
        return {
            id_._replace(namespace=of_case): manifest
            for of_case, live in self.names.namespaces.items()
            for kind, version in self._kinds.items()
            for id_, manifest in self._server.listed(kind, live, version)
        }

    def events(self) -> list[Manifest]:
        """The events that are there."""
        namespaces = self.names.namespaces.values()
        return [event for namespace in namespaces for event in self._server.events(namespace)]

    def end(self) -> str | None:
        """Delete every VMService; what is not let go then, or not deleted with it, if anything."""
        for id_, manifest in self.objects().items():
            if id_.kind == VM_SERVICE:
                self._let_others_go(id_, manifest)
                self._server.delete(self.names.live_id(id_))
        awaited(lambda: not self._left(), poll_s=0.1)
        left = ", ".join(map(str, self._left()))
        # Their addresses may be another case's.
        for id_ in self.objects():
            if id_.kind == "Service":
                self._server.delete(self.names.live_id(id_))
        return f"still there after its VMService was deleted: {left}" if left else None

    def _let_others_go(self, id_: ObjectId, manifest: Manifest) -> None:
        """Take off the finalizers of others, who are not there to do it."""
        finalizers = manifest["metadata"].get("finalizers") or ()
        ours = [finalizer for finalizer in finalizers if finalizer in _OURS]
        if len(ours) < len(finalizers):
            self._server.patch(self.names.live_id(id_), {"metadata": {"finalizers": ours}})

    def _left(self) -> list[ObjectId]:
        """The VMServices that are there, and what is there because of those that were."""
        uids = {uid for id_, all_ in self.uids.items() if id_.kind == VM_SERVICE for uid in all_}
        return [
            id_
            for id_, manifest in self.objects().items()
            if id_.kind == VM_SERVICE
            or any(o["uid"] in uids for o in manifest["metadata"].get("ownerReferences") or ())
        ]


def namespaces_of(case: Case) -> list[str]:
    """The namespaces in which a case makes objects, sorted."""
    applied = (e.manifest for e in _edits(case) if isinstance(e, Apply))
    return sorted({id_of(manifest).namespace for manifest in applied})


def created(manifest: Manifest) -> dict[str, Any]:
    """What is sent to create an object: neither uid nor status is ours to say."""
    meta = {key: value for key, value in manifest["metadata"].items() if key != "uid"}
    return {**{k: v for k, v in manifest.items() if k != "status"}, "metadata": meta}


def replaced(stored: Manifest, manifest: Manifest) -> dict[str, Any]:
    """What is sent to apply to an object: all but status and metadata is as in the manifest.

    Of the metadata, labels and annotations are.
    """
    kept = {k: v for k, v in stored["metadata"].items() if k not in ("labels", "annotations")}
    given = manifest["metadata"]
    meta = kept | {key: given[key] for key in ("labels", "annotations") if key in given}
    status = {"status": stored["status"]} if "status" in stored else {}
    return {**{k: v for k, v in manifest.items() if k != "status"}, **status, "metadata": meta}


def status_of(manifest: Manifest, stored: Manifest | None) -> Mapping[str, Any] | None:
    """The status to write after the rest; None if none is. Of what was there, only a VM's is."""
    if stored is None:
        status: Mapping[str, Any] | None = manifest.get("status")
        return status
    return manifest.get("status") or {} if manifest["kind"] == VM else None


def _edits(case: Case) -> Iterable[Edit]:
    return (edit for stage in case.stages for edit in stage.edits)


def _denied_in(case: Case) -> set[ObjectId]:
    """The objects that the API server is expected, or allowed, not to store."""
    entries = [entry for stage in case.stages for entry in stage.expect.get("rejected", ())]
    expected = {(e.get("kind") or VM_SERVICE, e["name"]) for e in entries if e["by"] == "crd"}
    edited = (id_of(e.manifest) if isinstance(e, Apply) else e.id for e in _edits(case))
    return {id_ for id_ in edited if (id_.kind, id_.name) in expected}


def _other_kinds(case: Case) -> dict[str, str]:
    """The kinds, with their API versions, that the case names beside those that are known."""
    return {kind: version for kind, version in _named_kinds(case) if kind not in KINDS}


def _named_kinds(case: Case) -> Iterator[tuple[str, str]]:
    for edit in _edits(case):
        if isinstance(edit, Apply):
            yield edit.manifest["kind"], edit.manifest["apiVersion"]
    entries = [e for s in case.stages for k in ("absent", "unchanged") for e in s.expect.get(k, ())]
    for entry in entries:
        if entry["kind"] not in KINDS and "apiVersion" not in entry:
            raise CaseError(f"of {entry['kind']} {entry['name']} the apiVersion is needed")
        yield entry["kind"], entry.get("apiVersion", "")
