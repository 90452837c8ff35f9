import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from vmsvc.v1 import endpoint_service_pb2 as _endpoint_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Network(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NETWORK_UNSPECIFIED: _ClassVar[Network]
    NETWORK_CUT: _ClassVar[Network]
    NETWORK_FROZEN: _ClassVar[Network]
    NETWORK_STOPPED: _ClassVar[Network]
    NETWORK_STARTED: _ClassVar[Network]
    NETWORK_DRAINED: _ClassVar[Network]
    NETWORK_MUTE: _ClassVar[Network]
NETWORK_UNSPECIFIED: Network
NETWORK_CUT: Network
NETWORK_FROZEN: Network
NETWORK_STOPPED: Network
NETWORK_STARTED: Network
NETWORK_DRAINED: Network
NETWORK_MUTE: Network

class Table(_message.Message):
    __slots__ = ("cases",)
    CASES_FIELD_NUMBER: _ClassVar[int]
    cases: _containers.RepeatedCompositeFieldContainer[Case]
    def __init__(self, cases: _Optional[_Iterable[_Union[Case, _Mapping]]] = ...) -> None: ...

class Case(_message.Message):
    __slots__ = ("name", "watch", "token", "steps")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WATCH_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    name: str
    watch: _endpoint_service_pb2.WatchEndpointsRequest
    token: str
    steps: _containers.RepeatedCompositeFieldContainer[Step]
    def __init__(self, name: _Optional[str] = ..., watch: _Optional[_Union[_endpoint_service_pb2.WatchEndpointsRequest, _Mapping]] = ..., token: _Optional[str] = ..., steps: _Optional[_Iterable[_Union[Step, _Mapping]]] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("opens", "sends", "sends_bytes", "sends_many", "stalls", "renews_token", "ends", "network", "shows", "gives_up")
    OPENS_FIELD_NUMBER: _ClassVar[int]
    SENDS_FIELD_NUMBER: _ClassVar[int]
    SENDS_BYTES_FIELD_NUMBER: _ClassVar[int]
    SENDS_MANY_FIELD_NUMBER: _ClassVar[int]
    STALLS_FIELD_NUMBER: _ClassVar[int]
    RENEWS_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ENDS_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    SHOWS_FIELD_NUMBER: _ClassVar[int]
    GIVES_UP_FIELD_NUMBER: _ClassVar[int]
    opens: Opened
    sends: _containers.RepeatedCompositeFieldContainer[_endpoint_service_pb2.WatchEndpointsResponse]
    sends_bytes: _containers.RepeatedScalarFieldContainer[str]
    sends_many: Size
    stalls: Burst
    renews_token: str
    ends: End
    network: Network
    shows: _containers.RepeatedCompositeFieldContainer[Shown]
    gives_up: str
    def __init__(self, opens: _Optional[_Union[Opened, _Mapping]] = ..., sends: _Optional[_Iterable[_Union[_endpoint_service_pb2.WatchEndpointsResponse, _Mapping]]] = ..., sends_bytes: _Optional[_Iterable[str]] = ..., sends_many: _Optional[_Union[Size, _Mapping]] = ..., stalls: _Optional[_Union[Burst, _Mapping]] = ..., renews_token: _Optional[str] = ..., ends: _Optional[_Union[End, _Mapping]] = ..., network: _Optional[_Union[Network, str]] = ..., shows: _Optional[_Iterable[_Union[Shown, _Mapping]]] = ..., gives_up: _Optional[str] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("request", "token")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    request: _endpoint_service_pb2.WatchEndpointsRequest
    token: str
    def __init__(self, request: _Optional[_Union[_endpoint_service_pb2.WatchEndpointsRequest, _Mapping]] = ..., token: _Optional[str] = ...) -> None: ...

class End(_message.Message):
    __slots__ = ("code", "message", "retry_delay")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_DELAY_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    retry_delay: _duration_pb2.Duration
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., retry_delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Size(_message.Message):
    __slots__ = ("service", "version", "endpoints")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    service: str
    version: int
    endpoints: int
    def __init__(self, service: _Optional[str] = ..., version: _Optional[int] = ..., endpoints: _Optional[int] = ...) -> None: ...

class Burst(_message.Message):
    __slots__ = ("service", "first_version", "last_version", "taken_max")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    FIRST_VERSION_FIELD_NUMBER: _ClassVar[int]
    LAST_VERSION_FIELD_NUMBER: _ClassVar[int]
    TAKEN_MAX_FIELD_NUMBER: _ClassVar[int]
    service: str
    first_version: int
    last_version: int
    taken_max: int
    def __init__(self, service: _Optional[str] = ..., first_version: _Optional[int] = ..., last_version: _Optional[int] = ..., taken_max: _Optional[int] = ...) -> None: ...

class Shown(_message.Message):
    __slots__ = ("state", "absent", "synced", "disconnected", "many", "newest")
    STATE_FIELD_NUMBER: _ClassVar[int]
    ABSENT_FIELD_NUMBER: _ClassVar[int]
    SYNCED_FIELD_NUMBER: _ClassVar[int]
    DISCONNECTED_FIELD_NUMBER: _ClassVar[int]
    MANY_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    state: _endpoint_service_pb2.EndpointSet
    absent: _endpoint_service_pb2.Absent
    synced: _endpoint_service_pb2.Synced
    disconnected: Disconnected
    many: Size
    newest: Newest
    def __init__(self, state: _Optional[_Union[_endpoint_service_pb2.EndpointSet, _Mapping]] = ..., absent: _Optional[_Union[_endpoint_service_pb2.Absent, _Mapping]] = ..., synced: _Optional[_Union[_endpoint_service_pb2.Synced, _Mapping]] = ..., disconnected: _Optional[_Union[Disconnected, _Mapping]] = ..., many: _Optional[_Union[Size, _Mapping]] = ..., newest: _Optional[_Union[Newest, _Mapping]] = ...) -> None: ...

class Disconnected(_message.Message):
    __slots__ = ("code",)
    CODE_FIELD_NUMBER: _ClassVar[int]
    code: str
    def __init__(self, code: _Optional[str] = ...) -> None: ...

class Newest(_message.Message):
    __slots__ = ("service", "version")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    service: str
    version: int
    def __init__(self, service: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...
