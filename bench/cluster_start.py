"""Scenario k: how long it takes to hold everything, and what that costs.

Ours reads from the API server, and from files; beside it, client-go's informers read the
same from the same API server.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from pathlib import Path

import yaml

from bench.cluster_objects import Object, Population
from bench.cluster_programs import log, ours, peer, populate, until
from bench.cluster_report import FROM_JSON, FROM_SERVER, FROM_YAML, INFORMERS
from bench.process import Process
from bench.results import Outcome
from tests.integration.cluster import World
from tests.kube.apiserver import FindBinary
from tests.program import Program, serving

_READING = re.compile(r"^(\S+) .* reading from ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Start:
    """One start: from the process's beginning, and from its first request, to all being held."""

    from_start_s: float
    from_request_s: float
    cpu_s: float
    rss_bytes: int

    @property
    def metrics(self) -> dict[str, float]:
        """What a report has of it."""
        return {
            "from_start_s": self.from_start_s,
            "from_request_s": self.from_request_s,
            "cpu_s": self.cpu_s,
            "rss_mib": self.rss_bytes / 2**20,
        }


Begin = Callable[[], Start]
"""Starts a program, and ends it."""


def cold_start(
    world: World,
    find: FindBinary,
    population: Population,
    *,
    objects_a_file: int,
    repeats: int,
    settle_s: float,
) -> Outcome:
    """Scenario k, on a cluster without VMs.

    Memory is looked at `settle_s` after all is held: Go gives back a little later what reading
    has left behind.
    """
    with tempfile.TemporaryDirectory(dir=world.folder) as folder:
        files = {suffix: Path(folder) / suffix for suffix in _FORMATS}
        begins: dict[str, Begin] = {
            FROM_SERVER: lambda: _ours(world, settle_s),
            INFORMERS: lambda: _informers(world, find, settle_s),
            FROM_JSON: lambda: _ours_from(world, files["json"], settle_s),
            FROM_YAML: lambda: _ours_from(world, files["yaml"], settle_s),
        }
        for directory in files.values():
            directory.mkdir()
        empty = {name: begin().rss_bytes for name, begin in begins.items()}
        populate(world, population)
        for suffix, directory in files.items():
            _write(directory, suffix, population, objects_a_file)
        outcome = Outcome(_title(population), {name: [] for name in begins})
        for _ in range(repeats):
            for name, begin in begins.items():
                start = begin()
                held_bytes = start.rss_bytes - empty[name]
                measured = start.metrics | {"rss_bytes_a_vm": held_bytes / population.vms}
                outcome.measured[name].append(measured)
    return outcome


def _title(population: Population) -> str:
    first = json.dumps(next(population.vm_objects()), separators=(",", ":"))
    vms = f"{population.vms:,} VMs of {len(first):,} bytes"
    return f"cold start with {vms} and {population.services:,} services"


def _ours(world: World, settle_s: float) -> Start:
    began = time.time()
    with ours(world) as program:
        return _measured(program, began, settle_s)


def _ours_from(world: World, directory: Path, settle_s: float) -> Start:
    began = time.time()
    with serving(["--manifests", directory, "--drain-s", "0"], log(world)) as program:
        return _measured(program, began, settle_s)


def _measured(program: Program, began: float, settle_s: float) -> Start:
    until(lambda: _ready(program), "ready")
    synced = time.time()
    said = _READING.search(program.said())
    assert said is not None, "it says when it begins to read"
    requested = datetime.fromisoformat(said[1]).timestamp()
    return _start(Process("ours", program.process), began, requested, synced, settle_s)


def _ready(program: Program) -> bool:
    try:
        with urllib.request.urlopen(f"http://{program.http}/readyz") as answer:
            return bool(answer.status == HTTPStatus.OK)
    except urllib.error.HTTPError:
        return False


def _informers(world: World, find: FindBinary, settle_s: float) -> Start:
    began = time.time()
    with peer(world, find, "informer") as process:
        requested = process.answer()["at_ns"] / 1e9
        synced = process.answer()["at_ns"] / 1e9
        return _start(process, began, requested, synced, settle_s)


def _start(
    process: Process, began: float, requested: float, synced: float, settle_s: float
) -> Start:
    cpu_s = process.cpu_s()
    time.sleep(settle_s)
    return Start(synced - began, synced - requested, cpu_s, process.rss_bytes())


def _json_text(objects: Sequence[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}, indent=2)


def _yaml_text(objects: Sequence[Object]) -> str:
    # What is read from JSON shares nothing, so there are no anchors.
    return yaml.dump_all(json.loads(json.dumps(objects)), Dumper=yaml.CSafeDumper)


_FORMATS = {"json": _json_text, "yaml": _yaml_text}


def _write(directory: Path, suffix: str, population: Population, objects_a_file: int) -> None:
    """Files as people have them: Lists in JSON as from `kubectl get`, or documents in YAML."""
    objects = list(population.objects())
    for first in range(0, len(objects), objects_a_file):
        text = _FORMATS[suffix](objects[first : first + objects_a_file])
        (directory / f"{first:06d}.{suffix}").write_text(text)
