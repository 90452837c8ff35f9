"""What a check has found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vmsvc_grpc.model.problem import escaped


class Grade(Enum):
    """How good or bad a finding is; the value is its name in JSON."""

    OK = "ok"
    WARNING = "warning"
    """`serve` runs, but with less than it could, or not for long."""
    FAILED = "failed"
    """`serve` ends at once, or does not do what it is there for."""
    SKIPPED = "skipped"
    """It could not be found out, as another check has failed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked. Texts are one line each, cut and escaped.

    `name` stays the same from release to release, for programs; `advice` says what to do.
    """

    name: str
    grade: Grade
    text: str
    advice: str = ""

    def __post_init__(self) -> None:
        for name in ("text", "advice"):
            object.__setattr__(self, name, escaped(getattr(self, name)))


def ok(name: str, text: str) -> Finding:
    """Nothing is wrong there."""
    return Finding(name, Grade.OK, text)


def warning(name: str, text: str, advice: str) -> Finding:
    """Something to know of."""
    return Finding(name, Grade.WARNING, text, advice)


def failed(name: str, text: str, advice: str) -> Finding:
    """Something to mend."""
    return Finding(name, Grade.FAILED, text, advice)


def skipped(name: str, text: str) -> Finding:
    """Something that could not be checked."""
    return Finding(name, Grade.SKIPPED, text)
