"""`python -m bench.files`: give the program large files, and many, and say what they cost it."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import dataset
from bench.files.shapes import SHAPES, Shape
from bench.files.trees import Do, Tree
from bench.process import Process, python

_TREE = "tree"
_QUIET_S = 1.5
_QUIET_CPU_S = 0.08
_POLL_S = 0.1
_PATIENCE_S = 300.0
_FLAGS = ("--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0")

_COLUMNS = ("what", "step ms", "kept ms", "x size", "lines", "CPU s", "the longest step")


def main() -> int:
    """Measure what the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m bench.files", description=__doc__)
    parser.add_argument("--only", default="", metavar="KEYS", help="as in vms,one-text,rename")
    parser.add_argument("--bytes", type=int, default=16 * 1024 * 1024, help="of each large file")
    parser.add_argument("--files", type=int, default=10_000, help="of many, how many")
    given = parser.parse_args()
    only = given.only.split(",") if given.only else []
    known = {shape.key for shape in SHAPES} | {_TREE}
    if unknown := set(only) - known:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    _row(_COLUMNS)
    for shape in SHAPES:
        if not only or shape.key in only:
            for row in of_shape(shape, given.bytes):
                _row(row)
    if not only or _TREE in only:
        for row in of_tree(given.files):
            _row(row)
    return 0


def _row(row: tuple[str, ...]) -> None:
    print("| " + " | ".join(row) + " |", flush=True)


class _Measuring:
    """Looks at the program while something happens to its directory."""

    def __init__(self, server: Process, size: int) -> None:
        self._server = server
        self._size = size
        time.sleep(_QUIET_S)  # What it does at its start is no part of what it does always.
        idle_s = server.cpu_s()
        time.sleep(_QUIET_S)
        # Watching its own loop takes CPU, too, more on a slow machine.
        self._quiet_cpu_s = 2 * (server.cpu_s() - idle_s) + _QUIET_CPU_S
        self._before = server.rss_bytes()

    def row(self, do: Do) -> tuple[str, ...]:
        """What it costs the program that something happens, and what follows."""
        self._server.ask("mark")
        self._server.forget_peak()
        cpu_s = self._server.cpu_s()
        do()
        self._wait()
        cpu_s = self._server.cpu_s() - cpu_s
        times = (self._server.peak_bytes() - self._before) / self._size
        got = self._server.ask("report")
        name, longest_s, _ = next(iter(got["steps"]), ("", 0.0, 0))
        return (
            f"{longest_s * 1000:.0f}",
            f"{got['kept_s'] * 1000:.0f}",
            f"{times:.1f}",
            str(got["log_lines"]),
            f"{cpu_s:.1f}",
            name,
        )

    def _wait(self) -> None:
        """Until the program has done next to nothing for a while."""
        deadline = time.monotonic() + _PATIENCE_S
        cpu_s, since = self._server.cpu_s(), time.monotonic()
        while time.monotonic() - since < _QUIET_S and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            if (now := self._server.cpu_s()) - cpu_s > self._quiet_cpu_s:
                cpu_s, since = now, time.monotonic()


@contextmanager
def _program(folder: Path) -> Iterator[Process]:
    """The program, reading the `manifests` of a folder."""
    manifests = folder / "manifests"
    manifests.mkdir()
    with python("bench.standstills.subject", *_FLAGS, f"--manifests={manifests}") as server:
        server.answer()
        yield server


def of_shape(shape: Shape, size: int) -> Iterator[tuple[str, ...]]:
    """A file of that shape arrives, is replaced by one that says something else, and goes."""
    with tempfile.TemporaryDirectory(prefix="files-") as name, _program(Path(name)) as server:
        beside = Path(name) / "beside"
        place = Path(name) / "manifests" / f"large.{shape.suffix}"
        measuring = _Measuring(server, size)
        for number, what in enumerate(("arrives", "is replaced")):
            made = shape.make(size, number)
            assert len(made) <= size, "the bound is not what is measured"
            beside.write_bytes(made)
            del made
            yield f"{shape.key} {what}", *measuring.row(lambda: beside.rename(place))
        yield f"{shape.key} goes", *measuring.row(place.unlink)


def of_tree(files: int) -> Iterator[tuple[str, ...]]:
    """What happens to a directory of so many files."""
    with tempfile.TemporaryDirectory(prefix="files-") as name, _program(Path(name)) as server:
        measuring = _Measuring(server, files * len(dataset.vm_json(0, 0, 0)))
        for what, do in Tree(Path(name), files, server.pid).steps():
            yield f"{_TREE}: {what}", *measuring.row(do)


if __name__ == "__main__":
    sys.exit(main())
