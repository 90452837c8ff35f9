"""What a call needs: rights as Kubernetes names them, or less than a right."""

from __future__ import annotations

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
