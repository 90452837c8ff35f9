"""The cases of clients/conformance as values: read, and checked against their format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import yaml
from google.protobuf.json_format import ParseDict, ParseError

from tests.client_conformance import case_pb2

CASES = Path(__file__).parents[2] / "clients" / "conformance" / "cases"

# A file may name values once, for aliases of YAML in its cases.
_VALUES = "values"


class TableError(Exception):
    """A file has no cases, or wrong ones. Its text names the file, and says what is wrong."""


def read(folder: Path) -> Sequence[case_pb2.Case]:
    """All cases of a folder's YAML files, by file. Raises TableError."""
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise TableError(f"{folder} has no cases")
    cases = [case for path in paths for case in _read(path)]
    names = [case.name for case in cases]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise TableError(f"{folder} has two cases with the name {doubled[0]!r}")
    return cases


def _read(path: Path) -> Sequence[case_pb2.Case]:
    try:
        return parse(path.read_text())
    except (TableError, yaml.YAMLError) as error:
        raise TableError(f"{path.name}: {error}") from error


def parse(text: str) -> Sequence[case_pb2.Case]:
    """The cases of one file. Raises TableError or YAMLError."""
    content = yaml.safe_load(text)
    if not isinstance(content, dict):
        raise TableError("it is no mapping with cases")
    content.pop(_VALUES, None)
    try:
        table = ParseDict(content, case_pb2.Table())
    except ParseError as error:
        raise TableError(str(error)) from error
    for case in table.cases:
        if flaw := _flaw(case):
            raise TableError(f"{case.name or 'a case without a name'}: {flaw}")
    return table.cases


def _flaw(case: case_pb2.Case) -> str:
    """What the format rules out and its types do not; empty if nothing is wrong."""
    if not case.name:
        return "name: required"
    if not (case.watch.services or case.watch.namespaces or case.watch.all_services):
        return "watch: nothing is to be watched"
    if not any(step.HasField("opens") for step in case.steps):
        return "steps: the client is to open no stream"
    if not (case.steps[-1].shows or case.steps[-1].gives_up):
        return "steps: what the client shows at the end is not said"
    flaws = (
        f"steps[{index}]{flaw}" for index, step in enumerate(case.steps) for flaw in _flaws(step)
    )
    return next(flaws, "")


def _flaws(step: case_pb2.Step) -> Iterator[str]:
    if not step.ListFields():
        yield ": nothing happens"
    if step.HasField("ends") and step.ends.code not in grpc.StatusCode.__members__:
        yield f".ends.code: {step.ends.code!r} is no status code of gRPC"
    for place, shown in enumerate(step.shows):
        if shown.WhichOneof("event") is None:
            yield f".shows[{place}]: nothing is shown"
    for place, digits in enumerate(step.sends_bytes):
        try:
            bytes.fromhex(digits)
        except ValueError:
            yield f".sends_bytes[{place}]: {digits!r} is no hexadecimal number"
