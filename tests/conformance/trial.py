"""One case on an API server, with a program that other cases run through beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import NamedTuple

from tests.conformance.case import VM_SERVICE, Case, Expect, Manifest, ObjectId, Stage
from tests.conformance.expectation import Observed, differences, unsaid
from tests.conformance.fence import Fence
from tests.conformance.live import Live, LiveError
from tests.conformance.server import Server
from tests.conformance.told import NotTold, Told, disagreements_on_server
from tests.conformance.watch import Asker
from tests.kube.apiserver import Cluster
from tests.program import Program, awaited

# One look at everything is some ten requests.
_POLL_S = 0.1
# How often objects may go on changing after they are as they should be.
_ROUNDS_MAX = 10


class Running(NamedTuple):
    """A process of the program, and a watch of all that it tells."""

    program: Program
    asker: Asker


class Trial:
    """A case, the namespaces it has, and what it sees there."""

    def __init__(self, case: Case, server: Server, running: Running) -> None:
        """Make the namespaces. `begun` does this, and the rest."""
        self._case = case
        self._server = server
        self._running = running
        self._restarted = False
        self._live = Live(server, case)
        self._fence = Fence(server, case.ip_families[0])
        # As it was before the last step.
        self._before: Mapping[ObjectId, str] = {}
        self._before_restart: Mapping[ObjectId, str] = {}
        self._found: list[str] = []

    @classmethod
    def begun(cls, case: Case, cluster: Cluster, running: Running) -> Trial:
        """A case that has run to its end; what it has made is there still. Raises CaseError."""
        server = Server(cluster)
        # Until `ended` others take their turns, for longer than a server keeps a connection.
        with closing(server):
            trial = cls(case, server, running)
            for number, stage in enumerate(case.stages, 1):
                try:
                    found = trial._take(stage, first=number == 1)
                except LiveError as error:
                    found = [str(error)]
                if found:
                    trial._found = [f"stage {number}:", *(f"  {line}" for line in found)]
                    return trial
            trial._before_restart = trial._versions()
        return trial

    def ended(self, running: Running) -> list[str]:
        """What was not as expected, or is not when another process has taken over, in lines.

        Leaves nothing of the case behind.
        """
        with closing(self._server):
            if not self._found:
                self._found = self._taken_over(running)
            left = self._live.end()
            if left and not self._found:
                self._found = [left]
            return self._found

    def _taken_over(self, running: Running) -> list[str]:
        """What the new process does not see as the old one did; it has nothing to write."""
        self._running, self._restarted = running, True
        if missing := self._fence.passed():
            return [missing]
        expect = self._case.stages[-1].expect
        awaited(lambda: self._broken() or not self._wrong(expect), poll_s=_POLL_S)
        written = _changed(self._before_restart, self._versions())
        lines = [*self._wrong(expect), *(f"{id_}: was written" for id_ in written)]
        return [f"after a restart of the program: {line}" for line in lines]

    def _take(self, stage: Stage, *, first: bool) -> list[str]:
        """Make the edits, wait until all is as expected, and until it stays so."""
        if stage.edits:
            self._before = self._versions()
        for edit in stage.edits:
            self._live.perform(edit)
        if first:
            # Nothing was there before; what the case has made is not to be written by others.
            self._before = dict(self._live.written)
        if missing := self._fence.passed():
            return [missing]
        awaited(lambda: self._broken() or not self._wrong(stage.expect), poll_s=_POLL_S)
        if wrong := self._wrong(stage.expect):
            return wrong
        if changing := self._restless():
            return changing
        return [f"at first as expected, and then: {line}" for line in self._wrong(stage.expect)]

    def _restless(self) -> list[str]:
        """Wait until nothing changes while everything is worked on; what does not stop."""
        before = self._versions()
        changed: list[ObjectId] = []
        for _ in range(_ROUNDS_MAX):
            if missing := self._fence.passed():
                return [missing]
            after = self._versions()
            changed = _changed(before, after)
            if not changed:
                return []
            before = after
        return [f"{id_}: is written again and again" for id_ in changed]

    def _versions(self) -> dict[ObjectId, str]:
        return {i: m["metadata"]["resourceVersion"] for i, m in self._live.objects().items()}

    def _wrong(self, expect: Expect) -> list[str]:
        """What is not as expected now, and where streams, objects and refusals do not agree."""
        if broken := self._broken():
            return [broken]
        states = dict(self._states())
        objects = self._live.objects()
        observed = Observed(
            objects=self._live.names.as_in_case(objects),
            refusals=self._refusals(),
            events=self._live.names.as_in_case(self._live.events()),
            denied=self._live.denied,
            before=self._before,
        )
        wrong = [*differences(expect, observed), *unsaid(observed)]
        for id_, state in states.items():
            wrong += self._disagreements(id_, state, objects, observed.refusals.get(id_))
        return wrong

    def _broken(self) -> str | None:
        """What makes all waiting vain, if something does."""
        if self._running.program.process.poll() is not None:
            return f"the program has ended. It said:\n{self._running.program.said()}"
        return self._running.asker.failure()

    def _refusals(self) -> dict[ObjectId, str]:
        """The VMServices that are listed as refused, and why, in the case's words."""
        names = self._live.names
        return {
            _id(listed.service)._replace(namespace=of_case): names.as_in_case(listed.refused_reason)
            for of_case, namespace in names.namespaces.items()
            for listed in self._running.asker.listed(namespace)
            if listed.refused
        }

    def _states(self) -> Iterator[tuple[ObjectId, Told | NotTold]]:
        """What the stream tells of each of the case's services; absent ones included."""
        watched = self._running.asker.watched()
        of_case = {live: name for name, live in self._live.names.namespaces.items()}
        ids = {id_ for id_ in self._live.uids if id_.kind == VM_SERVICE}
        told = (_id(service) for service in watched)
        ids |= {i._replace(namespace=of_case[i.namespace]) for i in told if i.namespace in of_case}
        for id_ in sorted(ids):
            yield id_, watched.get(self._service(id_), NotTold(None))

    def _service(self, id_: ObjectId) -> str:
        """The name by which gRPC knows a VMService of the case."""
        live = self._live.names.live_id(id_)
        return f"{live.namespace}/{live.name}"

    def _disagreements(
        self,
        id_: ObjectId,
        state: Told | NotTold,
        objects: Mapping[ObjectId, Manifest],
        refusal: str | None,
    ) -> Iterator[str]:
        """Where stream, look-up, list and stored objects do not say the same of a service."""
        vm_service, service, endpoints = (
            objects.get(id_._replace(kind=kind)) for kind in (VM_SERVICE, "Service", "Endpoints")
        )
        uids = self._live.uids.get(id_, set())
        # A process that has seen no valid spec tells of nothing, and leaves what there is.
        left_alone = self._restarted and isinstance(state, NotTold) and state.refused
        if not left_alone:
            for line in disagreements_on_server(state, vm_service, uids, service, endpoints):
                yield f"{id_}: {line}"
        yield from self._running.asker.contradictions(self._service(id_), state)
        if isinstance(state, NotTold) and self._live.names.as_in_case(state.refused) != refusal:
            yield f"{id_}: the stream tells {state}, a list {refusal}"


def _changed(before: Mapping[ObjectId, str], after: Mapping[ObjectId, str]) -> list[ObjectId]:
    """What was written, made or deleted between two looks at the resourceVersions."""
    return sorted(k for k in {*before, *after} if before.get(k) != after.get(k))


def _id(service: str) -> ObjectId:
    return ObjectId(VM_SERVICE, *service.split("/"))
