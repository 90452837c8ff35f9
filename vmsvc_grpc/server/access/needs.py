"""What a call needs: rights as Kubernetes names them, or less than a right."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias


class ResourceNeed(NamedTuple):
    """The right to `verb` a resource of an API group ("" is the core group) in a namespace.

    "" is all namespaces, as in a SubjectAccessReview. So a namespace that a client names must be
    known not to be empty before it becomes a need.
    """

    verb: str
    group: str
    resource: str
    namespace: str


class UrlNeed(NamedTuple):
    """The right to `verb` a non-resource URL; `path` begins with a slash."""

    verb: str
    path: str


class Entry(Enum):
    """What a call needs that needs no right."""

    OPEN = "open"
    """Nothing: anybody may call, and nobody is asked who they are."""

    AUTHENTICATED = "authenticated"
    """That it is known who calls."""


OPEN = Entry.OPEN
AUTHENTICATED = Entry.AUTHENTICATED

Need: TypeAlias = ResourceNeed | UrlNeed | Entry
"""Hashable. Equal needs are the same need."""


def endpoints_in(verb: str, namespace: str) -> ResourceNeed:
    """The right to `verb` endpoints in one namespace: it is the right to hear of them here."""
    assert namespace, "no name of a namespace is empty, and '' would be all of them"
    return ResourceNeed(verb, "", "endpoints", namespace)


def endpoints_everywhere(verb: str) -> ResourceNeed:
    """The same in all namespaces."""
    return ResourceNeed(verb, "", "endpoints", "")


@dataclass(frozen=True, slots=True)
class Needs:
    """What the calls of a method need.

    `entry` is needed by each, before any of its requests is read. `of_request` yields what a
    request needs beyond that, maybe the same more than once; it raises RpcError for one that is not
    valid. `wishes` change what is answered, and not whether: their verdicts are known before the
    method is asked. A stream whose requests name ever more asks for that itself, by `Call.access`.
    """

    entry: Need
    of_request: Callable[[bytes], Iterable[Need]] | None = None
    wishes: tuple[Need, ...] = ()

    def beyond_entry(self, request: bytes) -> Iterable[Need]:
        """What a request needs beyond `entry`. Raises RpcError while it is iterated."""
        return () if self.of_request is None else self.of_request(request)
