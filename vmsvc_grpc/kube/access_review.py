"""What an API server says to a SubjectAccessReview, or to one about the caller's own rights."""

from __future__ import annotations

import msgspec

from vmsvc_grpc.model.decoding import decoder


class _Status(msgspec.Struct):
    allowed: bool = False
    denied: bool = False


class _Review(msgspec.Struct):
    status: _Status


_decode = decoder(_Review)


def granted(answer: bytes) -> bool:
    """Whether what was asked for is allowed. Raises msgspec.DecodeError."""
    status = _decode(answer).status
    return status.allowed and not status.denied
