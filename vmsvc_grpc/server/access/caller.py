"""What a transport knows of a caller: where it is, and what it shows to say who it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from vmsvc_grpc.server.access.certificate import ClientCertificate

_NOT_ONE = (
    "this call has several `authorization` values, and nobody knows which one counts; send one"
)
_NO_BEARER = (
    "this call's `authorization` is no bearer token; send `Bearer TOKEN`, or nothing and a client "
    "certificate"
)


@dataclass(frozen=True, slots=True)
class Caller:
    """The client of one call, as its transport sees it.

    `peer` is its address, in gRPC's form. If it is not `guarded`, it came over a listener on which
    everything is allowed. `token` is the bearer token of the call, "" if there is none; if it shows
    one that cannot be read, `problem` is a sentence for the caller. `certificate` is the client's,
    verified; None if there is none. Whoever holds a Caller holds a secret: drop it as soon as the
    gate has it. Its text has neither.
    """

    peer: str
    guarded: bool = False
    token: str = field(default="", repr=False)
    certificate: ClientCertificate | None = field(default=None, repr=False)
    problem: str = ""

    def showing(self, values: Sequence[bytes]) -> Caller:
        """The same, with what a call's `authorization` fields say (RFC 6750, 2.1).

        Fields that say nothing clear are a `problem`, and not as if there were none: the call would
        be somebody else's, whom the connection's certificate names.
        """
        if not values:
            return self
        if len(values) > 1:
            return replace(self, problem=_NOT_ONE)
        # RFC 9110, 5.5: blanks around a value are not of it.
        match = _BEARER.fullmatch(values[0].strip(b" \t"))
        if match is None:
            return replace(self, problem=_NO_BEARER)
        return replace(self, token=match[1].decode())


# RFC 7235, 2.1: the scheme in any case. More than a b64token is taken: the API server judges it.
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([\x21-\x7e]+)")
