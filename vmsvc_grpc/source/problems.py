"""What is wrong with manifest files now, and whom to tell when that changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vmsvc_grpc.model.problem import escaped


@dataclass(frozen=True, slots=True)
class FileProblem:
    """Something wrong with a file, or with the directory.

    `path` is relative to the directory, which itself is "."; `place` is where in the
    file, if known; `message` says what is wrong. All three are cut and escaped: names of
    files and what stands in them are others' text. `hides_objects` is whether objects may
    be there that nobody could read. `resolved` tells that it is wrong no more.
    """

    path: str
    place: str
    message: str
    hides_objects: bool = True
    resolved: bool = False

    def __post_init__(self) -> None:
        for name in ("path", "place", "message"):
            object.__setattr__(self, name, escaped(getattr(self, name)))

    def __str__(self) -> str:
        place = f"{self.place}: " if self.place else ""
        return f"{self.path}: {'in order again: ' if self.resolved else ''}{place}{self.message}"


Report = Callable[[FileProblem], None]
"""Told of each problem once, and once more, with `resolved`, when it has gone."""


class Problems:
    """The problems that stand now. Each topic (a file, say) has its own."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._standing: dict[str, tuple[FileProblem, ...]] = {}

    def put(self, topic: str, problems: Sequence[FileProblem]) -> None:
        """From now on the topic has these problems and no others; report what is new.

        One that has only moved to another place is told anew, but not as resolved.
        """
        before = self._standing.pop(topic, ())
        if problems:
            self._standing[topic] = tuple(problems)
        for problem in problems:
            if problem not in before:
                self._report(problem)
        messages = {problem.message for problem in problems}
        for problem in before:
            if problem.message not in messages:
                self._report(replace(problem, resolved=True))

    @property
    def standing(self) -> tuple[FileProblem, ...]:
        """All that is wrong now, by path and place."""
        problems = (problem for group in self._standing.values() for problem in group)
        return tuple(sorted(problems, key=lambda problem: (problem.path, problem.place)))

    @property
    def hide_objects(self) -> bool:
        """Whether objects may be there that nobody could read."""
        return any(problem.hides_objects for group in self._standing.values() for problem in group)
