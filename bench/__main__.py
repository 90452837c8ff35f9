"""`python -m bench`: measure the streams, and write a report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import plot, readme, report, results, streams
from bench.process import BenchError
from bench.serving import allow_connections

_REPORTS = Path(__file__).parent / "reports"


def main() -> int:
    """Run what the arguments name, and leave the rest of the report; 1 where a part failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter: some 6 minutes")
    parser.add_argument("--only", default="", metavar="KEYS", help="scenarios, as in a,i-e,q-file")
    parser.add_argument("--into", type=Path, default=_REPORTS, help="folder of the report")
    parser.add_argument("--readme", type=Path, help="a file whose table is to be made anew, too")
    parser.add_argument("--again", action="store_true", help="measure nothing, write all anew")
    given = parser.parse_args()
    chosen = every = streams.quick() if given.quick else streams.scenarios()
    if given.only:
        try:
            chosen = streams.chosen(every, given.only.split(","))
        except ValueError as error:
            parser.error(f"no such scenario: {error}")
    given.into.mkdir(parents=True, exist_ok=True)
    file = given.into / "streams.json"
    if given.again:
        _write(results.load(file), given.into, given.readme)
        return 0
    allow_connections()  # The load client inherits it.
    try:
        measured = results.run(chosen, _note)
    except BenchError as error:
        _note(f"bench: {error}")
        return 1
    if given.only and file.exists():
        measured = results.merged(results.load(file), measured, every)
    measured.save(file)
    _write(measured, given.into, given.readme)
    return 0


def _write(measured: results.Results, folder: Path, table_in: Path | None) -> None:
    text = report.markdown(measured, plot.plots(measured, folder))
    (folder / "streams.md").write_text(text)
    if table_in is not None and not readme.rewrite(table_in, measured):
        _note(f"bench: {table_in} stays as it is: not all of its table has been measured yet")
    print(text)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
