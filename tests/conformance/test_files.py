"""Every case that can, through the real program: files in, files and gRPC out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.conformance.case import (
    VM,
    VM_SERVICE,
    Case,
    Expect,
    Manifest,
    ObjectId,
)
from tests.conformance.expectation import Observed, differences, without_filled_in
from tests.conformance.manifests import Manifests, held, held_path
from tests.conformance.told import NotTold, Told, disagreements
from tests.conformance.watch import Asker
from tests.program import Program, awaited, serving

_FENCES = "conformance-fences"


def test_case(file_case: Case, tmp_path: Path) -> None:
    """At the end of each stage all is as expected, and is so still once all has settled."""
    directory, output = tmp_path / "manifests", tmp_path / "out"
    directory.mkdir()
    output.mkdir()
    arguments: list[str | Path] = ["--manifests", directory, "--output", output]
    arguments += ["--drain-s", "0", "--ip-families", ",".join(file_case.ip_families)]
    if file_case.load_balancer_provider:
        arguments += ["--load-balancer-provider", file_case.load_balancer_provider]
    with (
        serving(arguments, tmp_path / "log") as program,
        closing(Asker(program.grpc)) as asker,
    ):
        trial = Trial(program, asker, Manifests(directory, output), output)
        for number, stage in enumerate(file_case.stages, 1):
            for edit in stage.edits:
                trial.manifests.perform(edit)
            if found := trial.found(stage.expect):
                lines = "\n  ".join(found)
                pytest.fail(f"stage {number}:\n  {lines}\n{program.said()}", pytrace=False)


class Trial:
    """One program that works on one case."""

    def __init__(self, program: Program, asker: Asker, manifests: Manifests, output: Path) -> None:
        self.manifests = manifests
        self._program = program
        self._asker = asker
        self._output = output
        self._fences = 0

    def found(self, expect: Expect) -> list[str]:
        """What is not as expected, in the end or once all has settled; empty if all is."""
        # What was read together with the first fence has been seen through by the second.
        for _ in range(2):
            if not self._fence():
                return ["a VMService of the runner's own was not taken up"]
        awaited(lambda: not self._wrong(expect))
        if wrong := self._wrong(expect):
            return wrong
        if not awaited(self._rests):
            return ["the program does not come to rest"]
        return [f"at first as expected, and then: {line}" for line in self._wrong(expect)]

    def _rests(self) -> bool:
        return not self._program.metric("vmsvc_reconcile_pending")

    def _fence(self) -> bool:
        """Let a new VMService go all the way through; whether it came out."""
        self._fences += 1
        fence = ObjectId(VM_SERVICE, _FENCES, f"fence-{self._fences}")
        self.manifests.put(_fence_manifest(fence))
        service = held_path(self._output, fence._replace(kind="Service"))
        told = f"{fence.namespace}/{fence.name}"
        return awaited(lambda: service.exists() and told in self._asker.watched())

    def _wrong(self, expect: Expect) -> list[str]:
        if failure := self._asker.failure():
            return [failure]
        observed = self._observed()
        compared = without_filled_in(expect, self.manifests.objects.values())
        wrong = differences(compared, observed)
        for id_, reason in observed.refusals.items():
            wrong += self._unsaid(id_, reason)
        for service, state in self._states():
            wrong += self._disagreements(service, state, observed)
        return wrong

    def _observed(self) -> Observed:
        """VMs are there unless deleted; VMServices are there if the stream says so."""
        objects = held(self._output)
        for id_, manifest in self.manifests.objects.items():
            if id_.kind == VM and "deletionTimestamp" not in manifest["metadata"]:
                objects[id_] = manifest
        for service, state in self._states():
            if isinstance(state, Told):
                objects[_id(service)] = {"metadata": {}}
        listed = self._asker.listed()
        refusals = {_id(of.service): of.refused_reason for of in listed if of.refused}
        return Observed(objects, refusals)

    def _unsaid(self, id_: ObjectId, reason: str) -> list[str]:
        """Whether the log has a line that names the object and the field that is refused."""
        field, name = reason.partition(": ")[0], f"{id_.namespace}/{id_.name}"
        lines = self._program.said().splitlines()
        if any(name in line and f"{field}: " in line for line in lines):
            return []
        return [f"{id_}: no line of the log says that it is refused for {field}"]

    def _states(self) -> Iterator[tuple[str, Told | NotTold]]:
        """What the stream tells of each of the case's services; absent ones included."""
        watched = self._asker.watched()
        named = {f"{i.namespace}/{i.name}" for i in self.manifests.objects if i.kind == VM_SERVICE}
        for service in sorted(named | watched.keys()):
            if _id(service).namespace != _FENCES:
                yield service, watched.get(service, NotTold(None))

    def _disagreements(
        self, service: str, state: Told | NotTold, observed: Observed
    ) -> Iterator[str]:
        """Where stream, look-up, list and held objects do not say the same of a service."""
        id_ = _id(service)
        held, endpoints = (
            observed.objects.get(id_._replace(kind=kind)) for kind in ("Service", "Endpoints")
        )
        if isinstance(state, Told) and self._selects_nothing(id_, observed):
            # What is left of the time with a selector stays, and nothing tells of it.
            endpoints = None
        for line in disagreements(state, held, endpoints):
            yield f"{service}: {line}"
        yield from self._asker.contradictions(service, state)
        if isinstance(state, NotTold) and state.refused != observed.refusals.get(id_):
            yield f"{service}: the stream tells {state}, a list {observed.refusals.get(id_)}"

    def _selects_nothing(self, id_: ObjectId, observed: Observed) -> bool:
        spec = self.manifests.objects.get(id_, {}).get("spec") or {}
        return not spec.get("selector") and id_ not in observed.refusals


def _id(service: str) -> ObjectId:
    return ObjectId(VM_SERVICE, *service.split("/"))


def _fence_manifest(fence: ObjectId) -> Manifest:
    return {
        "apiVersion": "vmoperator.vmware.com/v1alpha6",
        "kind": fence.kind,
        "metadata": {"namespace": fence.namespace, "name": fence.name},
        "spec": {"type": "ClusterIP", "selector": {"fence": "none"}, "ports": [{"port": 1}]},
    }
