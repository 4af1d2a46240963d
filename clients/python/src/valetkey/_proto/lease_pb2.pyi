from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Decision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECISION_UNSPECIFIED: _ClassVar[Decision]
    DECISION_ALLOW: _ClassVar[Decision]
    DECISION_DENY: _ClassVar[Decision]

class Redeemer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REDEEMER_UNSPECIFIED: _ClassVar[Redeemer]
    REDEEMER_TOOL: _ClassVar[Redeemer]
    REDEEMER_AGENT: _ClassVar[Redeemer]

class EndCause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    END_CAUSE_UNSPECIFIED: _ClassVar[EndCause]
    END_CAUSE_CALLER: _ClassVar[EndCause]
    END_CAUSE_DISCONNECT: _ClassVar[EndCause]
    END_CAUSE_POLICY: _ClassVar[EndCause]
    END_CAUSE_EXPIRY: _ClassVar[EndCause]
    END_CAUSE_SHUTDOWN: _ClassVar[EndCause]
    END_CAUSE_STALLED: _ClassVar[EndCause]
    END_CAUSE_UNAVAILABLE: _ClassVar[EndCause]
    END_CAUSE_CREDENTIAL: _ClassVar[EndCause]
DECISION_UNSPECIFIED: Decision
DECISION_ALLOW: Decision
DECISION_DENY: Decision
REDEEMER_UNSPECIFIED: Redeemer
REDEEMER_TOOL: Redeemer
REDEEMER_AGENT: Redeemer
END_CAUSE_UNSPECIFIED: EndCause
END_CAUSE_CALLER: EndCause
END_CAUSE_DISCONNECT: EndCause
END_CAUSE_POLICY: EndCause
END_CAUSE_EXPIRY: EndCause
END_CAUSE_SHUTDOWN: EndCause
END_CAUSE_STALLED: EndCause
END_CAUSE_UNAVAILABLE: EndCause
END_CAUSE_CREDENTIAL: EndCause

class LeaseOpened(_message.Message):
    __slots__ = ("lease_id", "references")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    references: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, lease_id: _Optional[str] = ..., references: _Optional[_Iterable[str]] = ...) -> None: ...

class HandleIssued(_message.Message):
    __slots__ = ("reference", "handle", "handle_id", "expire_time", "uses", "redeemer", "record_id", "certificate_bound")
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    HANDLE_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    REDEEMER_FIELD_NUMBER: _ClassVar[int]
    RECORD_ID_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_BOUND_FIELD_NUMBER: _ClassVar[int]
    reference: str
    handle: str
    handle_id: str
    expire_time: _timestamp_pb2.Timestamp
    uses: int
    redeemer: Redeemer
    record_id: str
    certificate_bound: bool
    def __init__(self, reference: _Optional[str] = ..., handle: _Optional[str] = ..., handle_id: _Optional[str] = ..., expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., uses: _Optional[int] = ..., redeemer: _Optional[_Union[Redeemer, str]] = ..., record_id: _Optional[str] = ..., certificate_bound: bool = ...) -> None: ...

class ReferenceRefused(_message.Message):
    __slots__ = ("reference", "reason", "message", "record_id")
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RECORD_ID_FIELD_NUMBER: _ClassVar[int]
    reference: str
    reason: str
    message: str
    record_id: str
    def __init__(self, reference: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., record_id: _Optional[str] = ...) -> None: ...

class HandleRenewed(_message.Message):
    __slots__ = ("issued", "previous_handle_id")
    ISSUED_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_HANDLE_ID_FIELD_NUMBER: _ClassVar[int]
    issued: HandleIssued
    previous_handle_id: str
    def __init__(self, issued: _Optional[_Union[HandleIssued, _Mapping]] = ..., previous_handle_id: _Optional[str] = ...) -> None: ...

class HandleRevoked(_message.Message):
    __slots__ = ("reference", "handle_id", "cause")
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    HANDLE_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    reference: str
    handle_id: str
    cause: EndCause
    def __init__(self, reference: _Optional[str] = ..., handle_id: _Optional[str] = ..., cause: _Optional[_Union[EndCause, str]] = ...) -> None: ...

class LeaseDraining(_message.Message):
    __slots__ = ("end_time",)
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, end_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class LeaseEnded(_message.Message):
    __slots__ = ("cause",)
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    cause: EndCause
    def __init__(self, cause: _Optional[_Union[EndCause, str]] = ...) -> None: ...
