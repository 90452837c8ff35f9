"""What kubectl reads in a manifest file: its own reader (`reader/`), asked again and again."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self


class Reading(NamedTuple):
    """The objects of a file in their order, and what kubectl says of the rest."""

    objects: list[dict[str, Any]]
    errors: list[str]

    @property
    def parsed(self) -> bool:
        """Whether it got through the whole file: what is wrong is so with single objects."""
        return not any(error.startswith("error parsing") for error in self.errors)


class KubectlReader:
    """A process that reads files. Use it as a context manager."""

    def __init__(self, binary: Path, folder: Path) -> None:
        """`folder` takes the file that is read."""
        self._file = folder / "manifest.yaml"
        self._process = subprocess.Popen(
            [binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate(timeout=10)

    def read(self, content: bytes) -> Reading:
        """What a file of these bytes says."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._file.write_bytes(content)
        self._process.stdin.write(f"{self._file}\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Reading(answer["objects"], answer["errors"])
