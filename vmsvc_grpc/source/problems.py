"""The problems of manifest files now, and whom to call when they change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from vmsvc_grpc.model.problem import PROBLEMS_MAX, escaped


@dataclass(frozen=True, slots=True)
class FileProblem:
    """Something wrong with a file, or with the directory.

    `path` is relative to the directory, which itself is "."; `place` is where in the
    file, if known; `message` says what is wrong. All three are cut and escaped, as names of files
    and their content are others' text. `hides_objects`: there may be objects that could not be
    read, as in a text that does not parse, but not in one that parses and has a flaw. `resolved`:
    the problem is over.
    """

    path: str
    place: str
    message: str
    hides_objects: bool = False
    resolved: bool = False

    def __post_init__(self) -> None:
        for name in ("path", "place", "message"):
            object.__setattr__(self, name, escaped(getattr(self, name)))

    def __str__(self) -> str:
        place = f"{self.place}: " if self.place else ""
        return f"{self.path}: {'in order again: ' if self.resolved else ''}{place}{self.message}"


OnFileProblem = Callable[[FileProblem], None]
"""Called once for each problem, and once more, with `resolved`, when it is over."""


class Problems:
    """The problems now, for each topic (a file, for example)."""

    def __init__(self, report: OnFileProblem) -> None:
        self._report = report
        self._standing: dict[str, tuple[FileProblem, ...]] = {}
        self._hiding: set[str] = set()

    def put(self, topic: str, problems: Sequence[FileProblem], *, more: int = 0) -> None:
        """Replace the problems of a topic, and report changes.

        At most PROBLEMS_MAX are kept; the last of them counts the others, and `more` that were not
        passed. A problem that has only moved to another place is reported anew, but not as
        resolved.
        """
        before = self._standing.pop(topic, ())
        now = _bounded(problems, more)
        if now:
            self._standing[topic] = now
        if any(problem.hides_objects for problem in now):
            self._hiding.add(topic)
        else:
            self._hiding.discard(topic)
        for problem in now:
            if problem not in before:
                self._report(problem)
        messages = {problem.message for problem in now}
        for problem in before:
            if problem.message not in messages:
                self._report(replace(problem, resolved=True))

    def __iter__(self) -> Iterator[FileProblem]:
        """All problems now, in the order in which they were reported."""
        return (problem for group in self._standing.values() for problem in group)

    @property
    def count(self) -> int:
        """The number of problems now. O(files with a problem)."""
        return sum(map(len, self._standing.values()))

    @property
    def hide_objects(self) -> bool:
        """Whether there may be objects that could not be read. O(1)."""
        return bool(self._hiding)


def _bounded(problems: Sequence[FileProblem], more: int) -> tuple[FileProblem, ...]:
    if len(problems) + more <= PROBLEMS_MAX:
        return tuple(problems)
    first, others = problems[: PROBLEMS_MAX - 1], problems[PROBLEMS_MAX - 1 :]
    more += len(others)
    text = f"{more} more problems; mend these first"
    hide_objects = any(problem.hides_objects for problem in others)
    return (*first, replace(first[0], place="", message=text, hides_objects=hide_objects))
