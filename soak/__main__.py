"""`make soak`: the program under every fault for as long as one likes, and a report."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from soak import checks
from soak.acting import Deck, repeating
from soak.faults import faults
from soak.report import markdown
from soak.stage import Stage, staged

# So that two cores do something else, too: what is tried is what is left, not how much there is.
_CHURN_PAUSE_S = 0.15
_FILES_PAUSE_S = 0.5
_FAULT_PAUSE_S = 1.0
_SAMPLE_PAUSE_S = 1.0


def main() -> int:
    """Soak, write the report, print it; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (30)")
    parser.add_argument("--envoys", type=int, default=100, help="how many follow all (100)")
    parser.add_argument("--seed", type=int, help="of the dice; a new one, if none is given")
    parser.add_argument("--into", type=Path, default=Path("out/soak"), help="the report's folder")
    given = parser.parse_args()
    seed = random.randrange(2**32) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    started = time.monotonic()
    with staged(seed, given.envoys) as stage:
        deck = Deck(faults(stage.world, stage.replicas, stage.authority, stage.secret), seed)
        steps = _soaked(stage, deck, started + given.minutes * 60)
        lasted_s = time.monotonic() - started
        wrong = list(_ended(stage))
        counts = {"changes": steps, **stage.files.counts, **stage.crowd.counts, **deck.counts}
        text = markdown(seed, lasted_s, counts, stage.memory, wrong)
        given.into.mkdir(parents=True, exist_ok=True)
        (given.into / "report.md").write_text(text)
        print(text, flush=True)
        for log in stage.folder.glob("*.log"):
            shutil.copy(log, given.into)
    return 1 if wrong else 0


def _soaked(stage: Stage, deck: Deck, until_s: float) -> int:
    """Everything at once until that time; how many changes there were of VMs and services."""
    steps = 0

    def step() -> None:
        nonlocal steps
        stage.site.step()
        steps += 1

    with (
        repeating("memory", stage.sample, _SAMPLE_PAUSE_S),
        repeating("churn", step, _CHURN_PAUSE_S),
        repeating("files", stage.files.step, _FILES_PAUSE_S),
    ):
        deck.play(until_s, _FAULT_PAUSE_S)
    return steps


def _ended(stage: Stage) -> Iterator[str]:
    """What is wrong, once all has come to rest."""
    stage.files.mend()
    stage.crowd.calm()
    yield from checks.agreement(stage)
    yield from checks.envoys(stage)
    yield from checks.files(stage)
    stage.crowd.close()
    yield from checks.leavings(stage)
    yield from checks.memory(stage)


if __name__ == "__main__":
    sys.exit(main())
