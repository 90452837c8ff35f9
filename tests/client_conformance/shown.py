"""What cases expect that a client shows, and whether a line of it says so."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from tests.client_conformance.case_pb2 import Shown
from tests.client_conformance.driver import Line
from vmsvc.v1 import endpoint_service_pb2 as pb

# What of a state is compared in any case, as an empty list is not to be told from none given.
_ALWAYS = frozenset({"service", "endpoints"})


def agrees(shown: Shown, line: Line | None) -> bool:
    """Whether a client's line says what is expected."""
    if line is None:
        return False
    match shown.WhichOneof("event"):
        case "synced":
            return line.get("event") == "synced"
        case "disconnected":
            code = shown.disconnected.code
            return line.get("event") == "disconnected" and code in ("", line.get("code"))
        case "many":
            many = shown.many
            found = line.get("service"), len(line.get("endpoints", ()))
            return line.get("event") == "state" and found == (many.service, many.endpoints)
        case "newest":
            newest = shown.newest
            last = line.get("service"), line.get("version")
            return line.get("event") == "state" and last == (newest.service, newest.version)
        case "absent":
            return line.get("event") == "state" and _absent(shown.absent, line)
        case _:
            return line.get("event") == "state" and _present(shown.state, line)


def _absent(absent: pb.Absent, line: Line) -> bool:
    absence = line.get("absence") or {}
    return (
        line.get("service") == absent.service
        and line.get("present") is False
        and not line.get("endpoints")
        and absence.get("reason") == _reason(absent.reason)
        and absent.message in ("", absence.get("message"))
    )


def _present(state: pb.EndpointSet, line: Line) -> bool:
    fields = _fields(state)
    compared = _ALWAYS | {field.name for field, _ in state.ListFields()}
    return (
        line.get("present") is True
        and line.get("absence") is None
        and all(line.get(name) == fields[name] for name in compared)
    )


def _reason(reason: pb.Absent.Reason) -> str:
    name = pb.Absent.Reason.Name(reason).removeprefix("REASON_")
    return "UNKNOWN" if name == "UNSPECIFIED" else name


def _fields(state: pb.EndpointSet) -> dict[str, Any]:
    """The fields of a state as a client writes them."""
    fields = _as_dict(state)
    fields["version"] = state.version  # In JSON of protobuf, 64 bits are a text.
    return fields


def _as_dict(message: Message) -> dict[str, Any]:
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def on_the_way(shown: Shown, line: Line | None) -> bool:
    """Whether a line is an earlier state of the row that ends with the one expected."""
    return (
        shown.HasField("newest")
        and line is not None
        and line.get("event") == "state"
        and line.get("service") == shown.newest.service
        and int(line.get("version", 0)) < shown.newest.version
    )


def service_of(shown: Shown) -> str:
    """The service that a state is of."""
    name: str = getattr(shown, shown.WhichOneof("event") or "").service
    return name


def expected(shown: Shown) -> str:
    """What is expected, for a person."""
    return str(MessageToDict(shown, preserving_proto_field_name=True))


def brief(line: Line | None) -> str:
    """A client's line for a person; not all of it if it is long."""
    if line is None:
        return "its end"
    text = str({name: value for name, value in line.items() if name != "time"})
    return f"{text[:1000]}…" if len(text) > 1000 else text
