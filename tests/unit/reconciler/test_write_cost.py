"""What a write of a large Endpoints costs the event loop (issue 9, point 3).

How long it takes is `python -m bench.write_cost`'s to say. What makes it so does not depend on
the machine: no Python runs for each endpoint, from the VM's event to the echo of our write.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from types import FrameType

from bench.write_cost import DIRECT, MIRRORED, World
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.reconciler.slices import ENDPOINTS_MAX


def calls_of_a_write(endpoints: int, rules: Rules = MIRRORED) -> Counter[str]:
    """How often each Python function is called for one VM's change of a service, and its writes."""
    world = World(endpoints, rules)
    world.write(1)
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            calls[frame.f_code.co_qualname] += 1

    before = sys.getprofile()
    gc.disable()  # Others have callbacks in it.
    sys.setprofile(note)
    try:
        world.write(3)
    finally:
        sys.setprofile(before)
        gc.enable()
    return calls


def test_a_write_calls_as_many_functions_at_5000_endpoints_as_at_500() -> None:
    """Two whole manifests were rendered and compared: 40,000 calls at 5,000 endpoints."""
    few, many = calls_of_a_write(500), calls_of_a_write(5000)
    assert many - few == Counter()


def test_with_direct_slices_a_write_calls_functions_by_the_slices_not_the_endpoints() -> None:
    """An endpoint's id was worked out five times at each look: 67,000 calls in each of three."""
    few, many = calls_of_a_write(500, DIRECT), calls_of_a_write(5000, DIRECT)
    slices_more = (5000 - 500) // ENDPOINTS_MAX
    assert (many - few).total() <= 100 * slices_more
