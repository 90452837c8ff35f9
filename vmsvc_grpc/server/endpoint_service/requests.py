"""Requests of vmsvc.v1 as small values, checked here so that the rest of the server trusts them.

Each function takes a request's bytes and raises RpcError (INVALID_ARGUMENT) with every
field that is wrong, as google.rpc.BadRequest.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import NamedTuple

from google.rpc import error_details_pb2

from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.model.problem import quoted
from vmsvc_grpc.model.validate import is_dns_1123_label, is_dns_1123_subdomain
from vmsvc_grpc.server.call import Code, RpcError, parsed
from vmsvc_grpc.server.followed import kept_bytes


class PageSizes(NamedTuple):
    """How many entries a page has by default, and at most."""

    default: int
    most: int


# The contract in the proto names them.
SERVICES = PageSizes(default=500, most=1000)
EXPLAINED = PageSizes(default=250, most=500)

# Details travel as a header. By default clients refuse more than 8 KiB of headers, and base64 and
# the names around it take some of that.
_VIOLATIONS_BYTES_MAX = 4096
# A client's text, cut shorter than elsewhere, as an answer may have many of them.
_shown = partial(quoted, characters_max=80)

_TOKEN_CHARACTERS_MAX = 4096  # Ours have four names at most, of 253 characters.
_COUNT_DIGITS_MAX = 9

# The beginning of each page token: its method, and the version of its form.
_OF_SERVICES = "services 1"
_OF_EXPLAINED = "explained 1"

_FILTER_CLASSES: Mapping[int, FilterClass] = {
    pb.READINESS_UNSPECIFIED: FilterClass.READY_ONLY,
    pb.READINESS_READY_ONLY: FilterClass.READY_ONLY,
    pb.READINESS_ALL: FilterClass.ALL,
}


@dataclass(frozen=True, slots=True)
class ResolveQuery:
    """The service to resolve, and which of its endpoints."""

    service: Key
    filter_class: FilterClass


@dataclass(frozen=True, slots=True)
class WatchQuery:
    """What to watch. `held` are the services named, each with the revision held or "".

    `namespaces` is empty if `all_services` is true.
    """

    held: Mapping[Key, str]
    namespaces: frozenset[str]
    all_services: bool
    filter_class: FilterClass

    @property
    def names_bytes(self) -> int:
        """The bytes of its names and revisions. O(names)."""
        services = sum(
            len(namespace) + len(name) + kept_bytes(revision) + 1  # It is written with a slash.
            for (namespace, name), revision in self.held.items()
        )
        return services + sum(map(len, self.namespaces))


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Which page of which services. `namespace` None: all; `after` None: the first page."""

    namespace: str | None
    size: int
    after: Key | None


class ExplainedPart(Enum):
    """The parts of an explanation, in their order."""

    MEMBERS = "members"
    NEAR = "near"
    UNREADABLE = "unreadable"


class ExplainedPlace(NamedTuple):
    """The last VM of a page. `shown` is how many VMs of its part have been shown by then."""

    part: ExplainedPart
    distance: int
    name: str
    shown: int


@dataclass(frozen=True, slots=True)
class ExplainQuery:
    """Which page of which service's VMs. `vm_name` "": all; `after` None: the first page."""

    service: Key
    vm_name: str
    size: int
    after: ExplainedPlace | None


class _Violations:
    """The problems of one request, field by field."""

    def __init__(self) -> None:
        self._found = error_details_pb2.BadRequest()
        self._left_out = 0

    def add(self, field: str, text: str) -> None:
        if self._found.ByteSize() + len(text.encode()) > _VIOLATIONS_BYTES_MAX:
            self._left_out += 1
        else:
            self._found.field_violations.add(field=field, description=text)

    def check(self) -> None:
        """Raise RpcError if anything was found."""
        if not self._found.field_violations:
            return
        first = self._found.field_violations[0]
        message = f"{first.field}: {first.description}"
        others = len(self._found.field_violations) - 1 + self._left_out
        if self._left_out:
            text = f"{self._left_out} more are wrong, and left out here"
            self._found.field_violations.add(field="(others)", description=text)
        if others:
            message += f" (and {others} more)"
        raise RpcError(Code.INVALID_ARGUMENT, message, [self._found])


def resolve(raw: bytes) -> ResolveQuery:
    """A ResolveEndpointsRequest."""
    request = parsed(pb.ResolveEndpointsRequest, raw)
    violations = _Violations()
    service = _service("service", request.service, violations)
    filter_class = _filter_class(request.readiness, violations)
    violations.check()
    assert service is not None
    return ResolveQuery(service, filter_class)


def explain(raw: bytes) -> ExplainQuery:
    """An ExplainEndpointsRequest."""
    request = parsed(pb.ExplainEndpointsRequest, raw)
    violations = _Violations()
    service = _service("service", request.service, violations)
    if request.vm_name and not is_dns_1123_subdomain(request.vm_name):
        text = f"{_shown(request.vm_name)} cannot be a VM's name; write it without its namespace"
        violations.add("vm_name", text)
    size = _page_size(request.page_size, EXPLAINED, violations)
    after = None
    if request.page_token:
        after = _explained_place(request)
        if after is None:
            violations.add("page_token", _ANOTHERS)
    violations.check()
    assert service is not None
    return ExplainQuery(service, request.vm_name, size, after)


def watch(raw: bytes, services_per_stream_max: int) -> Generator[None, None, WatchQuery]:
    """A WatchEndpointsRequest with at most so many services, or namespaces.

    It stops at each name, so that others can have their turn, and returns the query.
    """
    request = parsed(pb.WatchEndpointsRequest, raw)
    violations = _Violations()
    named = len(request.services) or len(request.namespaces)
    if not named and not request.all_services:
        violations.add("services", "is empty; name services or namespaces, or set all_services")
    if request.all_services and request.namespaces:
        text = "cannot be combined with all_services, which covers every namespace"
        violations.add("namespaces", text)
    filter_class = _filter_class(request.readiness, violations)
    for field, count in (
        ("services", len(request.services)),
        ("namespaces", len(request.namespaces)),
    ):
        if count > services_per_stream_max:
            violations.add(
                field,
                f"names {count}; the server's limit (services_per_stream_max) is "
                f"{services_per_stream_max}: open several streams",
            )
            violations.check()  # There are too many to look at each.
    held = yield from _held(request.services, violations)
    namespaces = yield from _namespaces(request.namespaces, violations)
    violations.check()
    return WatchQuery(held, namespaces, request.all_services, filter_class)


def list_page(raw: bytes) -> ListQuery:
    """A ListServicesRequest."""
    request = parsed(pb.ListServicesRequest, raw)
    violations = _Violations()
    if request.namespace:
        _check_namespace("namespace", request.namespace, violations)
    size = _page_size(request.page_size, SERVICES, violations)
    after = None
    if request.page_token:
        after = _listed_key(request.namespace, request.page_token)
        if after is None:
            violations.add("page_token", _ANOTHERS)
    violations.check()
    return ListQuery(request.namespace or None, size, after)


_ANOTHERS = (
    "is not a next_page_token of this method for the same request; send the one of the page "
    "before, with all other fields as they were, or none to begin again"
)


def _page_size(asked: int, sizes: PageSizes, violations: _Violations) -> int:
    if asked < 0:
        text = f"{asked} is negative; use 1 to {sizes.most}, or 0 for the default"
        violations.add("page_size", text)
    return min(asked or sizes.default, sizes.most)


def services_token(namespace: str | None, last: Key) -> str:
    """The token for the page after the service `last`, of the same `namespace` (None: all)."""
    return _token(_OF_SERVICES, namespace or "", *last)


def explained_token(query: ExplainQuery, last: ExplainedPlace) -> str:
    """The token for the page after the VM `last`, of the same query."""
    place = (last.part.value, str(last.distance), last.name, str(last.shown))
    return _token(_OF_EXPLAINED, str(query.service), query.vm_name, *place)


def _listed_key(namespace: str, token: str) -> Key | None:
    match _token_parts(token):
        case [kind, of, *last] if kind == _OF_SERVICES and of == namespace:
            if len(last) == len(Key._fields) and (not namespace or namespace == last[0]):
                return Key(*last)
    return None


def _explained_place(request: pb.ExplainEndpointsRequest) -> ExplainedPlace | None:
    asked = [_OF_EXPLAINED, request.service, request.vm_name]
    match _token_parts(request.page_token):
        case [*of, part, distance, name, shown] if of == asked and part in _PARTS:
            if _is_count(distance) and _is_count(shown):
                return ExplainedPlace(_PARTS[part], int(distance), name, int(shown))
    return None


_PARTS: Mapping[str, ExplainedPart] = {part.value: part for part in ExplainedPart}


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _COUNT_DIGITS_MAX


def _token(*parts: str) -> str:
    # No name can contain a line end.
    return base64.urlsafe_b64encode("\n".join(parts).encode()).decode()


def _token_parts(token: str) -> list[str]:
    """The parts of a token; empty if it is not a token."""
    if len(token) > _TOKEN_CHARACTERS_MAX:
        return []
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode().split("\n")
    except (binascii.Error, ValueError):
        return []


def _service(field: str, text: str, violations: _Violations) -> Key | None:
    """The service of that name; None, and a violation, if the name is not valid."""
    namespace, slash, name = text.partition("/")
    if is_dns_1123_label(namespace) and is_dns_1123_subdomain(name):
        return Key(namespace, name)
    if not text:
        flaw = "is missing"
    elif not slash:
        flaw = f"{_shown(text)} has no namespace"
    elif not is_dns_1123_label(namespace):
        flaw = f"{_shown(text)}: {_shown(namespace)} cannot be a namespace's name"
    else:
        flaw = f"{_shown(text)}: {_shown(name)} cannot be a service's name"
    violations.add(field, f"{flaw}; write namespace/name, in lower case, as in shop/web")
    return None


def _held(
    services: Iterable[pb.WatchedService], violations: _Violations
) -> Generator[None, None, Mapping[Key, str]]:
    held: dict[Key, str] = {}
    places: dict[Key, int] = {}
    for index, watched in enumerate(services):
        yield
        field = f"services[{index}].service"
        key = _service(field, watched.service, violations)
        if key is None:
            continue
        first = places.setdefault(key, index)
        if first != index:
            text = f"{str(key)!r} is also services[{first}]; name each service once"
            violations.add(field, text)
        held[key] = watched.revision
    return held


# Shared by the many streams that name none.
_NO_NAMESPACES: frozenset[str] = frozenset()


def _namespaces(
    names: Iterable[str], violations: _Violations
) -> Generator[None, None, frozenset[str]]:
    places: dict[str, int] = {}
    for index, name in enumerate(names):
        yield
        field = f"namespaces[{index}]"
        _check_namespace(field, name, violations)
        first = places.setdefault(name, index)
        if first != index:
            text = f"{_shown(name)} is also namespaces[{first}]; name each namespace once"
            violations.add(field, text)
    return frozenset(places) if places else _NO_NAMESPACES


def _check_namespace(field: str, name: str, violations: _Violations) -> None:
    if not is_dns_1123_label(name):
        violations.add(
            field,
            f"{_shown(name)} cannot be a namespace's name; use at most 63 lower-case letters, "
            "digits and '-', not beginning or ending with '-'",
        )


def _filter_class(readiness: int, violations: _Violations) -> FilterClass:
    filter_class = _FILTER_CLASSES.get(readiness)
    if filter_class is None:
        violations.add(
            "readiness", f"{readiness} is not known; use READINESS_READY_ONLY or READINESS_ALL"
        )
        return FilterClass.READY_ONLY
    return filter_class
