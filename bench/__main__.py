"""`python -m bench`: measure the streams, and write a report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import plot, report, results, streams
from bench.process import BenchError
from bench.serving import allow_connections

_REPORTS = Path(__file__).parent / "reports"


def main() -> int:
    """Run what the arguments name, and leave the rest of the report; 1 where a part failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter: some 6 minutes")
    parser.add_argument("--only", default="", metavar="KEYS", help="scenarios, as in a,i-e,q-file")
    parser.add_argument("--into", type=Path, default=_REPORTS, help="folder of the report")
    given = parser.parse_args()
    chosen = every = streams.quick() if given.quick else streams.scenarios()
    if given.only:
        try:
            chosen = streams.chosen(every, given.only.split(","))
        except ValueError as error:
            parser.error(f"no such scenario: {error}")
    allow_connections()  # The load client inherits it.
    try:
        measured = results.run(chosen, _note)
    except BenchError as error:
        _note(f"bench: {error}")
        return 1
    given.into.mkdir(parents=True, exist_ok=True)
    file = given.into / "streams.json"
    if given.only and file.exists():
        measured = results.merged(results.load(file), measured, every)
    measured.save(file)
    text = report.markdown(measured, plot.plots(measured, given.into))
    (given.into / "streams.md").write_text(text)
    print(text)
    return 0


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
