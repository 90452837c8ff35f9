"""The conformance cases, those of an API server too, as far as Service and Endpoints go.

Everything but I/O: objects are parsed, taken into a cache, planned for, and what a plan
says is held as manifests. What only an API server does (fill in fields, events,
conditions, finalizers) is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.case import (
    VM_SERVICE,
    Apply,
    Case,
    Delete,
    Manifest,
    ObjectId,
    Patch,
    Stage,
    applied,
    deleted,
    id_of,
    load_all,
    named,
)
from tests.conformance.expectation import Observed, differences, without_filled_in
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model import events
from vmsvc_grpc.model.objects import IPFamily, Key, Kind
from vmsvc_grpc.model.parse import parse
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.reconciler.desired import desired
from vmsvc_grpc.reconciler.held import HeldObjects
from vmsvc_grpc.reconciler.manifest import manifest
from vmsvc_grpc.reconciler.plan import Change, plan
from vmsvc_grpc.reconciler.rules import Rules

CASES = load_all(Path(__file__).parents[2] / "conformance" / "cases")

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
SECTIONS = ("service", "endpoints", "absent", "rejected")
WRITES_MAX = 10


class World:
    """Manifests, the cache that knows them, and what follows from it."""

    def __init__(self, case: Case) -> None:
        families = tuple(map(IPFamily, case.ip_families))
        self.manifests: dict[ObjectId, Manifest] = {}
        provider = case.load_balancer_provider or ""
        self._rules = Rules(load_balancer_provider=provider, cluster_families=families)
        self._cache = Cache(AddressRules(cluster_families=families), kinds=Kind)
        for kind in Kind:
            self._cache.apply(events.Init(kind))
            self._cache.apply(events.InitDone(kind))

    def perform(self, edit: Apply | Delete | Patch) -> None:
        match edit:
            case Apply(given):
                id_ = id_of(given)
                self._put(id_, applied(self.manifests.get(id_), given))
            case Delete(id_):
                self._put(id_, deleted(self.manifests[id_]))
            case Patch(patch):
                id_ = named(patch, patch["kind"])
                self._put(id_, let_go(merged(self.manifests[id_], patch["patch"])))

    def settle(self) -> list[str]:
        """Make the changes that are due until there are none; which they were."""
        made: list[str] = []
        while changes := list(self._due()):
            made.append(str(changes[0]))
            assert len(made) <= WRITES_MAX, f"it does not come to rest: {made}"
            change = changes[0]
            id_ = ObjectId(change.kind.value, *change.key)
            self._put(id_, manifest(change.after) if change.after else None)
        return made

    def served(self, id_: ObjectId) -> list[str]:
        """The addresses of a VMService that streams show now, sorted."""
        service = self._cache.services[Key(id_.namespace, id_.name)]
        return [endpoint.address for endpoint in service.endpoints]

    def wrong(self, stage: Stage) -> list[str]:
        wanted = {section: stage.expect[section] for section in SECTIONS if section in stage.expect}
        expect = without_filled_in(wanted, self.manifests.values())
        refusals = {
            ObjectId(VM_SERVICE, *key): "; ".join(map(str, problems))
            for (kind, key), problems in self._cache.problems.items()
            if kind is Kind.VIRTUAL_MACHINE_SERVICE
        }
        return differences(expect, Observed(self.manifests, refusals))

    def _put(self, id_: ObjectId, new: Manifest | None) -> None:
        kind = Kind(id_.kind)
        if new is None:
            self.manifests.pop(id_, None)
            self._cache.apply(events.Delete(kind, Key(id_.namespace, id_.name)))
        else:
            self.manifests[id_] = new = with_target_ports(new)
            self._cache.apply(events.Apply(parse(kind, new)))

    def _due(self) -> Iterator[Change]:
        cache = self._cache
        for key in {*cache.services, *cache.stored_services, *cache.stored_endpoints}:
            service = cache.services.get(key)
            observed = HeldObjects(
                vmservice=service.object if service else None,
                service=cache.stored_services.get(key),
                endpoints=cache.stored_endpoints.get(key),
            )
            wanted = desired(
                observed,
                service.spec if service else None,
                service.endpoints if service else (),
                self._rules,
            )
            yield from plan(wanted.objects, observed)


def with_target_ports(given: Manifest) -> Manifest:
    """The manifest with what an API server fills in, as far as the cases look at it."""
    if given["kind"] != "Service" or "ports" not in given["spec"]:
        return given
    ports = [{"targetPort": port["port"], **port} for port in given["spec"]["ports"]]
    return {**given, "spec": {**given["spec"], "ports": ports}}


def let_go(given: Manifest) -> Manifest | None:
    """The manifest; None if it is being deleted, and nothing holds it any more."""
    meta = given["metadata"]
    return None if "deletionTimestamp" in meta and not meta.get("finalizers") else given


def merged(stored: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7386)."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(stored) if isinstance(stored, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def run(case: Case) -> None:
    """Perform the edits one by one; at the end of each stage all is as the case expects."""
    world = World(case)
    for number, stage in enumerate(case.stages, 1):
        for edit in stage.edits:
            world.perform(edit)
            world.settle()
        assert world.wrong(stage) == [], f"stage {number}"


@each_case
def test_case(case: Case) -> None:
    run(case)


@each_case
def test_case_with_the_edits_of_a_stage_at_once(case: Case) -> None:
    world = World(case)
    for number, stage in enumerate(case.stages, 1):
        for edit in stage.edits:
            if isinstance(edit, Patch):
                world.settle()
            world.perform(edit)
        world.settle()
        assert world.wrong(stage) == [], f"stage {number}"
