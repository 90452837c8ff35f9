"""What is fed where a balancer would be left without servers, as the command line names it.

Imports no gRPC, as the command line does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Policy(Enum):
    """What is fed of a service in a case in which a balancer would be left without servers."""

    EMPTY = "empty"
    """That there are none."""
    KEEP = "keep"
    """Its last state that had some."""


@dataclass(frozen=True, slots=True)
class Policies:
    """`absent`: the service does not exist, or is refused. `no_endpoints`: none is ready."""

    absent: Policy
    no_endpoints: Policy
