"""Reflection: every file and symbol of ours can be asked for, in both versions."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2 as pb

from vmsvc.v1 import endpoint_service_pb2
from vmsvc_grpc.server.call import Call, Code, EndOfStream, RpcError, Stream, StreamMethod
from vmsvc_grpc.server.introspection.reflection import SERVICES, Reflection, with_imports
from vmsvc_grpc.server.xds import service as xds

OURS = "vmsvc.v1.EndpointService"
FILES = [endpoint_service_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR, error_details_pb2.DESCRIPTOR]


@pytest.fixture(scope="module")
def reflection() -> Reflection:
    return Reflection([OURS], [given for file in FILES for given in with_imports(file)])


def files(response: pb.ServerReflectionResponse) -> list[FileDescriptorProto]:
    assert not response.HasField("error_response"), response.error_response
    return [
        FileDescriptorProto.FromString(raw)
        for raw in response.file_descriptor_response.file_descriptor_proto
    ]


def containing(reflection: Reflection, symbol: str) -> list[FileDescriptorProto]:
    request = pb.ServerReflectionRequest(file_containing_symbol=symbol)
    return files(reflection.answer(request))


def test_services_are_listed_reflection_itself_too(reflection: Reflection) -> None:
    response = reflection.answer(pb.ServerReflectionRequest(host="h", list_services="*"))
    assert [s.name for s in response.list_services_response.service] == sorted((OURS, *SERVICES))
    assert response.valid_host == "h"
    assert response.original_request.list_services == "*"


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        pytest.param(OURS, "vmsvc/v1/endpoint_service.proto", id="a service"),
        pytest.param(f"{OURS}.WatchEndpoints", "vmsvc/v1/endpoint_service.proto", id="a method"),
        pytest.param("vmsvc.v1.Delta", "vmsvc/v1/endpoint_service.proto", id="a message"),
        pytest.param("vmsvc.v1.Delta.removed", "vmsvc/v1/endpoint_service.proto", id="a field"),
        pytest.param("vmsvc.v1.Readiness", "vmsvc/v1/endpoint_service.proto", id="an enum"),
        pytest.param(
            "vmsvc.v1.READINESS_ALL", "vmsvc/v1/endpoint_service.proto", id="an enum's value"
        ),
        pytest.param(
            "vmsvc.v1.WatchEndpointsResponse.event", "vmsvc/v1/endpoint_service.proto", id="a oneof"
        ),
        pytest.param(
            "vmsvc.v1.Absent.Reason", "vmsvc/v1/endpoint_service.proto", id="a nested enum"
        ),
        pytest.param(
            "vmsvc.v1.Absent.REASON_REFUSED",
            "vmsvc/v1/endpoint_service.proto",
            id="a nested enum's value",
        ),
        pytest.param(
            "google.rpc.BadRequest.FieldViolation",
            "google/rpc/error_details.proto",
            id="a nested message",
        ),
        pytest.param(
            "google.protobuf.Duration", "google/protobuf/duration.proto", id="an imported message"
        ),
        pytest.param(SERVICES[0], "grpc/reflection/v1/reflection.proto", id="reflection v1"),
        pytest.param(
            SERVICES[1], "grpc_reflection/v1alpha/reflection.proto", id="reflection v1alpha"
        ),
    ],
)
def test_a_symbol_is_found_in_its_file(reflection: Reflection, symbol: str, file: str) -> None:
    assert containing(reflection, symbol)[0].name == file


@pytest.mark.parametrize("symbol", [OURS, "google.rpc.RetryInfo", *SERVICES])
def test_the_files_of_an_answer_make_sense_by_themselves(
    reflection: Reflection, symbol: str
) -> None:
    pool = descriptor_pool.DescriptorPool()
    # A file comes before those that it imports.
    for file in reversed(containing(reflection, symbol)):
        pool.Add(file)
    assert pool.FindFileContainingSymbol(symbol).package == symbol.rpartition(".")[0]


def test_v1_is_v1alpha_under_another_name(reflection: Reflection) -> None:
    (v1,), (alpha,) = (containing(reflection, service) for service in SERVICES)
    assert (v1.package, alpha.package) == ("grpc.reflection.v1", "grpc.reflection.v1alpha")
    for ours, theirs in ((v1.message_type, alpha.message_type), (v1.service, alpha.service)):
        assert str(ours) == str(theirs).replace("v1alpha", "v1")


def test_a_file_is_found_by_its_name(reflection: Reflection) -> None:
    request = pb.ServerReflectionRequest(file_by_filename="google/rpc/error_details.proto")
    names = [file.name for file in files(reflection.answer(request))]
    assert names == ["google/rpc/error_details.proto", "google/protobuf/duration.proto"]


def test_fields_have_their_names_in_json(reflection: Reflection) -> None:
    (file,) = containing(reflection, "grpc.health.v1.Health")
    (ours, *_) = containing(reflection, "vmsvc.v1.ServiceSummary")
    summary = next(m for m in ours.message_type if m.name == "ServiceSummary")
    assert {f.name: f.json_name for f in summary.field}["not_ready"] == "notReady"
    assert all(f.json_name for m in file.message_type for f in m.field)


def test_of_two_files_of_one_name_the_first_counts() -> None:
    (*imported, given) = with_imports(endpoint_service_pb2.DESCRIPTOR)
    commented = FileDescriptorProto()
    commented.CopyFrom(given)
    commented.source_code_info.location.add(path=[6, 0], leading_comments="Says all.")
    (told, *_) = containing(Reflection([OURS], [*imported, commented, given]), OURS)
    assert told.source_code_info.location[0].leading_comments == "Says all."


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (pb.ServerReflectionRequest(file_by_filename="none.proto"), Code.NOT_FOUND),
        (pb.ServerReflectionRequest(file_containing_symbol="vmsvc.v1.None"), Code.NOT_FOUND),
        (pb.ServerReflectionRequest(file_containing_symbol=""), Code.NOT_FOUND),
        (
            pb.ServerReflectionRequest(
                file_containing_extension=pb.ExtensionRequest(
                    containing_type="vmsvc.v1.Delta", extension_number=7
                )
            ),
            Code.NOT_FOUND,
        ),
        (pb.ServerReflectionRequest(all_extension_numbers_of_type="vmsvc.None"), Code.NOT_FOUND),
        (pb.ServerReflectionRequest(), Code.INVALID_ARGUMENT),
    ],
    ids=["file", "symbol", "no symbol", "extension", "extensions of an unknown type", "nothing"],
)
def test_what_is_not_known_is_an_error_response(
    reflection: Reflection, request_: pb.ServerReflectionRequest, code: Code
) -> None:
    response = reflection.answer(request_)
    assert response.error_response.error_code == code
    assert response.error_response.error_message
    assert response.original_request == request_


def test_a_type_of_ours_has_no_extensions(reflection: Reflection) -> None:
    request = pb.ServerReflectionRequest(all_extension_numbers_of_type="vmsvc.v1.Delta")
    found = reflection.answer(request).all_extension_numbers_response
    assert (found.base_type_name, list(found.extension_number)) == ("vmsvc.v1.Delta", [])


# A file of proto2 with extensions at its top, in a message, and of a message of another file.
EXTENDING = FileDescriptorProto(
    name="extending.proto",
    package="acme",
    dependency=["vmsvc/v1/endpoint_service.proto"],
    message_type=[
        DescriptorProto(
            name="Open",
            extension_range=[DescriptorProto.ExtensionRange(start=100, end=200)],
            nested_type=[
                DescriptorProto(
                    name="Inner",
                    extension=[
                        FieldDescriptorProto(name="nested", number=107, extendee=".acme.Open")
                    ],
                )
            ],
        )
    ],
    extension=[
        FieldDescriptorProto(name="top", number=120, extendee=".acme.Open"),
        FieldDescriptorProto(name="other", number=7, extendee=".vmsvc.v1.Delta"),
    ],
)
BARE = FileDescriptorProto(name="bare.proto", message_type=[DescriptorProto(name="Bare")])


@pytest.fixture(scope="module")
def extended() -> Reflection:
    given = [file for of in FILES for file in with_imports(of)]
    return Reflection([OURS], [EXTENDING, BARE, *given])


@pytest.mark.parametrize("symbol", ["acme.top", "acme.other", "acme.Open.Inner.nested"])
def test_an_extension_is_a_symbol(extended: Reflection, symbol: str) -> None:
    assert containing(extended, symbol)[0].name == "extending.proto"


def test_a_file_without_a_package_has_its_symbols(extended: Reflection) -> None:
    assert containing(extended, "Bare")[0].name == "bare.proto"


@pytest.mark.parametrize(
    ("extended_type", "number", "file"),
    [
        ("acme.Open", 107, "extending.proto"),
        ("acme.Open", 120, "extending.proto"),
        ("vmsvc.v1.Delta", 7, "extending.proto"),
        ("acme.Open", 121, None),
        ("acme.Open", -1, None),
        ("acme.Open.Inner", 107, None),
        ("", 107, None),
    ],
)
def test_an_extension_is_found_by_its_number(
    extended: Reflection, extended_type: str, number: int, file: str | None
) -> None:
    asked = pb.ExtensionRequest(containing_type=extended_type, extension_number=number)
    response = extended.answer(pb.ServerReflectionRequest(file_containing_extension=asked))
    if file is None:
        assert response.error_response.error_code == Code.NOT_FOUND
    else:
        assert files(response)[0].name == file


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("acme.Open", [107, 120]),
        ("vmsvc.v1.Delta", [7]),
        ("acme.Open.Inner", []),
        ("Bare", []),
        (OURS, None),
        ("vmsvc.v1.Readiness", None),
        ("", None),
    ],
)
def test_the_numbers_of_extensions_are_listed(
    extended: Reflection, name: str, numbers: list[int] | None
) -> None:
    """Of messages; nothing else can be extended."""
    response = extended.answer(pb.ServerReflectionRequest(all_extension_numbers_of_type=name))
    if numbers is None:
        assert response.error_response.error_code == Code.NOT_FOUND
        return
    found = response.all_extension_numbers_response
    assert (found.base_type_name, list(found.extension_number)) == (name, numbers)


def test_the_extensions_that_come_with_envoy_are_known() -> None:
    """Options of its fields and messages, in files of its own and of others."""
    real = Reflection([OURS], with_imports(*xds.files()))
    options = "google.protobuf.FieldOptions"
    asked = pb.ServerReflectionRequest(all_extension_numbers_of_type=options)
    numbers = list(real.answer(asked).all_extension_numbers_response.extension_number)
    assert len(numbers) > 3
    assert numbers == sorted(numbers)
    for number in numbers:
        by_number = pb.ExtensionRequest(containing_type=options, extension_number=number)
        (file, *_) = files(
            real.answer(pb.ServerReflectionRequest(file_containing_extension=by_number))
        )
        assert any(of.number == number and of.extendee == f".{options}" for of in file.extension)


@pytest.mark.parametrize("field", ["file_by_filename", "file_containing_symbol"])
def test_an_odd_name_is_shown_cut_and_escaped(reflection: Reflection, field: str) -> None:
    asked = pb.ServerReflectionRequest(**{field: "\u202e\n" * 10_000})  # type: ignore[arg-type]
    said = reflection.answer(asked).error_response.error_message
    assert said.isprintable()
    assert len(said) < 300


def opened(reflection: Reflection) -> Stream:
    method = reflection.methods()[0]
    assert isinstance(method, StreamMethod)
    return method.open(Call("ipv4:192.0.2.1:1"), lambda: None)


def test_a_stream_answers_each_request_and_goes_on_after_an_error(reflection: Reflection) -> None:
    stream = opened(reflection)
    assert stream.next_message() is None
    for symbol in ("none", OURS):
        request = pb.ServerReflectionRequest(file_containing_symbol=symbol)
        stream.receive(request.SerializeToString())
        assert stream.next_message() == reflection.answer(request).SerializeToString()
        assert stream.next_message() is None
    stream.half_close()
    with pytest.raises(EndOfStream):
        stream.next_message()
    stream.close()


def test_an_answer_that_is_due_is_given_before_the_stream_ends(reflection: Reflection) -> None:
    stream = opened(reflection)
    stream.receive(pb.ServerReflectionRequest(list_services="").SerializeToString())
    stream.half_close()
    assert stream.next_message() is not None
    with pytest.raises(EndOfStream):
        stream.next_message()


def test_bytes_that_are_no_request_end_the_stream(reflection: Reflection) -> None:
    with pytest.raises(RpcError) as failure:
        opened(reflection).receive(b"\xff\xff")
    assert failure.value.code is Code.INVALID_ARGUMENT
