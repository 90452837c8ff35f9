"""The cluster benchmark's scenarios, very small: what they do and count, not how fast it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import pytest

from bench.cluster_latency import latency
from bench.cluster_objects import Population, bare, vm, vm_service
from bench.cluster_reconcile import reconciling
from bench.cluster_report import (
    ANSWER,
    ENDPOINTS,
    FROM_JSON,
    FROM_SERVER,
    FROM_YAML,
    INFORMERS,
    OURS,
    SLICE,
    STREAM,
    VM,
    markdown,
)
from bench.cluster_start import cold_start
from bench.results import Results
from tests.integration.cluster import World, path, world

pytestmark = pytest.mark.nightly

__all__ = ["world"]

FindBinary = Callable[[str], Path]


def in_namespaces(
    world: World, vms: int, services: int, first_address: int, *, bare: bool = False
) -> Population:
    namespaces = tuple(world.cluster.create_namespace("bench") for _ in range(2))
    return Population(vms, services, namespaces, first_address, bare)


def test_its_objects_are_what_the_crds_allow(world: World) -> None:
    namespace = world.cluster.create_namespace("bench")
    for resource, made in (
        ("virtualmachines", vm(namespace, "a", "app", "10.0.0.7")),
        ("virtualmachines", bare(vm(namespace, "b", "app", "10.0.0.8"))),
        ("virtualmachineservices", vm_service(namespace, "app")),
    ):
        del made["metadata"]["uid"]
        made["metadata"].pop("managedFields", None)
        where = f"{path(resource, namespace)}?dryRun=All&fieldValidation=Strict"
        answer = world.hands.ask("POST", where, made)
        assert answer.status == HTTPStatus.CREATED, answer
    assert (
        4_500
        < len(json.dumps(vm(namespace, "a", "app", "10.0.0.7"), separators=(",", ":")))
        < 5_500
    )


def test_cold_start(world: World, find_binary: FindBinary) -> None:
    population = in_namespaces(world, 20, 4, 0x1000)
    outcome = cold_start(world, find_binary, population, objects_a_file=6, repeats=1, settle_s=0)
    assert set(outcome.measured) == {FROM_SERVER, INFORMERS, FROM_JSON, FROM_YAML}
    for (start,) in outcome.measured.values():
        assert 0 < start["from_request_s"] <= start["from_start_s"]
        assert start["rss_mib"] > 0
    assert "| k: RSS a VM |" in markdown(Results({}, {"k": outcome}))


def test_reconciling(world: World) -> None:
    population = in_namespaces(world, 12, 3, 0x2000, bare=True)
    outcome = reconciling(world, population, over_s=0.5, repeats=1)
    (burst,) = outcome.measured[OURS]
    assert 3 <= burst["writes"] <= 12
    assert 1 <= burst["writes_in_1s"] <= 4
    assert burst["other_writes"] == 0


def test_latency(world: World, find_binary: FindBinary) -> None:
    population = in_namespaces(world, 4, 2, 0x3000)
    outcome = latency(world, find_binary, population, samples=4, repeats=2)
    assert set(outcome.measured) == {ANSWER, VM, STREAM, ENDPOINTS, SLICE}
    for runs in outcome.measured.values():
        assert len(runs) == 2
        # It came after the write, so it was not of an earlier one.
        assert all(0 < run["p50_ms"] <= run["p99_ms"] for run in runs)
