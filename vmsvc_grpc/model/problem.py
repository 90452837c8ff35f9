"""What is wrong with an object: which field, and what to do."""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """What is wrong with an object.

    `field` is a path as Kubernetes writes it (`spec.ports[0].port`); `message` says
    what is wrong and what to do, and does not repeat the field.
    """

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"
