"""The page's data: which view a page asks for, and how each view is made of the API's functions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple, Protocol

from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.topic import Absent
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.model.problem import escaped
from vmsvc_grpc.server.call import RpcError, Wake
from vmsvc_grpc.server.endpoint_service import requests
from vmsvc_grpc.server.endpoint_service.explain import Explainer, Remarks
from vmsvc_grpc.server.endpoint_service.lookup import Lookup
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.page import told
from vmsvc_grpc.server.page.board import Board
from vmsvc_grpc.server.page.clients import OpenStream, clients
from vmsvc_grpc.server.page.views import PageStream, PolledView, RowsView, ServiceView, View

_BEAT_S = 5.0

# What a person reads; the log has each, and the API.
_PROBLEMS_MAX = 200


class QueryError(Exception):
    """A page asks for what there cannot be. Its text is one sentence for a person."""


class Source(Protocol):
    """Something that is read, and how that goes."""

    @property
    def what(self) -> str:
        """What is read."""

    @property
    def how(self) -> str:
        """How that goes, in a sentence."""

    @property
    def well(self) -> bool:
        """Whether it goes well."""

    @property
    def silence_s(self) -> float | None:
        """How long ago something last came of it; None: it is not known."""


class PageFacts(NamedTuple):
    """What the rest of the process knows. Each function is called now and then, and is quick."""

    version: str
    reads: str
    """What is read, and what is written, for a person."""
    not_ready: Callable[[], str | None]
    """Why the server is not ready; None if it is."""
    troubles: Callable[[], Iterable[str]]
    """Sentences that say what cannot be read or written now."""
    sources: Callable[[], Iterable[Source]]
    writing: Callable[[], str]
    """A sentence that says who writes the objects that are held."""
    streams: Callable[[], Iterable[OpenStream]]
    streams_open: Callable[[], int]
    connections: Callable[[], int]


class Page:
    """Opens the streams of pages. One event loop owns it and the cache."""

    def __init__(
        self, cache: Cache, lookup: Lookup, remarks: Remarks, limits: Limits, facts: PageFacts
    ) -> None:
        """Only reads `cache`."""
        self._cache = cache
        self._lookup = lookup
        self._facts = facts
        self._explainer = Explainer(cache, limits.page_bytes_max, remarks)
        self._board = Board(cache, lambda key: told.encoded(told.summary(lookup.summary(key))))

    def open(self, query: Mapping[str, str], wake: Wake) -> PageStream:
        """The stream of a page; `wake` is called when it has something to send. Close it.

        `query` has the name of a `view`; for `service`, also its `name`, and perhaps a `vm`, or
        the place `after` which its VMs are shown. Raises QueryError.
        """
        clock = time.monotonic
        status = PolledView("status", self._status, clock)
        view: View
        match query.get("view"):
            case "services":
                view = RowsView(self._cache, self._board, wake)
            case "service":
                asked = _asked(query)
                made = self._explaining(asked)
                view = ServiceView(self._cache, asked.service, made, wake, clock)
            case "problems":
                view = PolledView("problems", self._problems, clock)
            case "clients":
                view = PolledView("clients", self._clients, clock)
            case "server":
                view = PolledView("server", self._server, clock)
            case _:
                raise QueryError("there is no such view; open the page anew")
        return PageStream((status, view), _BEAT_S)

    def _status(self) -> dict[str, Any]:
        cache, facts = self._cache, self._facts
        troubles = list(map(escaped, facts.troubles()))
        return {
            "version": facts.version,
            "reads": facts.reads,
            "not_ready": facts.not_ready(),
            "synced": cache.synced,
            "services": len(cache.collection),
            "vms": len(cache.vms),
            "problems": len(cache.problems) + len(troubles),
            "clients": facts.connections(),
            "troubles": troubles,
        }

    def _explaining(self, asked: requests.ExplainQuery) -> Callable[[], dict[str, Any]]:
        return lambda: self._explained(asked)

    def _explained(self, asked: requests.ExplainQuery) -> dict[str, Any]:
        service = str(asked.service)
        response = self._explainer.page(asked, datetime.now(UTC))
        if response is not None:
            shown = told.explanation(response)
            if asked.service in self._cache.services:
                shown["summary"] = told.summary(self._lookup.summary(asked.service))
            return shown
        if asked.vm_name and asked.service in self._cache.services:
            vm = Key(asked.service.namespace, asked.vm_name)
            shown = self._explained(replace(asked, vm_name=""))
            return {**shown, "vms": [], "next": "", "no_vm": f"there is no VirtualMachine {vm}"}
        state = self._cache.state(asked.service, FilterClass.ALL).state
        reason = state.message if isinstance(state, Absent) else "it is being read"
        return told.absent(service, reason)

    def _clients(self) -> dict[str, Any]:
        facts = self._facts
        return clients(facts.streams(), facts.streams_open(), facts.connections())

    def _server(self) -> dict[str, Any]:
        return {
            "writing": escaped(self._facts.writing()),
            "sources": [
                {
                    "what": one.what,
                    "how": escaped(one.how),
                    "well": one.well,
                    "silence_s": None if one.silence_s is None else int(one.silence_s),
                }
                for one in self._facts.sources()
            ],
        }

    def _problems(self) -> dict[str, Any]:
        known = self._cache.problems
        found = (
            (kind.value, str(key), map(str, problems))
            for (kind, key), problems in islice(known.items(), _PROBLEMS_MAX)
        )
        return told.problems(sorted(found, key=lambda one: one[:2]), len(known))


def _asked(query: Mapping[str, str]) -> requests.ExplainQuery:
    """The service that a page asks for. Raises QueryError."""
    request = pb.ExplainEndpointsRequest(
        service=query.get("name", ""),
        vm_name=query.get("vm", ""),
        page_token=query.get("after", ""),
    )
    try:
        return requests.explain(request.SerializeToString())
    except RpcError as error:
        raise QueryError(error.message) from None
