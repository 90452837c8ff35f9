import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Readiness(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    READINESS_UNSPECIFIED: _ClassVar[Readiness]
    READINESS_READY_ONLY: _ClassVar[Readiness]
    READINESS_ALL: _ClassVar[Readiness]
READINESS_UNSPECIFIED: Readiness
READINESS_READY_ONLY: Readiness
READINESS_ALL: Readiness

class ResolveEndpointsRequest(_message.Message):
    __slots__ = ("service", "readiness")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    READINESS_FIELD_NUMBER: _ClassVar[int]
    service: str
    readiness: Readiness
    def __init__(self, service: _Optional[str] = ..., readiness: _Optional[_Union[Readiness, str]] = ...) -> None: ...

class ResolveEndpointsResponse(_message.Message):
    __slots__ = ("endpoint_set",)
    ENDPOINT_SET_FIELD_NUMBER: _ClassVar[int]
    endpoint_set: EndpointSet
    def __init__(self, endpoint_set: _Optional[_Union[EndpointSet, _Mapping]] = ...) -> None: ...

class WatchEndpointsRequest(_message.Message):
    __slots__ = ("services", "namespaces", "all_services", "readiness")
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    ALL_SERVICES_FIELD_NUMBER: _ClassVar[int]
    READINESS_FIELD_NUMBER: _ClassVar[int]
    services: _containers.RepeatedCompositeFieldContainer[WatchedService]
    namespaces: _containers.RepeatedScalarFieldContainer[str]
    all_services: bool
    readiness: Readiness
    def __init__(self, services: _Optional[_Iterable[_Union[WatchedService, _Mapping]]] = ..., namespaces: _Optional[_Iterable[str]] = ..., all_services: _Optional[bool] = ..., readiness: _Optional[_Union[Readiness, str]] = ...) -> None: ...

class WatchedService(_message.Message):
    __slots__ = ("service", "revision")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    service: str
    revision: str
    def __init__(self, service: _Optional[str] = ..., revision: _Optional[str] = ...) -> None: ...

class WatchEndpointsResponse(_message.Message):
    __slots__ = ("snapshot", "delta", "current", "absent", "synced")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    ABSENT_FIELD_NUMBER: _ClassVar[int]
    SYNCED_FIELD_NUMBER: _ClassVar[int]
    snapshot: EndpointSet
    delta: Delta
    current: Current
    absent: Absent
    synced: Synced
    def __init__(self, snapshot: _Optional[_Union[EndpointSet, _Mapping]] = ..., delta: _Optional[_Union[Delta, _Mapping]] = ..., current: _Optional[_Union[Current, _Mapping]] = ..., absent: _Optional[_Union[Absent, _Mapping]] = ..., synced: _Optional[_Union[Synced, _Mapping]] = ...) -> None: ...

class EndpointSet(_message.Message):
    __slots__ = ("service", "version", "revision", "ports", "endpoints")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    service: str
    version: int
    revision: str
    ports: _containers.RepeatedCompositeFieldContainer[Port]
    endpoints: _containers.RepeatedCompositeFieldContainer[Endpoint]
    def __init__(self, service: _Optional[str] = ..., version: _Optional[int] = ..., revision: _Optional[str] = ..., ports: _Optional[_Iterable[_Union[Port, _Mapping]]] = ..., endpoints: _Optional[_Iterable[_Union[Endpoint, _Mapping]]] = ...) -> None: ...

class Port(_message.Message):
    __slots__ = ("name", "port", "target_port", "protocol")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    TARGET_PORT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    name: str
    port: int
    target_port: int
    protocol: str
    def __init__(self, name: _Optional[str] = ..., port: _Optional[int] = ..., target_port: _Optional[int] = ..., protocol: _Optional[str] = ...) -> None: ...

class Endpoint(_message.Message):
    __slots__ = ("address", "ready", "vm_name", "vm_uid", "zone")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    VM_NAME_FIELD_NUMBER: _ClassVar[int]
    VM_UID_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    address: str
    ready: bool
    vm_name: str
    vm_uid: str
    zone: str
    def __init__(self, address: _Optional[str] = ..., ready: _Optional[bool] = ..., vm_name: _Optional[str] = ..., vm_uid: _Optional[str] = ..., zone: _Optional[str] = ...) -> None: ...

class EndpointKey(_message.Message):
    __slots__ = ("address", "vm_uid")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    VM_UID_FIELD_NUMBER: _ClassVar[int]
    address: str
    vm_uid: str
    def __init__(self, address: _Optional[str] = ..., vm_uid: _Optional[str] = ...) -> None: ...

class Delta(_message.Message):
    __slots__ = ("service", "version", "revision", "removed", "upserted", "ports_changed", "ports")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    UPSERTED_FIELD_NUMBER: _ClassVar[int]
    PORTS_CHANGED_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    service: str
    version: int
    revision: str
    removed: _containers.RepeatedCompositeFieldContainer[EndpointKey]
    upserted: _containers.RepeatedCompositeFieldContainer[Endpoint]
    ports_changed: bool
    ports: _containers.RepeatedCompositeFieldContainer[Port]
    def __init__(self, service: _Optional[str] = ..., version: _Optional[int] = ..., revision: _Optional[str] = ..., removed: _Optional[_Iterable[_Union[EndpointKey, _Mapping]]] = ..., upserted: _Optional[_Iterable[_Union[Endpoint, _Mapping]]] = ..., ports_changed: _Optional[bool] = ..., ports: _Optional[_Iterable[_Union[Port, _Mapping]]] = ...) -> None: ...

class Current(_message.Message):
    __slots__ = ("service", "version", "revision")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    service: str
    version: int
    revision: str
    def __init__(self, service: _Optional[str] = ..., version: _Optional[int] = ..., revision: _Optional[str] = ...) -> None: ...

class Absent(_message.Message):
    __slots__ = ("service", "reason", "message")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[Absent.Reason]
        REASON_NOT_FOUND: _ClassVar[Absent.Reason]
        REASON_REFUSED: _ClassVar[Absent.Reason]
    REASON_UNSPECIFIED: Absent.Reason
    REASON_NOT_FOUND: Absent.Reason
    REASON_REFUSED: Absent.Reason
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    service: str
    reason: Absent.Reason
    message: str
    def __init__(self, service: _Optional[str] = ..., reason: _Optional[_Union[Absent.Reason, str]] = ..., message: _Optional[str] = ...) -> None: ...

class Synced(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListServicesRequest(_message.Message):
    __slots__ = ("namespace", "page_size", "page_token")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    page_size: int
    page_token: str
    def __init__(self, namespace: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListServicesResponse(_message.Message):
    __slots__ = ("services", "next_page_token")
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    services: _containers.RepeatedCompositeFieldContainer[ServiceSummary]
    next_page_token: str
    def __init__(self, services: _Optional[_Iterable[_Union[ServiceSummary, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ServiceSummary(_message.Message):
    __slots__ = ("service", "type", "matching", "ready", "not_ready", "cluster_ips", "load_balancer_ingress", "ports", "refused", "refused_reason")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MATCHING_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    NOT_READY_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_IPS_FIELD_NUMBER: _ClassVar[int]
    LOAD_BALANCER_INGRESS_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_REASON_FIELD_NUMBER: _ClassVar[int]
    service: str
    type: str
    matching: int
    ready: int
    not_ready: int
    cluster_ips: _containers.RepeatedScalarFieldContainer[str]
    load_balancer_ingress: _containers.RepeatedScalarFieldContainer[str]
    ports: _containers.RepeatedCompositeFieldContainer[Port]
    refused: bool
    refused_reason: str
    def __init__(self, service: _Optional[str] = ..., type: _Optional[str] = ..., matching: _Optional[int] = ..., ready: _Optional[int] = ..., not_ready: _Optional[int] = ..., cluster_ips: _Optional[_Iterable[str]] = ..., load_balancer_ingress: _Optional[_Iterable[str]] = ..., ports: _Optional[_Iterable[_Union[Port, _Mapping]]] = ..., refused: _Optional[bool] = ..., refused_reason: _Optional[str] = ...) -> None: ...

class ExplainEndpointsRequest(_message.Message):
    __slots__ = ("service", "page_size", "page_token", "vm_name")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    VM_NAME_FIELD_NUMBER: _ClassVar[int]
    service: str
    page_size: int
    page_token: str
    vm_name: str
    def __init__(self, service: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., vm_name: _Optional[str] = ...) -> None: ...

class ExplainEndpointsResponse(_message.Message):
    __slots__ = ("service", "selector", "ip_families", "problems", "virtual_machines", "serving_last_valid", "next_page_token", "matching", "ready", "not_ready", "near_misses", "near_misses_incomplete", "unreadable")
    class SelectorEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    IP_FAMILIES_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    VIRTUAL_MACHINES_FIELD_NUMBER: _ClassVar[int]
    SERVING_LAST_VALID_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MATCHING_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    NOT_READY_FIELD_NUMBER: _ClassVar[int]
    NEAR_MISSES_FIELD_NUMBER: _ClassVar[int]
    NEAR_MISSES_INCOMPLETE_FIELD_NUMBER: _ClassVar[int]
    UNREADABLE_FIELD_NUMBER: _ClassVar[int]
    service: str
    selector: _containers.ScalarMap[str, str]
    ip_families: _containers.RepeatedScalarFieldContainer[str]
    problems: _containers.RepeatedCompositeFieldContainer[Problem]
    virtual_machines: _containers.RepeatedCompositeFieldContainer[VirtualMachineExplanation]
    serving_last_valid: bool
    next_page_token: str
    matching: int
    ready: int
    not_ready: int
    near_misses: int
    near_misses_incomplete: bool
    unreadable: int
    def __init__(self, service: _Optional[str] = ..., selector: _Optional[_Mapping[str, str]] = ..., ip_families: _Optional[_Iterable[str]] = ..., problems: _Optional[_Iterable[_Union[Problem, _Mapping]]] = ..., virtual_machines: _Optional[_Iterable[_Union[VirtualMachineExplanation, _Mapping]]] = ..., serving_last_valid: _Optional[bool] = ..., next_page_token: _Optional[str] = ..., matching: _Optional[int] = ..., ready: _Optional[int] = ..., not_ready: _Optional[int] = ..., near_misses: _Optional[int] = ..., near_misses_incomplete: _Optional[bool] = ..., unreadable: _Optional[int] = ...) -> None: ...

class Problem(_message.Message):
    __slots__ = ("field", "message")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    field: str
    message: str
    def __init__(self, field: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class VirtualMachineExplanation(_message.Message):
    __slots__ = ("vm_name", "vm_uid", "verdict", "reasons", "endpoints", "ready_condition")
    class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        VERDICT_UNSPECIFIED: _ClassVar[VirtualMachineExplanation.Verdict]
        VERDICT_READY: _ClassVar[VirtualMachineExplanation.Verdict]
        VERDICT_NOT_READY: _ClassVar[VirtualMachineExplanation.Verdict]
        VERDICT_NO_ADDRESS: _ClassVar[VirtualMachineExplanation.Verdict]
        VERDICT_LABELS_DIFFER: _ClassVar[VirtualMachineExplanation.Verdict]
        VERDICT_DELETING: _ClassVar[VirtualMachineExplanation.Verdict]
        VERDICT_INVALID: _ClassVar[VirtualMachineExplanation.Verdict]
        VERDICT_SERVICE_REFUSED: _ClassVar[VirtualMachineExplanation.Verdict]
    VERDICT_UNSPECIFIED: VirtualMachineExplanation.Verdict
    VERDICT_READY: VirtualMachineExplanation.Verdict
    VERDICT_NOT_READY: VirtualMachineExplanation.Verdict
    VERDICT_NO_ADDRESS: VirtualMachineExplanation.Verdict
    VERDICT_LABELS_DIFFER: VirtualMachineExplanation.Verdict
    VERDICT_DELETING: VirtualMachineExplanation.Verdict
    VERDICT_INVALID: VirtualMachineExplanation.Verdict
    VERDICT_SERVICE_REFUSED: VirtualMachineExplanation.Verdict
    VM_NAME_FIELD_NUMBER: _ClassVar[int]
    VM_UID_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    READY_CONDITION_FIELD_NUMBER: _ClassVar[int]
    vm_name: str
    vm_uid: str
    verdict: VirtualMachineExplanation.Verdict
    reasons: _containers.RepeatedScalarFieldContainer[str]
    endpoints: _containers.RepeatedCompositeFieldContainer[Endpoint]
    ready_condition: Condition
    def __init__(self, vm_name: _Optional[str] = ..., vm_uid: _Optional[str] = ..., verdict: _Optional[_Union[VirtualMachineExplanation.Verdict, str]] = ..., reasons: _Optional[_Iterable[str]] = ..., endpoints: _Optional[_Iterable[_Union[Endpoint, _Mapping]]] = ..., ready_condition: _Optional[_Union[Condition, _Mapping]] = ...) -> None: ...

class Condition(_message.Message):
    __slots__ = ("status", "reason", "message", "last_transition_time")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    LAST_TRANSITION_TIME_FIELD_NUMBER: _ClassVar[int]
    status: str
    reason: str
    message: str
    last_transition_time: _timestamp_pb2.Timestamp
    def __init__(self, status: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., last_transition_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
