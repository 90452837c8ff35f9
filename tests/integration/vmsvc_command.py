"""What tests of the command `vmsvc` have in common: its environment, and what it serves from."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.program import PATIENCE_S, Program, serving

# Whoever runs the tests may have settings of their own. Of a terminal's size, too: pytest-xdist's
# workers have one, and a shell hands it on to what it starts, whatever the size is by then.
ENVIRONMENT = {
    k: v
    for k, v in os.environ.items()
    if not k.startswith("VMSVC_") and "proxy" not in k.lower() and k not in ("COLUMNS", "LINES")
}


@contextmanager
def serving_manifests(text: str, folder: Path) -> Iterator[Program]:
    """A server of these manifests, which stand in `folder`, in `manifests/all.yaml`."""
    manifests = folder / "manifests"
    manifests.mkdir()
    (manifests / "all.yaml").write_text(text)
    with serving(["--manifests", manifests, "--drain-s", "0.2"], folder / "log") as program:
        yield program


def line_of(stream: IO[bytes] | None) -> str:
    """The next line of an unbuffered pipe."""
    assert stream is not None
    line = b""
    while not line.endswith(b"\n"):
        assert select.select([stream], [], [], PATIENCE_S)[0], f"no more was told than {line!r}"
        byte = stream.read(1)
        assert byte, f"it ended after {line!r}"
        line += byte
    return line.decode()
