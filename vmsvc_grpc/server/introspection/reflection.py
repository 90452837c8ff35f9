"""Server reflection, v1 and v1alpha: describes our services to grpcurl and similar tools.

Both versions have the same messages on the wire, so one kind of stream serves both. The package has
only v1alpha's descriptor; v1's is made from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from grpc_reflection.v1alpha import reflection_pb2 as pb

from vmsvc_grpc.model.problem import quoted
from vmsvc_grpc.server.access.needs import AUTHENTICATED, Needs
from vmsvc_grpc.server.call import (
    AnswerStream,
    Call,
    Code,
    Method,
    RequestBound,
    Stream,
    StreamMethod,
    Wake,
    parsed,
)
from vmsvc_grpc.server.fields import shape_of

_ALPHA = "grpc.reflection.v1alpha"
_V1 = "grpc.reflection.v1"

SERVICES = (f"{_V1}.ServerReflection", f"{_ALPHA}.ServerReflection")
PATHS = tuple(f"/{service}/ServerReflectionInfo" for service in SERVICES)


def with_imports(*files: FileDescriptor) -> Iterator[FileDescriptorProto]:
    """Files and their imports, each once, and imports first."""
    yield from _with_imports(files, set())


def _with_imports(files: Iterable[FileDescriptor], seen: set[str]) -> Iterator[FileDescriptorProto]:
    for file in files:
        if file.name in seen:
            continue
        seen.add(file.name)
        yield from _with_imports(file.dependencies, seen)
        described = FileDescriptorProto.FromString(file.serialized_pb)
        for message in described.message_type:
            _add_json_names(message)
        yield described


class Reflection:
    """Describes `services` (full names) from `files`, which include their imports.

    Of two files with one name the first counts.
    """

    def __init__(self, services: Iterable[str], files: Iterable[FileDescriptorProto]) -> None:
        """Reflection's own services and file need not be passed."""
        self._services = sorted({*services, *SERVICES})
        self._files: dict[str, FileDescriptorProto] = {}
        self._file_of_symbol: dict[str, str] = {}
        # For each message, the files of its extensions, by number.
        self._file_of_extension: dict[str, dict[int, str]] = {}
        for file in (*files, *with_imports(pb.DESCRIPTOR), _v1_file()):
            if file.name not in self._files:
                self._files[file.name] = file
                self._file_of_symbol.update(dict.fromkeys(_symbols(file), file.name))
                for scope, message in _messages(file):
                    self._file_of_extension.setdefault(_in(scope, message.name), {})
                for extension in _extensions(file):
                    extended = extension.extendee.removeprefix(".")
                    numbers = self._file_of_extension.setdefault(extended, {})
                    numbers[extension.number] = file.name

    def methods(self) -> tuple[Method, ...]:
        """ServerReflectionInfo of both versions."""
        asked = shape_of(pb.ServerReflectionRequest.DESCRIPTOR)
        return tuple(
            StreamMethod(
                path,
                self._open,
                RequestBound.ONE_NAME,
                asked,
                Needs(AUTHENTICATED),
                client_streaming=True,
            )
            for path in PATHS
        )

    def answer(self, request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        """The response to one request; an `error_response` if something is not found."""
        response = pb.ServerReflectionResponse(valid_host=request.host, original_request=request)
        match request.WhichOneof("message_request"):
            case "list_services":
                for service in self._services:
                    response.list_services_response.service.add(name=service)
            case "file_by_filename":
                name = request.file_by_filename
                self._answer_file(response, name, f"file {quoted(name)}")
            case "file_containing_symbol":
                name = request.file_containing_symbol
                file_name = self._file_of_symbol.get(name, "")
                self._answer_file(response, file_name, f"symbol {quoted(name)}")
            case "file_containing_extension":
                extension = request.file_containing_extension
                name, number = extension.containing_type, extension.extension_number
                file_name = self._file_of_extension.get(name, {}).get(number, "")
                self._answer_file(response, file_name, f"extension {number} of {quoted(name)}")
            case "all_extension_numbers_of_type":
                self._answer_numbers(response, request.all_extension_numbers_of_type)
            case _:
                _refuse(response, Code.INVALID_ARGUMENT, "the request asks for nothing")
        return response

    def _answer_file(
        self, response: pb.ServerReflectionResponse, file_name: str, wanted: str
    ) -> None:
        if file_name not in self._files:
            _refuse(response, Code.NOT_FOUND, f"{wanted} is not known here")
            return
        files = response.file_descriptor_response.file_descriptor_proto
        files.extend(self._files[name].SerializeToString() for name in self._closure(file_name))

    def _answer_numbers(self, response: pb.ServerReflectionResponse, name: str) -> None:
        numbers = self._file_of_extension.get(name)
        if numbers is None:
            _refuse(response, Code.NOT_FOUND, f"message {quoted(name)} is not known here")
            return
        response.all_extension_numbers_response.base_type_name = name
        response.all_extension_numbers_response.extension_number.extend(sorted(numbers))

    def _closure(self, file_name: str) -> Iterable[str]:
        """The file and all that it imports, itself first."""
        names = {file_name: None}
        left = [file_name]
        while left:
            imports = self._files[left.pop()].dependency
            left.extend(name for name in imports if name not in names)
            names.update(dict.fromkeys(imports))
        return names

    def _open(self, _call: Call, _wake: Wake) -> Stream:
        return AnswerStream(self._answer)

    def _answer(self, request: bytes) -> bytes:
        return self.answer(parsed(pb.ServerReflectionRequest, request)).SerializeToString()


def _refuse(response: pb.ServerReflectionResponse, code: Code, message: str) -> None:
    response.error_response.error_code = code
    response.error_response.error_message = message


def _v1_file() -> FileDescriptorProto:
    """The file of grpc.reflection.v1: v1alpha's under another name."""
    *_, file = with_imports(pb.DESCRIPTOR)
    file.name = "grpc/reflection/v1/reflection.proto"
    file.package = _V1
    file.ClearField("options")
    for message in file.message_type:
        for field in message.field:
            if field.type_name:  # Setting it to "" would say that it has a type by name.
                field.type_name = field.type_name.replace(_ALPHA, _V1)
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace(_ALPHA, _V1)
            method.output_type = method.output_type.replace(_ALPHA, _V1)
    return file


def _add_json_names(message: DescriptorProto) -> None:
    """Set the JSON name of each field, as protoc does; stubs leave it out.

    grpcurl would print `field_name` instead of `fieldName`.
    """
    for field in message.field:
        first, *others = field.name.split("_")
        field.json_name = first + "".join(part[:1].upper() + part[1:] for part in others)
    for nested in message.nested_type:
        _add_json_names(nested)


def _symbols(file: FileDescriptorProto) -> Iterator[str]:
    """The full name of everything that a file defines."""
    package = file.package
    for scope, message in _messages(file):
        name = _in(scope, message.name)
        yield name
        yield from (_in(name, field.name) for field in message.field)
        yield from (_in(name, oneof.name) for oneof in message.oneof_decl)
        yield from (_in(name, extension.name) for extension in message.extension)
        yield from _enum_symbols(name, message.enum_type)
    yield from _enum_symbols(package, file.enum_type)
    yield from (_in(package, extension.name) for extension in file.extension)
    for service in file.service:
        yield _in(package, service.name)
        yield from (_in(package, f"{service.name}.{method.name}") for method in service.method)


def _enum_symbols(scope: str, enums: Iterable[EnumDescriptorProto]) -> Iterator[str]:
    for enum in enums:
        yield _in(scope, enum.name)
        # An enum's values are its siblings.
        yield from (_in(scope, value.name) for value in enum.value)


def _messages(file: FileDescriptorProto) -> Iterator[tuple[str, DescriptorProto]]:
    """Every message that a file defines, each with the name of its package or outer message."""
    left = [(file.package, message) for message in file.message_type]
    while left:
        scope, message = left.pop()
        yield scope, message
        left += ((_in(scope, message.name), nested) for nested in message.nested_type)


def _extensions(file: FileDescriptorProto) -> Iterator[FieldDescriptorProto]:
    """Every extension that a file defines, of whatever message."""
    yield from file.extension
    for _, message in _messages(file):
        yield from message.extension


def _in(scope: str, name: str) -> str:
    """The full name of `name` in a package or message; "" is no package."""
    return f"{scope}.{name}" if scope else name
