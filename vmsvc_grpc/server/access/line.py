"""Which question is asked next: callers take turns, however many questions each has. Pure."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Question = TypeVar("Question", bound=Hashable)


class Line(Generic[Question]):
    """Questions that wait, by who caused them. Each operation is O(1).

    At most `places` are under way at once, and `places_per_caller` of one caller. Who has those
    waits until one of them is done; the others have their turn meanwhile. Of one caller's, the
    sources (its connections) have theirs.
    """

    def __init__(self, places: int, places_per_caller: int) -> None:
        """Nothing waits."""
        self._places = places
        self._places_per_caller = places_per_caller
        self._under_way: Counter[str] = Counter()
        # By caller, and then by source in the order of their turns.
        self._waiting: dict[str, OrderedDict[str, OrderedDict[Question, None]]] = {}
        # Callers who have a question and a place for it, in the order of their turns.
        self._turns: OrderedDict[str, None] = OrderedDict()
        self.under_way = 0
        self.waiting = 0

    def add(self, caller: str, question: Question, source: str = "") -> None:
        """Have a question wait, behind the others of its source. It must not wait already."""
        sources = self._waiting.setdefault(caller, OrderedDict())
        questions = sources.setdefault(source, OrderedDict())
        assert question not in questions, "each question waits once"
        questions[question] = None
        self.waiting += 1
        self._take_turn(caller)

    def remove(self, caller: str, question: Question, source: str = "") -> None:
        """Drop a question that waits."""
        sources = self._waiting[caller]
        questions = sources[source]
        del questions[question]
        self.waiting -= 1
        if not questions:
            del sources[source]
        if not sources:
            del self._waiting[caller]
            self._turns.pop(caller, None)

    def next(self) -> Question | None:
        """The question to ask now; None if there is none, or no place. Its place is taken."""
        if self.under_way >= self._places or not self._turns:
            return None
        caller, _ = self._turns.popitem(last=False)
        sources = self._waiting[caller]
        source, questions = next(iter(sources.items()))
        sources.move_to_end(source)
        question = next(iter(questions))
        self.remove(caller, question, source)
        self._under_way[caller] += 1
        self.under_way += 1
        self._take_turn(caller)
        return question

    def done(self, caller: str) -> None:
        """A question of the caller is under way no more."""
        self.under_way -= 1
        self._under_way[caller] -= 1
        if not self._under_way[caller]:
            del self._under_way[caller]
        self._take_turn(caller)

    def _take_turn(self, caller: str) -> None:
        """Put a caller behind the others who wait for a turn, unless it cannot have one."""
        if caller in self._waiting and self._under_way[caller] < self._places_per_caller:
            self._turns.setdefault(caller)
