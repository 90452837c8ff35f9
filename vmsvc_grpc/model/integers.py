"""The whole numbers of Kubernetes' objects: 64 bits, one of them the sign.

A larger one is a floating-point number to kubectl and an API server.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

Int64 = Annotated[int, msgspec.Meta(ge=INT64_MIN, le=INT64_MAX)]
"""A whole number as Kubernetes has them; JSON itself sets them no bound."""


def is_int64(number: float) -> bool:
    """Whether the number, or its whole part, is within these bounds."""
    return INT64_MIN <= number <= INT64_MAX
