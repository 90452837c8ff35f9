"""How many objects and parts a manifest may have."""

from __future__ import annotations

from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.model.objects import ObjectMeta, VirtualMachine, VirtualMachineService
from vmsvc_grpc.source.contents import Entry
from vmsvc_grpc.source.documents import ManifestError

OBJECTS_MAX = 60_000
"""How many objects a file may define; the design size is 30,000 in all files.

So a file of 16 MiB takes at most ten times its size in memory, also while another takes its place.
A VMService takes as much as three others, and counts as so many; so does an object of many parts.
"""

PARTS_MAX = 300_000
"""How many documents and items of lists a file may have, of any kind, empty ones too.

An object with a name takes 55 characters, so no honest file of 16 MiB has more. Eight million empty
ones would take us a minute, in which nobody is served at the start.
"""

_SERVICE_WEIGHT = 3

# Labels, owners, conditions, ports: each takes some 120 bytes, though `{}` is enough to write one.
_PARTS_A_WEIGHT = 10


def weight(entry: Entry) -> int:
    """As how many objects one counts towards OBJECTS_MAX."""
    object_ = entry.event.object if isinstance(entry.event, Apply) else None
    match object_:
        case None:
            return 1
        case VirtualMachine():
            return 1 + len(object_.labels) // _PARTS_A_WEIGHT
        case VirtualMachineService():
            spec = object_.spec
            ports = len(spec.ports) + len(spec.selector) if spec else len(object_.declared_selector)
            parts = ports + len(object_.conditions) + len(object_.ingress)
            return _SERVICE_WEIGHT + (parts + _meta_parts(object_.meta)) // _PARTS_A_WEIGHT
    return 1 + _meta_parts(object_.meta) // _PARTS_A_WEIGHT


def _meta_parts(meta: ObjectMeta) -> int:
    owned = len(meta.owner_references) + len(meta.finalizers)
    return owned + len(meta.labels) + len(meta.annotations)


def bound_parts(count: int, line: int) -> None:
    """Raises ManifestError if so many parts are too many; `line` is the last one's."""
    if count > PARTS_MAX:
        message = f"more than {PARTS_MAX} documents and items of lists; split it"
        raise ManifestError(message, line, 1)


def bound_objects(weights: int, line: int) -> None:
    """Raises ManifestError if objects of so much weight are too many; `line` is the last one's."""
    if weights > OBJECTS_MAX:
        counted = f"a VirtualMachineService as {_SERVICE_WEIGHT}, {_PARTS_A_WEIGHT} parts as one"
        message = f"more than {OBJECTS_MAX} objects (counting {counted}); split it"
        raise ManifestError(message, line, 1)
