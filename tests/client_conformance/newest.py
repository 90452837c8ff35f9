"""What a client may show that gives only the newest state, once all has been known."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.client_conformance.case_pb2 import Shown
from tests.client_conformance.driver import Line
from tests.client_conformance.shown import agrees, brief, on_the_way, service_of


@dataclass(slots=True)
class Row:
    """The states that cases expect, one after the other, and how far a client has come in them.

    Of each service it may leave some out, but not the last one, and shows none again.
    """

    synced: bool = False
    ever_synced: bool = False
    _expected: list[Shown] = field(default_factory=list)
    # By service: which of those was shown last.
    _reached: dict[str, int] = field(default_factory=dict)

    def expect(self, shown: Shown) -> None:
        """Take in what a client is to show next, if it shows everything."""
        match shown.WhichOneof("event"):
            case "synced":
                self.synced = self.ever_synced = True
            case "disconnected":
                self.synced = False
            case _:
                self._expected.append(shown)

    def due(self) -> bool:
        """Whether something is to be shown yet. What is not known for sure may wait."""
        newest = {service_of(shown): index for index, shown in enumerate(self._expected)}
        return self.synced and any(not self._has(name, index) for name, index in newest.items())

    def take(self, line: Line | None) -> None:
        """Take in what the client shows. Raises AssertionError if it should not."""
        service = line.get("service", "") if line else ""
        first = self._reached.get(service, -1) + 1
        for index, shown in enumerate(self._expected[first:], first):
            if agrees(shown, line):
                self._reached[service] = index
                return
            if on_the_way(shown, line):
                return
        raise AssertionError(f"it shows {brief(line)}, which is not to come")

    def _has(self, service: str, index: int) -> bool:
        """Whether the client has shown this, or the same before what it left out."""
        reached = self._reached.get(service, -1)
        return reached >= 0 and self._expected[reached] == self._expected[index]
