"""Which labels and annotations of a VMService are copied to its Service. Pure.

Endpoints take theirs from the Service, so a key that is not copied is not on them either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from vmsvc_grpc.model.objects import ObjectMeta
from vmsvc_grpc.model.ownership import HELD_FOR

# These describe the VMService itself, and would be false on another object; one is our own mark.
_NEVER_COPIED = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        "vmoperator.vmware.com/conversion",
        HELD_FOR,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copying:
    """All keys are copied but those that a pattern denies, and those that never are.

    Patterns are those of a shell for file names, except that `*` matches `/` too: `*` is any
    text, `?` one character, `[ab]` one of these, `[!ab]` another. Upper case counts.

    Only the copy is denied. A key that the Service has already stays, as somebody else may have put
    it there; and a field that follows from an annotation, such as the traffic policy, still does.
    O(keys x patterns).
    """

    denied_labels: tuple[str, ...] = ()
    denied_annotations: tuple[str, ...] = ()

    def labels(self, vmservice: ObjectMeta) -> Mapping[str, str]:
        """The labels to copy to the Service."""
        return _admitted(vmservice.labels, self.denied_labels)

    def annotations(self, vmservice: ObjectMeta) -> Mapping[str, str]:
        """The annotations to copy to the Service."""
        admitted = _admitted(vmservice.annotations, self.denied_annotations)
        return {key: value for key, value in admitted.items() if key not in _NEVER_COPIED}


def _admitted(given: Mapping[str, str], denied: tuple[str, ...]) -> Mapping[str, str]:
    if not denied:
        return given
    return {
        key: value
        for key, value in given.items()
        if not any(fnmatchcase(key, pattern) for pattern in denied)
    }
