"""What is kept of an object that an API server tells of. Pure.

All VMs and VMServices are, as the model has them. Of Services and Endpoints most are
somebody else's, and may be many times ours. Those are kept, too, as a VMService of their
name may come any time, but only as far as one needs to know then whose they are; whatever
is done to such an object says all of it anew. The rule looks at the object alone, so what
is kept does not depend on the order of events.

Measured for an object with usual labels and annotations: a Service takes 3.8 kB whole and
1.2 kB reduced; an Endpoints with 100 addresses 59 kB and 0.7 kB, and with 1,000 addresses
it is read in 0.1 ms instead of 1.3 ms.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from vmsvc_grpc.model import parse, wire
from vmsvc_grpc.model.objects import Kind, Object, ObjectMeta, StoredEndpoints, StoredService
from vmsvc_grpc.model.ownership import is_adoptable, is_owned

SHAPES = {**parse.SHAPES, Kind.ENDPOINTS: wire.UnreadEndpoints}
"""What `slim` takes: an object of each kind, as far as it is read at first sight."""

_decode_subsets = msgspec.json.Decoder(list[wire.Subset] | None).decode


def read_slim(kind: Kind, raw: bytes | msgspec.Raw) -> Object:
    """The object that the bytes are in JSON, reduced if it is not ours. Raises ParseError."""
    if kind is Kind.ENDPOINTS:
        meta = parse.parse_meta(kind, raw)
        if not is_owned(meta):
            return StoredEndpoints(meta=_bare(meta))
    return _reduced(parse.parse_json(kind, raw))


def slim(given: Any) -> Object:
    """The same for an object that has been decoded as its shape in SHAPES.

    Raises ParseError, and msgspec.DecodeError if the addresses of Endpoints cannot be read.
    """
    if isinstance(given, wire.UnreadEndpoints):
        meta = parse.object_meta(Kind.ENDPOINTS, given.metadata)
        if not is_owned(meta):
            return StoredEndpoints(meta=_bare(meta))
        return parse.model(wire.Endpoints(given.metadata, _decode_subsets(given.subsets)))
    return _reduced(parse.model(given))


def _reduced(object_: Object) -> Object:
    if isinstance(object_, StoredService) and not _kept_whole(object_):
        return StoredService(
            meta=_bare(object_.meta),
            type=object_.type,
            selector=object_.selector,
            # Streams of a VMService of this name still go by them.
            ip_families=object_.ip_families,
        )
    return object_


def _kept_whole(service: StoredService) -> bool:
    # One that is adopted is adopted with what it has.
    return is_adoptable(service) or is_owned(service.meta)


def _bare(meta: ObjectMeta) -> ObjectMeta:
    return replace(meta, labels={}, annotations={})
