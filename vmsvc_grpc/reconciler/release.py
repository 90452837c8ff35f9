"""Takes our finalizer off, for an uninstall where nobody else would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from vmsvc_grpc.kube.client import MERGE_PATCH, ApiServer, ApiServerError
from vmsvc_grpc.kube.resources import newest_served, path_of
from vmsvc_grpc.model.objects import Kind
from vmsvc_grpc.reconciler.vmservice import without_ours

_KIND = Kind.VIRTUAL_MACHINE_SERVICE
_PAGE_OBJECTS = 500


@dataclass(slots=True)
class Counts:
    """How many VMServices were let go, and how many had nothing to be taken off."""

    released: int = 0
    free: int = 0


async def release(api: ApiServer, namespaces: Sequence[str] = ()) -> Counts:
    """Take our finalizer, by both its names, off each VMService there is. Raises ApiServerError.

    Where VM Operator runs, or a replica of ours that writes, it is put on again. `namespaces`
    are those to look at; none: all. May be run again, also after an error.
    """
    counts = Counts()
    version = await newest_served(api, _KIND)
    for namespace in namespaces or (None,):
        token = ""
        while True:
            query = {"limit": str(_PAGE_OBJECTS), **({"continue": token} if token else {})}
            raw = await api.request("GET", path_of(_KIND, version, namespace), query=query)
            page = _decode_list(raw)
            for item in page.items:
                await _let_go(api, version, item.metadata, counts)
            token = page.metadata.continue_ or ""
            if not token:
                break
    return counts


async def _let_go(api: ApiServer, version: str, meta: _Meta, counts: Counts) -> None:
    """Take the finalizer off one, whatever else is changed of it meanwhile."""
    path = path_of(_KIND, version, meta.namespace, meta.name)
    while True:
        finalizers = tuple(meta.finalizers or ())
        kept = without_ours(finalizers)
        if kept == finalizers:
            counts.free += 1
            return
        patch = {"metadata": {"finalizers": kept, "resourceVersion": meta.resource_version}}
        try:
            await api.request("PATCH", path, body=patch, content_type=MERGE_PATCH)
        except ApiServerError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return
            if error.status != HTTPStatus.CONFLICT:
                raise
            found = await _read(api, path)
            if found is None:
                return
            meta = found
        else:
            counts.released += 1
            return


async def _read(api: ApiServer, path: str) -> _Meta | None:
    """What a VMService says now; None if it is gone."""
    try:
        return _decode_one(await api.request("GET", path)).metadata
    except ApiServerError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return None
        raise


class _Meta(msgspec.Struct, rename="camel"):
    name: str
    namespace: str
    resource_version: str
    finalizers: list[str] | None = None


class _One(msgspec.Struct):
    metadata: _Meta


class _ListMeta(msgspec.Struct):
    continue_: str | None = msgspec.field(name="continue", default=None)


class _List(msgspec.Struct):
    metadata: _ListMeta
    items: list[_One]


_decode_list = msgspec.json.Decoder(_List).decode
_decode_one = msgspec.json.Decoder(_One).decode
