"""What a transport knows of a caller: where it is, and what it shows to say who it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from vmsvc_grpc.server.access.certificate import ClientCertificate


@dataclass(frozen=True, slots=True)
class Caller:
    """The client of one call, as its transport sees it.

    `peer` is its address, in gRPC's form. If it is not `guarded`, it came over a listener on which
    everything is allowed. `token` is the bearer token of the call, "" if there is none;
    `certificate` is the client's, verified; None if there is none. Whoever holds a Caller holds a
    secret: drop it as soon as the gate has it. Its text has neither.
    """

    peer: str
    guarded: bool = False
    token: str = field(default="", repr=False)
    certificate: ClientCertificate | None = field(default=None, repr=False)


# RFC 7235, 2.1: the scheme in any case. More than a b64token is taken: the API server judges it.
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([\x21-\x7e]+)")


def bearer_token(values: Sequence[bytes]) -> str:
    """The bearer token in a call's `authorization` fields (RFC 6750, 2.1), or "".

    Of several, none: nobody knows which one counts.
    """
    match = _BEARER.fullmatch(values[0]) if len(values) == 1 else None
    return match[1].decode() if match is not None else ""
