"""The parts of a VM or VMService that no API server accepts, by the schemas of their CRDs.

`fields.json`, which `make gen` makes of VM Operator's CRDs, has the fields of each version, and
`crd_rules` the rules in CEL that span fields. Rules of VM Operator's webhooks are in neither.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from vmsvc_grpc.model.crd_rules import RULES
from vmsvc_grpc.model.integers import is_int64
from vmsvc_grpc.model.misfit import FieldPath, field_name, in_words
from vmsvc_grpc.model.objects import KNOWN_VERSIONS, Kind
from vmsvc_grpc.model.problem import likely_meant, quoted
from vmsvc_grpc.model.validate import time_flaw

SchemaNode = Mapping[str, Any]
"""One node of the schema, as `fields.json` has it."""

# The documentation spells it like this.
_ALSO_FIELDS = {(Kind.VIRTUAL_MACHINE_SERVICE, "spec"): {"clusterIP": "clusterIp"}}

# Fields with defaults, which authors leave out; the published CRD requires them.
_NOT_REQUIRED = frozenset({"type", "name", "protocol", "targetPort"})

# No longer text matches a pattern, and some patterns take long to find that out.
_PATTERN_CHARACTERS_MAX = 1000

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int, float),
    "number": (int, float),
    "integer or text": (int, float, str),
}
_TYPE_WORDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "integer or text": "a whole number or text",
}


# As an API server takes one: hyphens may be left out, each by itself.
_UUID = re.compile(
    r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\Z", re.IGNORECASE
)


class Fault(NamedTuple):
    """A problem of a field. `instead` is a value that may replace one of a wrong type."""

    path: FieldPath
    message: str
    instead: Any = None

    @property
    def field(self) -> str:
        """The path as Kubernetes writes it (`spec.ports[0].port`)."""
        return field_name(self.path)


def faults(kind: Kind, untyped: Mapping[str, Any]) -> Iterator[Fault]:
    """The faults of a VM or VMService of a known version, in the order of the object.

    None if the version is not known. Fields that files may leave out are not missed. In `status`
    only unknown fields are faults: an API server drops it before it checks more. O(object).
    """
    version = str(untyped.get("apiVersion")).rpartition("/")[2]
    if version not in KNOWN_VERSIONS:
        return
    root = _nodes()[_roots()[kind.value][version]]
    checks = _Checks(kind)
    yield from checks.of(root, untyped, ())


@cache
def _table() -> dict[str, Any]:
    content = resources.files("vmsvc_grpc.model").joinpath("fields.json").read_text()
    table: dict[str, Any] = json.loads(content)
    return table


def _roots() -> Mapping[str, Mapping[str, int]]:
    roots: Mapping[str, Mapping[str, int]] = _table()["kinds"]
    return roots


def _nodes() -> list[SchemaNode]:
    nodes: list[SchemaNode] = _table()["nodes"]
    return nodes


class _Checks:
    """Checks of one object."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def of(self, node: SchemaNode, value: Any, path: FieldPath) -> Iterator[Fault]:
        """The faults of a value and of all values in it."""
        expected, in_status = node["type"], path[:1] == ("status",)
        if expected == "any" or value is None:
            return
        if not _is_a(expected, value):
            if not in_status:
                yield _mistyped(path, expected, in_words(value))
            return
        if not in_status:
            yield from (Fault(path, flaw) for flaw in _flaws(node, value))
        if isinstance(value, dict):
            yield from self._of_mapping(node, value, path)
        elif isinstance(value, list):
            yield from self._of_list(node, value, path)

    def _of_mapping(
        self, node: SchemaNode, value: dict[str, Any], path: FieldPath
    ) -> Iterator[Fault]:
        fields, nodes = node.get("fields", {}), _nodes()
        also = _ALSO_FIELDS.get((self._kind, field_name(path)), {})
        for key, inner in value.items():
            number = fields.get(also.get(key, key), node.get("values"))
            if number is not None:
                yield from self.of(nodes[number], inner, (*path, key))
            elif not node.get("open"):
                yield Fault((*path, key), _unknown(key, fields, value))
        for key in node.get("required", ()):
            if self._lacks(value.get(key), path, key):
                yield Fault((*path, key), "is missing; it is required")

    def _lacks(self, found: Any, path: FieldPath, key: str) -> bool:
        """Whether a required field is missing that an API server would require."""
        match path[:1]:
            case ("metadata",):
                return found is None or found == ""
            case ("spec",):
                optional = self._kind is Kind.VIRTUAL_MACHINE_SERVICE and key in _NOT_REQUIRED
                return found is None and not optional
        return False

    def _of_list(self, node: SchemaNode, value: list[Any], path: FieldPath) -> Iterator[Fault]:
        inner = _nodes()[node["items"]]
        in_status = path[:1] == ("status",)
        seen: dict[tuple[Any, ...], int] = {}
        for index, item in enumerate(value):
            # A null field counts as absent, but a null item has no meaning.
            if item is None and not in_status:
                yield _mistyped((*path, index), inner["type"], "null")
            yield from self.of(inner, item, (*path, index))
            identity = _identity(node, item)
            first = seen.setdefault(identity, index) if identity else index
            if first != index and not in_status:
                by = f", by {', '.join(node['keys'])}" if "keys" in node else "; remove one"
                yield Fault((*path, index), f"is the same as {field_name((*path, first))}{by}")


def _mistyped(path: FieldPath, expected: str, found: str) -> Fault:
    if expected not in _TYPES:
        return Fault(path, f"must not be {found}")
    message = f"must be {_TYPE_WORDS[expected]}, not {found}"
    return Fault(path, message, instead=_TYPES[expected][0]())


def _identity(node: SchemaNode, item: Any) -> tuple[Any, ...]:
    """The key of an item that no other item may have; none if items need no identity."""
    if node.get("unique"):
        parts: tuple[Any, ...] = () if item is None else (item,)
    elif "keys" in node and isinstance(item, dict):
        parts = tuple(item.get(key) for key in node["keys"])
    else:
        return ()
    return () if any(isinstance(part, dict | list) for part in parts) else parts


def _is_a(expected: str, value: Any) -> bool:
    if isinstance(value, bool):
        return expected == "boolean"
    if expected in ("integer", "integer or text") and isinstance(value, int | float):
        return is_int64(value) and value == int(value)
    return isinstance(value, _TYPES[expected])


def _unknown(key: str, fields: Mapping[str, int], value: Mapping[str, Any]) -> str:
    meant = likely_meant(key, fields)
    if meant is None:
        return "is not a field here"
    there = ", which is there already" if meant in value else ""
    return f"is not a field here; did you mean {meant}{there}?"


def _flaws(node: SchemaNode, value: Any) -> Iterator[str]:
    """The faults of a value of the right type."""
    if "enum" in node and value not in node["enum"]:
        known = ", ".join(map(str, node["enum"]))
        yield f"{in_words(value)} is not one of {known}"
    rules = (RULES[text] for text in node.get("rules", ()))
    yield from (rule.message for rule in rules if not rule.holds(value))
    match value:
        case str():
            yield from _flaws_of_text(node, value)
        case list():
            yield from _flaws_of_size(node, len(value), "Items", "items")
        case int() | float():
            if value < node.get("minimum", value):
                yield f"{in_words(value)} is less than {node['minimum']}"
            if value > node.get("maximum", value):
                yield f"{in_words(value)} is more than {node['maximum']}"


def _flaws_of_text(node: SchemaNode, text: str) -> Iterator[str]:
    yield from _flaws_of_size(node, len(text), "Length", "characters")
    if "pattern" in node and not _matches(node["pattern"], text):
        yield f"{quoted(text)} does not have the form {node['pattern']}"
    match node.get("format"):
        case "uuid" if not _UUID.match(text):
            yield f"{quoted(text)} is not a UUID; write 8-4-4-4-12 hexadecimal digits"
        case "time" if flaw := time_flaw(text):
            yield flaw


def _flaws_of_size(node: SchemaNode, size: int, what: str, unit: str) -> Iterator[str]:
    least, most = node.get(f"min{what}", 0), node.get(f"max{what}", size)
    if size < least:
        yield f"has {size} {unit}, and needs {least}"
    if size > most:
        yield f"has {size} {unit}, and may have {most}"


def _matches(pattern: str, value: str) -> bool:
    if len(value) > _PATTERN_CHARACTERS_MAX:
        return False
    return _compiled(pattern).search(value) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    # As in Go, `$` matches only at the very end, even after a line feed.
    if pattern.endswith("$"):
        pattern = pattern[:-1] + r"\Z"
    return re.compile(pattern, re.ASCII)
