"""In which order everybody is served who wants something at the same time."""

from __future__ import annotations

import subprocess
import sys

from tests.integration import many_events
from tests.integration.serving import PATIENCE_S


def test_many_events_of_grpc_come_in_few_turns_of_the_event_loop() -> None:
    """Beyond some 280 at a time they came one a turn, and whoever looked something up waited."""
    script = [sys.executable, "-m", many_events.__name__]
    turns = int(subprocess.check_output(script, timeout=PATIENCE_S))
    assert turns < many_events.STREAMS / 4
