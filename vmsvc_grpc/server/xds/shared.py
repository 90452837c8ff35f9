"""What all streams of xDS of one server have in common, and what they report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.leaving import LetGo
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.xds.following import XdsScope
from vmsvc_grpc.server.xds.listing import Listings
from vmsvc_grpc.server.xds.names import References
from vmsvc_grpc.server.xds.namespaces import Namespaces
from vmsvc_grpc.server.xds.resources import Resources, TypeUrl

LOOKS_MAX = 128
"""How many names a stream looks at before others have their turn: some ms, as the first look at a
name encodes it. Also how many resources make a response worth a turn of its own."""

# To take in a name that is asked for, or to take one away, costs so much less than to look at one.
_NAMES_A_LOOK = 4


class Form(Enum):
    """The two forms of the protocol."""

    SOTW = "state of the world"
    DELTA = "delta"


@dataclass(frozen=True, slots=True)
class Nack:
    """A NACK: which content a client refuses, and its words.

    `names` are those in the rejected response that have not been sent again since; `version`
    is a digest of what was sent.
    """

    node: str
    type_url: TypeUrl
    names: Sequence[str]
    version: str
    message: str
    client: str


OnExcess = Callable[[str, str, str], None]
"""Called for each name that is not followed, with client, name and setting. Must only take note."""

OnNack = Callable[[Nack], None]
"""Called for each NACK. Must only take note."""


@dataclass(frozen=True, slots=True)
class XdsShared:
    """What all streams of a server have in common."""

    cache: Cache
    resources: Resources
    listings: Listings
    namespaces: Namespaces
    scope: XdsScope
    references: References
    limits: Limits
    counts: ServerCounts
    on_refusal: OnNack
    on_excess: OnExcess
    let_go: LetGo
    looks_max: int = LOOKS_MAX

    @property
    def names_a_turn(self) -> int:
        """How many names a stream takes in, or takes away, in one turn: some 10 ms of work."""
        return self.looks_max * _NAMES_A_LOOK
