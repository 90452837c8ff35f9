"""Objects as manifests: untyped, and as YAML for a person to read. Pure.

`model.parse` reads a manifest back as the same object, without the fields that only an API server
sets (uid, resource version, generation, references to a VMService without a uid): with those it
could not be applied to a cluster.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import msgspec

from vmsvc_grpc.model.ownership import is_to_nobody
from vmsvc_grpc.reconciler.fields import Untyped, body
from vmsvc_grpc.reconciler.held import Held


def manifest(held: Held) -> Untyped:
    """The object as nothing but mappings and sequences, keys in the order for reading.

    Absent fields are left out, except the subsets of an Endpoints: being empty means something. Of
    a VMService there is only what we write: metadata and status.
    """
    untyped: Untyped = msgspec.to_builtins(body(held))
    return untyped


def ownerless_note(held: Held) -> str:
    """A comment line if the manifest has no reference to its VMService; else ""."""
    if not any(is_to_nobody(owner, held.meta) for owner in held.meta.owner_references):
        return ""
    return (
        f"# No owner reference: VirtualMachineService {held.meta.key} has no metadata.uid in its "
        "manifest, and Kubernetes deletes what refers to an owner that does not exist.\n"
    )


# -- YAML. PyYAML takes 105 ms for 1,000 endpoints with libyaml, 400 ms without. This takes 9 ms,
# -- and line by line, so that a writer may let others have their turn.

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._/-]*")
_PLAIN_WITH_DIGIT = re.compile(
    r"\d+\.\d+\.\d+\.\d+"  # IPv4 addresses: more dots than a number has.
    r"|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"  # uids
)
_NOT_TEXT = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null"})
# Legal unescaped in JSON, but not in YAML.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def yaml_document(mapping: Untyped) -> str:
    """Mappings, sequences, texts, whole numbers and booleans as a block of YAML, in their order.

    Texts that YAML could read as something else are quoted. Ends with a line feed.
    """
    return "".join(yaml_lines(mapping))


def yaml_lines(mapping: Untyped) -> Iterator[str]:
    """The lines of the same block, each with its line feed; 7 or so for an endpoint."""
    return (f"{line}\n" for line in _block(mapping, ""))


def _block(mapping: Untyped, indent: str) -> Iterator[str]:
    for key, value in mapping.items():
        head = f"{indent}{_scalar(key)}:"
        if not isinstance(value, dict | list | tuple):
            yield f"{head} {_scalar(value)}"
        elif not value:
            yield f"{head} {'{}' if isinstance(value, dict) else '[]'}"
        elif isinstance(value, dict):
            yield head
            yield from _block(value, indent + "  ")
        else:
            yield head
            for entry in value:
                yield from _entry(entry, indent)


def _entry(entry: Untyped | str, indent: str) -> Iterator[str]:
    if isinstance(entry, str):
        yield f"{indent}- {_scalar(entry)}"
    elif not entry:
        yield f"{indent}- {{}}"
    else:
        lines = _block(entry, indent + "  ")
        yield f"{indent}- {next(lines).lstrip()}"
        yield from lines


def _scalar(value: str | int) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT:
        return value
    if _PLAIN_WITH_DIGIT.fullmatch(value):
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: f"\\U{ord(found[0]):08x}", quoted)
