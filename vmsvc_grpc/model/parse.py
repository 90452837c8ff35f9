"""From untyped objects, or the bytes of an API server, to the model.

One path serves both: `wire` says which fields are read, and `from_wire` what becomes of them.
Here is what happens where an object does not have the shape of its kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec

from vmsvc_grpc.model import wire
from vmsvc_grpc.model.decoding import ShapeError, converted, decoder
from vmsvc_grpc.model.from_wire import (
    ParseError,
    condition_of,
    declared_selector,
    ingress_of,
    key_of,
    meta_problems,
    model,
    object_meta,
)
from vmsvc_grpc.model.leniency import as_meant
from vmsvc_grpc.model.misfit import misfits
from vmsvc_grpc.model.objects import (
    NEWEST_API_VERSION,
    Kind,
    Object,
    ObjectMeta,
    VirtualMachineService,
)
from vmsvc_grpc.model.problem import Problem

T = TypeVar("T")


def parse(kind: Kind, untyped: Any) -> Object:
    """The model of an object given as mappings and lists, as YAML and JSON give them.

    A missing namespace is `default`; a missing uid is made from kind and name. A
    VMService that breaks a rule is returned with its problems, and so is one of the
    wrong shape as long as its name can be read. Raises ParseError, also for a VM whose
    labels or annotations no API server takes.
    """
    try:
        given = converted(untyped, SHAPES[kind])
    except ShapeError as error:
        return _unreadable(kind, partial(converted, untyped), error)
    object_ = model(given)
    if isinstance(given, wire.VirtualMachineShape):
        # An API server has checked those that it gives.
        for problem in meta_problems(given.metadata):
            raise ParseError(kind, key_of(kind, given.metadata), problem)
    return object_


def unread(kind: Kind, untyped: Any, problem: Problem) -> ParseError:
    """The error for an object of which only the name is to be read."""
    try:
        named = converted(untyped, wire.BarelyNamedShape).metadata
        key = key_of(kind, wire.MetaShape(name=named.name, namespace=named.namespace))
    except (ShapeError, ParseError):
        return ParseError(kind, None, problem)
    return ParseError(kind, key, problem)


def parse_json(kind: Kind, raw: bytes | msgspec.Raw) -> Object:
    """The same for an object's bytes in JSON. Raises ParseError."""
    try:
        given = _DECODERS[kind](raw)
    except ShapeError as error:
        return _unreadable(kind, lambda shape: decoder(shape)(raw), error)
    except msgspec.DecodeError as error:
        raise ParseError(kind, None, Problem("(document)", str(error))) from error
    return model(given)


def parse_meta(kind: Kind, raw: bytes | msgspec.Raw) -> ObjectMeta:
    """Only the metadata of an object's bytes in JSON: the rest is skipped. Raises ParseError."""
    try:
        given = _decode_named(raw)
    except ShapeError as error:
        meta = _readable_meta(kind, lambda shape: decoder(shape)(raw), error)
        raise ParseError(kind, key_of(kind, meta), _shape_problem(error)) from error
    except msgspec.DecodeError as error:
        raise ParseError(kind, None, Problem("(document)", str(error))) from error
    return object_meta(kind, given.metadata)


SHAPES: Mapping[Kind, type[wire.Shape]] = {
    Kind.VIRTUAL_MACHINE: wire.VirtualMachineShape,
    Kind.VIRTUAL_MACHINE_SERVICE: wire.VirtualMachineServiceShape,
    Kind.SERVICE: wire.ServiceShape,
    Kind.ENDPOINTS: wire.EndpointsShape,
    Kind.ENDPOINT_SLICE: wire.EndpointSliceShape,
}
"""The shape of an object of each kind."""

_DECODERS = {kind: decoder(shape) for kind, shape in SHAPES.items()}
_decode_named = decoder(wire.NamedShape)


def unfit_metadata(untyped: Any) -> tuple[Problem, ...]:
    """The parts of an object's metadata that no API server accepts; none if of another shape."""
    try:
        return tuple(meta_problems(converted(untyped, wire.NamedShape).metadata))
    except ShapeError:
        return ()


def unfit_status(kind: Kind, status: Any) -> Iterator[Problem]:
    """The parts of a status whose types refuse an object of that kind. O(status)."""
    shape = SHAPES[kind]
    named = {"apiVersion": NEWEST_API_VERSION, "metadata": {"name": "any"}, "status": status}
    try:
        converted(named, shape)
    except ShapeError:
        for found in misfits(as_meant(named, shape), shape):
            yield Problem(found.field, found.message)


# -- Objects of the wrong shape. --


class _Convert(Protocol):
    """Reads the object as another shape. Raises msgspec.DecodeError."""

    def __call__(self, shape: type[T]) -> T: ...


def _unreadable(kind: Kind, convert: _Convert, error: ShapeError) -> Object:
    """A VMService of the wrong shape, refused; for other kinds raises ParseError."""
    meta = _readable_meta(kind, convert, error)
    problem = _shape_problem(error)
    key = key_of(kind, meta)
    if kind is not Kind.VIRTUAL_MACHINE_SERVICE:
        raise ParseError(kind, key, problem) from error
    try:
        outline = convert(wire.VirtualMachineServiceOutlineShape)
    except msgspec.DecodeError:
        outline = wire.VirtualMachineServiceOutlineShape()
    status = outline.status or wire.ServiceStatusShape()
    return VirtualMachineService(
        meta=object_meta(kind, meta),
        api_version=outline.api_version or NEWEST_API_VERSION,
        spec=None,
        problems=(problem,),
        declared_type="",
        declared_selector=_readable_selector(convert),
        ingress=ingress_of(status.load_balancer),
        conditions=tuple(condition_of(c) for c in status.conditions or ()),
    )


def _readable_selector(convert: _Convert) -> Mapping[str, str]:
    """The selector of a VMService of the wrong shape, if the selector itself can be read."""
    try:
        return declared_selector(convert(wire.SelectingShape).spec)
    except msgspec.DecodeError:
        return {}


def _readable_meta(kind: Kind, convert: _Convert, error: ShapeError) -> wire.MetaShape:
    """The metadata, or else its name and namespace, of an object of the wrong shape.

    Raises ParseError if not even those can be read.
    """
    try:
        return convert(wire.NamedShape).metadata
    except msgspec.DecodeError:
        try:
            bare = convert(wire.BarelyNamedShape).metadata
        except msgspec.DecodeError:
            raise ParseError(kind, None, _shape_problem(error)) from error
        return wire.MetaShape(name=bare.name, namespace=bare.namespace)


def _shape_problem(error: ShapeError) -> Problem:
    return Problem(error.field, error.message)
