from google.protobuf import duration_pb2 as _duration_pb2
from . import lease_pb2 as _lease_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AcquireLeaseRequest(_message.Message):
    __slots__ = ("tool", "references", "purpose", "ttl", "partial", "session", "destination")
    TOOL_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    tool: str
    references: _containers.RepeatedScalarFieldContainer[str]
    purpose: str
    ttl: _duration_pb2.Duration
    partial: bool
    session: str
    destination: str
    def __init__(self, tool: _Optional[str] = ..., references: _Optional[_Iterable[str]] = ..., purpose: _Optional[str] = ..., ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., partial: bool = ..., session: _Optional[str] = ..., destination: _Optional[str] = ...) -> None: ...

class AcquireLeaseResponse(_message.Message):
    __slots__ = ("opened", "issued", "refused", "renewed", "revoked", "draining", "ended")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    ISSUED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    RENEWED_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    opened: _lease_pb2.LeaseOpened
    issued: _lease_pb2.HandleIssued
    refused: _lease_pb2.ReferenceRefused
    renewed: _lease_pb2.HandleRenewed
    revoked: _lease_pb2.HandleRevoked
    draining: _lease_pb2.LeaseDraining
    ended: _lease_pb2.LeaseEnded
    def __init__(self, opened: _Optional[_Union[_lease_pb2.LeaseOpened, _Mapping]] = ..., issued: _Optional[_Union[_lease_pb2.HandleIssued, _Mapping]] = ..., refused: _Optional[_Union[_lease_pb2.ReferenceRefused, _Mapping]] = ..., renewed: _Optional[_Union[_lease_pb2.HandleRenewed, _Mapping]] = ..., revoked: _Optional[_Union[_lease_pb2.HandleRevoked, _Mapping]] = ..., draining: _Optional[_Union[_lease_pb2.LeaseDraining, _Mapping]] = ..., ended: _Optional[_Union[_lease_pb2.LeaseEnded, _Mapping]] = ...) -> None: ...

class RedeemHandleRequest(_message.Message):
    __slots__ = ("handle", "destination")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    handle: str
    destination: str
    def __init__(self, handle: _Optional[str] = ..., destination: _Optional[str] = ...) -> None: ...

class RedeemHandleResponse(_message.Message):
    __slots__ = ("secret_value", "record_id")
    SECRET_VALUE_FIELD_NUMBER: _ClassVar[int]
    RECORD_ID_FIELD_NUMBER: _ClassVar[int]
    secret_value: bytes
    record_id: str
    def __init__(self, secret_value: _Optional[bytes] = ..., record_id: _Optional[str] = ...) -> None: ...

class EndLeaseRequest(_message.Message):
    __slots__ = ("lease_id",)
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    def __init__(self, lease_id: _Optional[str] = ...) -> None: ...

class EndLeaseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckAccessRequest(_message.Message):
    __slots__ = ("tool", "reference", "ttl", "session", "destination")
    TOOL_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    tool: str
    reference: str
    ttl: _duration_pb2.Duration
    session: str
    destination: str
    def __init__(self, tool: _Optional[str] = ..., reference: _Optional[str] = ..., ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., session: _Optional[str] = ..., destination: _Optional[str] = ...) -> None: ...

class CheckAccessResponse(_message.Message):
    __slots__ = ("decision", "advice", "record_id", "ttl_max", "uses", "redeemer", "certificate_bound", "approval_required")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    RECORD_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_MAX_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    REDEEMER_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_BOUND_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_REQUIRED_FIELD_NUMBER: _ClassVar[int]
    decision: _lease_pb2.Decision
    advice: str
    record_id: str
    ttl_max: _duration_pb2.Duration
    uses: int
    redeemer: _lease_pb2.Redeemer
    certificate_bound: bool
    approval_required: bool
    def __init__(self, decision: _Optional[_Union[_lease_pb2.Decision, str]] = ..., advice: _Optional[str] = ..., record_id: _Optional[str] = ..., ttl_max: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., uses: _Optional[int] = ..., redeemer: _Optional[_Union[_lease_pb2.Redeemer, str]] = ..., certificate_bound: bool = ..., approval_required: bool = ...) -> None: ...
