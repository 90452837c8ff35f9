"""What runs beside a real API server under measure: ours, and the programs of `bench/kube`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path

from bench.cluster_objects import Population, etcd_key
from bench.process import BenchError, Process, running
from tests.integration.cluster import Hands, World, path
from tests.kube.apiserver import FindBinary
from tests.program import Program, awaited, serving

PATIENCE_S = 300.0


@contextmanager
def ours(world: World, *flags: str) -> Iterator[Program]:
    """Our program with the rights of deploy/base, on the API server itself."""
    kubeconfig = world.kubeconfig(world.account())
    with serving(["--kubeconfig", kubeconfig, "--drain-s", "0", *flags], log(world)) as program:
        yield program


@contextmanager
def peer(world: World, find: FindBinary, name: str, *flags: str) -> Iterator[Process]:
    """A program of `bench/kube`, which has the administrator's rights."""
    kubeconfig = world.kubeconfig(world.cluster.admin)
    with running(name, [find(name), f"--kubeconfig={kubeconfig}", *flags]) as process:
        yield process


def log(world: World) -> Path:
    """A new file for what a program says."""
    with tempfile.NamedTemporaryFile(dir=world.folder, suffix=".log", delete=False) as file:
        return Path(file.name)


def populate(world: World, population: Population) -> None:
    """Have everything exist, as if it had been for long.

    Returns once the API server has all of it in its own cache, from which it answers.
    """
    objects = {etcd_key(object_): object_ for object_ in population.objects()}
    world.cluster.etcd.put_all(objects)
    for resource in ("virtualmachines", "virtualmachineservices"):
        newest = world.hands.ask("GET", f"{path(resource)}?limit=1").body["metadata"]
        until(partial(_cached, world, resource, newest["resourceVersion"]), "told of everything")


def _cached(world: World, resource: str, version: str) -> bool:
    """Whether the API server's cache has come so far; it answers 504 while it has not."""
    query = f"labelSelector=nobody&resourceVersion={version}&resourceVersionMatch=NotOlderThan"
    return world.cluster.request("GET", f"{path(resource)}?{query}").status == HTTPStatus.OK


def report(hands: Hands, population: Population, number: int) -> None:
    """Have the VM whose turn it is report the address of this number."""
    where = path("virtualmachines", *population.vm_key(number % population.vms))
    network = {"primaryIP4": population.address(number)}
    answer = hands.patch(f"{where}/status", {"status": {"network": network}})
    if answer.status != HTTPStatus.OK:
        raise BenchError(f"a VM cannot report: {answer}")


def until(condition: Callable[[], object], what: str, poll_s: float = 0.02) -> None:
    """Returns once the condition holds. Raises BenchError if it does not come to hold."""
    if not awaited(condition, PATIENCE_S, poll_s):
        raise BenchError(f"not {what} within {PATIENCE_S:g} s")


def endpoints(hands: Hands, namespaces: Sequence[str]) -> dict[tuple[str, str], frozenset[str]]:
    """The ready addresses of all Endpoints in these namespaces, by namespace and name."""
    return {
        (namespace, item["metadata"]["name"]): frozenset(
            each["ip"]
            for subset in item.get("subsets") or ()
            for each in subset.get("addresses") or ()
        )
        for namespace in namespaces
        for item in hands.listed("endpoints", namespace)
    }
