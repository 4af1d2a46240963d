"""From a gRPC status to an error of ours, and what may be asked again."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from . import errors
from ._proto import details_pb2 as wire

DETAILS_KEY = "grpc-status-details-bin"
TEXT_MAX = 2048
VIOLATIONS_MAX = 128
# Nothing was asked: the connection was never there. gRPC's own words; without them a failure counts as one in mid-call.
NEVER_SENT = ("failed to connect", "connections to all backends failing", "connection refused")
# These do not pass by themselves.
HOPELESS = ("RESOLVER_CREDENTIALS_REFUSED",)
APPROVAL_ID = re.compile(r"vkl_[0-9A-Za-z]{1,64}")
TLS_FAULTS = ("CERTIFICATE_VERIFY_FAILED", "TLSV1_ALERT", "Peer name", "BAD_CERTIFICATE")


@dataclass
class Details:
    """What stands beside the status, as far as it can be read."""

    info: wire.ErrorInfo = field(default_factory=wire.ErrorInfo)
    retry_after: float | None = None
    violations: tuple[errors.Violation, ...] = ()
    request_id: str | None = None
    link: str | None = None

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> Details:
        found = cls()
        for key, value in error.trailing_metadata() or ():
            if key == DETAILS_KEY:
                try:
                    found._read(value if isinstance(value, bytes) else value.encode("latin-1"))
                except (DecodeError, ValueError):
                    return cls()
        return found

    def _read(self, content: bytes) -> None:
        for detail in wire.Status.FromString(content).details:
            kind = detail.type_url.rpartition("/")[2]
            if kind == "google.rpc.ErrorInfo":
                self.info = wire.ErrorInfo.FromString(detail.value)
            elif kind == "google.rpc.RetryInfo":
                retry = wire.RetryInfo.FromString(detail.value)
                if retry.HasField("retry_delay"):
                    self.retry_after = max(retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9, 0.0)
            elif kind == "google.rpc.BadRequest":
                request = wire.BadRequest.FromString(detail.value)
                self.violations = tuple(
                    errors.Violation(printable(rule.field), printable(rule.description))
                    for rule in request.field_violations[:VIOLATIONS_MAX]
                )
            elif kind == "google.rpc.RequestInfo":
                self.request_id = printable(wire.RequestInfo.FromString(detail.value).request_id) or None
            elif kind == "google.rpc.Help":
                links = (printable(link.url) for link in wire.Help.FromString(detail.value).links)
                # It is shown to a person to click on.
                self.link = next((link for link in links if link.startswith(("https://", "http://"))), None)

    def text(self, key: str) -> str | None:
        return printable(self.info.metadata[key]) or None if key in self.info.metadata else None


def from_rpc(error: grpc.aio.AioRpcError) -> errors.ValetkeyError:
    """What a failed call means to its caller."""
    details = Details.of(error)
    code, message = error.code(), printable(error.details() or "")
    reason = printable(details.info.reason)
    record, reference = details.text("record_id"), details.text("reference")

    def made(kind: type[errors.ValetkeyError], text: str, **more: object) -> errors.ValetkeyError:
        found = kind(text, reason=reason, record_id=record, reference=reference)
        vars(found).update(more)
        return found

    tail = f" (audit record {record})" if record else ""
    unavailable = retryable_text(message or "the broker is away", details.retry_after)
    if code is grpc.StatusCode.PERMISSION_DENIED:
        advice = details.text("advice")
        about = f" for `{reference}`" if reference else ""
        next_step = advice or "ask a reviewer for the reason"
        return made(errors.Denied, f"access denied{about}; {next_step}{tail}", advice=advice)
    if code is grpc.StatusCode.NOT_FOUND:
        look = "; check it against the vault" if reference else ""
        return made(errors.NotFound, f"{message}{look}{tail}")
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        if reason == "HANDLE_NOT_ACTIVE":
            text = f"the handle is not active; ask the agent for a fresh one{tail}"
            return made(errors.HandleNotActive, text)
        if reason == "APPROVAL_REQUIRED":
            text, approval_id = approval(message, details.text("approval_id") or "", details.link)
            return made(errors.ApprovalRequired, f"{text}{tail}", approval_id=approval_id, url=details.link)
        return made(errors.Precondition, f"{message}{tail}")
    if code is grpc.StatusCode.UNAUTHENTICATED:
        if reason == "PERSON_UNAUTHENTICATED":
            return made(errors.PersonUnauthenticated, PERSON_UNKNOWN)
        return made(errors.Unauthenticated, CALLER_UNKNOWN)
    if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE):
        broken = "; ".join(f"{rule.field} {rule.description}" for rule in details.violations)
        text = f"the request is invalid: {broken or message}{tail}"
        return made(errors.InvalidRequest, text, violations=details.violations)
    # Without a reason it is gRPC's own: an answer that is too large.
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and reason:
        return made(errors.LimitReached, unavailable, retry_after=details.retry_after)
    # A connection that breaks in mid-call has no better code, and no details.
    lost = code is grpc.StatusCode.UNKNOWN and not reason
    if lost or code in GONE:
        return made(errors.Unavailable, unavailable, retry_after=details.retry_after)
    if code is grpc.StatusCode.INTERNAL and not reason:
        text = f"{message}; no broker answers so; one with TLS has an address that begins with `https://`"
        return made(errors.NoBroker, text)
    request = f" its request id {details.request_id}" if details.request_id else ""
    text = f"the broker failed: {message}; tell the operator{request}"
    return made(errors.BrokerFailed, text, request_id=details.request_id)


def refused(reference: str, reason: str, message: str, record: str) -> errors.ValetkeyError:
    """Why one reference of a partial lease has no handle."""
    kind: type[errors.ValetkeyError] = errors.Precondition
    text, approval_id = printable(message), ""
    if reason == "ACCESS_DENIED":
        kind = errors.Denied
    elif reason == "APPROVAL_REQUIRED":
        kind = errors.ApprovalRequired
        text, approval_id = approval(text, "", None)
    elif reason.endswith("_NOT_FOUND"):
        kind = errors.NotFound
    elif reason in ("RESOLVER_RATE_LIMITED", "LEASE_LIMIT", "IDENTITY_LIMIT", "APPROVAL_LIMIT"):
        kind = errors.LimitReached
    elif reason.endswith(("UNAVAILABLE", "REFUSED", "_CHANGED", "_FLUX")):
        kind = errors.Unavailable
    elif reason.startswith("INVALID_"):
        kind = errors.InvalidRequest
    tail = f" (audit record {record})" if record else ""
    error = kind(f"{text}{tail}", reason=reason, record_id=record or None, reference=reference)
    if isinstance(error, errors.ApprovalRequired):
        error.approval_id = approval_id
    return error


def approval(message: str, approval_id: str, url: str | None) -> tuple[str, str]:
    """What to ask a person for, and its id. Where no field has the id, as in a partial lease, the message names it."""
    found = APPROVAL_ID.fullmatch(approval_id) or APPROVAL_ID.search(message)
    approval_id = found[0] if found else ""
    ways = [f"to open {url}"] if url else []
    ways.append(f"to run `valetkey approval approve {approval_id}`" if found else "to look at `valetkey approval list`")
    next_step = f"ask one {', or '.join(ways)}; when they have, ask again with the same tool and references"
    return f"a person must approve this first; {next_step}", approval_id


def may_ask_again(error: errors.ValetkeyError) -> bool:
    """Whether asking for a lease again can help: it is decided and recorded anew each time."""
    if isinstance(error, errors.Unavailable):
        return error.reason not in HOPELESS and not any(fault in str(error) for fault in TLS_FAULTS)
    # Without a time, it is for the caller to do less.
    return isinstance(error, errors.LimitReached) and error.retry_after is not None


def surely_not_done(error: errors.ValetkeyError) -> bool:
    """Whether a redeem that failed so has spent nothing: the broker says so, or it was never asked."""
    if not may_ask_again(error):
        return False
    return bool(error.reason) or any(words in str(error).lower() for words in NEVER_SENT)


def retryable_text(message: str, retry_after: float | None) -> str:
    when = "try again later" if retry_after is None else f"try again in {max(round(retry_after), 1)} s"
    return f"{message}; {when}"


def printable(text: str) -> str:
    """A text from the network, fit for a terminal and a log."""
    return "".join(c if c.isprintable() else " " for c in text[:TEXT_MAX])


GONE = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
)
CALLER_UNKNOWN = (
    "the broker does not know who calls; `valetkey doctor --connect` says what it was sent, and what to check"
)
PERSON_UNKNOWN = "the broker does not take this token of the person on whose behalf; get a fresh one from its issuer"
