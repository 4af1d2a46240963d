"""The fake broker: its script, and what it was asked."""

from __future__ import annotations

import itertools
import queue
import secrets as randomness
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc

from .._broker import Broker
from .._proto import details_pb2
from .._proto import lease_pb2 as words
from .._proto import lease_service_pb2 as wire
from .._proto import lease_service_pb2_grpc as services
from ..sync import Broker as SyncBroker

STREAMS_MAX = 64
LIFE_SECONDS = 60


@dataclass(frozen=True)
class Call:
    """One call, as it was asked. Handles are not among it."""

    method: str
    caller: str
    tool: str = ""
    references: tuple[str, ...] = ()
    purpose: str = ""
    session: str = ""
    destination: str = ""
    on_behalf_of: str = ""


@dataclass
class _Failure:
    code: grpc.StatusCode
    reason: str
    message: str
    metadata: dict[str, str] = field(default_factory=dict)
    retry_after: float | None = None
    link: str | None = None


@dataclass
class _Handle:
    reference: str
    handle_id: str
    uses: int


class _Lease:
    def __init__(self, lease_id: str) -> None:
        self.id = lease_id
        self.events: queue.Queue[wire.AcquireLeaseResponse | None] = queue.Queue()
        self.handles: dict[str, str] = {}


class FakeBroker:
    """Listens on loopback within `with`.

    `secrets` has the values by reference; other references are refused. `uses` and `redeemer` are the terms of new
    handles; whoever has a handle can redeem it, whatever the terms say. `delay` is slept before each answer. `calls`
    is what was asked, in order.
    """

    def __init__(self) -> None:
        self.secrets: dict[str, str | bytes] = {}
        self.calls: list[Call] = []
        self.uses = 1
        self.redeemer = "agent"
        self.delay = 0.0
        self.token = "vkt_fake"  # noqa: S105
        self._advice: dict[str, str | None] = {}
        self._approvals: dict[str, str | None] = {}
        self._failures: deque[_Failure] = deque()
        self._leases: dict[str, _Lease] = {}
        self._handles: dict[str, _Handle] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        self._server: Any = None
        self._port = 0

    # Where it is.

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """What `Broker.from_env()` finds it by."""
        return {"VALETKEY_ADDRESS": self.address, "VALETKEY_TOKEN": self.token}

    def broker(self, **settings: Any) -> Broker:
        """A client of it, for asyncio."""
        return Broker(self.address, token=self.token, **settings)

    def sync_broker(self, **settings: Any) -> SyncBroker:
        """A client of it."""
        return SyncBroker(self.address, token=self.token, **settings)

    def __enter__(self) -> FakeBroker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it, or starts it again at the same address."""
        options = [
            # Two servers on one port would share the connections between them.
            ("grpc.so_reuseport", 0),
            # A client asks whether it is there every three seconds; by default that is too often.
            ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
            ("grpc.http2.max_ping_strikes", 0),
        ]
        self._server = grpc.server(ThreadPoolExecutor(STREAMS_MAX), options=options)
        services.add_LeaseServiceServicer_to_server(_Servicer(self), self._server)
        self._port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        self._server.start()

    def stop(self) -> None:
        """Vanishes: every stream breaks, and every handle is dead."""
        server, self._server = self._server, None
        if server is None:
            return
        with self._lock:
            self._handles.clear()
            for lease in self._leases.values():
                lease.events.put(None)
        server.stop(0).wait()

    # Its script.

    def deny(self, reference: str, advice: str | None = None) -> None:
        """Refuses a reference from now on, even one that has a value."""
        self._advice[reference] = advice

    def require_approval(self, reference: str, url: str | None = None) -> None:
        """Refuses leases on a reference until `approve`. A `url` may have `{id}` in it, as a broker's has."""
        self._approvals[reference] = url

    def approve(self, reference: str) -> None:
        """A person has approved."""
        self._approvals.pop(reference, None)

    def fail(
        self, code: str, reason: str, message: str = "", *, times: int = 1, retry_after: float | None = None
    ) -> None:
        """Fails the next calls with a gRPC code, such as `UNAVAILABLE`, and a reason of `docs/errors.md`."""
        failure = _Failure(grpc.StatusCode[code], reason, message or "scripted", retry_after=retry_after)
        self._failures.extend([failure] * times)

    def renew(self, reference: str) -> None:
        """Gives every lease on the reference a fresh handle."""
        for lease in self._holding(reference):
            old = self._handles[lease.handles[reference]].handle_id
            fresh = self._issue(lease, reference)
            lease.events.put(
                wire.AcquireLeaseResponse(renewed=words.HandleRenewed(issued=fresh, previous_handle_id=old))
            )

    def revoke(self, reference: str, cause: str = "policy") -> None:
        """Kills the handles on the reference."""
        for lease in self._holding(reference):
            dead = self._handles.pop(lease.handles.pop(reference))
            revoked = words.HandleRevoked(reference=reference, handle_id=dead.handle_id, cause=end_cause(cause))
            lease.events.put(wire.AcquireLeaseResponse(revoked=revoked))

    def drain(self) -> None:
        """Tells every lease that the broker is about to stop."""
        for lease in tuple(self._leases.values()):
            lease.events.put(wire.AcquireLeaseResponse(draining=words.LeaseDraining()))

    def end(self, cause: str = "policy") -> None:
        """Ends every lease."""
        for lease in tuple(self._leases.values()):
            self._end(lease, cause)

    @property
    def leases(self) -> int:
        """How many are open."""
        return len(self._leases)

    # What its servicer does.

    def _holding(self, reference: str) -> list[_Lease]:
        with self._lock:
            return [lease for lease in self._leases.values() if reference in lease.handles]

    def _open(self) -> _Lease:
        with self._lock:
            lease = _Lease(f"vkl_fake{next(self._numbers):012}")
            self._leases[lease.id] = lease
            return lease

    def _issue(self, lease: _Lease, reference: str) -> words.HandleIssued:
        with self._lock:
            handle_id = f"vkh_fake{next(self._numbers):012}"
            handle = f"{handle_id}_{randomness.token_hex(20)}"
            self._handles[handle] = _Handle(reference, handle_id, self.uses)
            lease.handles[reference] = handle
            redeemer: Any = words.Redeemer.Value(f"REDEEMER_{self.redeemer.upper()}")
            issued = words.HandleIssued(
                reference=reference,
                handle=handle,
                handle_id=handle_id,
                uses=self.uses,
                redeemer=redeemer,
                record_id=str(next(self._numbers)),
            )
            # By a clock that no client should look at.
            issued.expire_time.FromSeconds(int(time.time()) + LIFE_SECONDS)
            return issued

    def _end(self, lease: _Lease, cause: str) -> None:
        self._forget(lease)
        lease.events.put(wire.AcquireLeaseResponse(ended=words.LeaseEnded(cause=end_cause(cause))))
        lease.events.put(None)

    def _forget(self, lease: _Lease) -> None:
        with self._lock:
            self._leases.pop(lease.id, None)
            for handle in lease.handles.values():
                self._handles.pop(handle, None)
            lease.handles.clear()

    def _spend(self, text: str) -> str | None:
        with self._lock:
            handle = self._handles.get(text)
            if handle is None:
                return None
            handle.uses -= 1
            if handle.uses == 0:
                del self._handles[text]
                for lease in self._leases.values():
                    lease.handles = {ref: held for ref, held in lease.handles.items() if held != text}
            return handle.reference

    def _next_failure(self) -> _Failure | None:
        with self._lock:
            return self._failures.popleft() if self._failures else None

    def _refusal(self, reference: str) -> _Failure | None:
        said = {"reference": reference, "record_id": str(next(self._numbers))}
        if reference not in self.secrets or reference in self._advice:
            said["advice"] = self._advice.get(reference) or ""
            return _Failure(grpc.StatusCode.PERMISSION_DENIED, "ACCESS_DENIED", "access denied", said)
        if reference not in self._approvals:
            return None
        said["approval_id"] = approval_id = f"vkl_fake{next(self._numbers):012}"
        url, message = self._approvals[reference], f"a person must approve {approval_id}"
        link = url.replace("{id}", approval_id) if url else None
        return _Failure(grpc.StatusCode.FAILED_PRECONDITION, "APPROVAL_REQUIRED", message, said, link=link)


class _Servicer(services.LeaseServiceServicer):  # type: ignore[misc]
    def __init__(self, fake: FakeBroker) -> None:
        self._fake = fake

    def AcquireLease(self, request: Any, context: Any) -> Iterator[wire.AcquireLeaseResponse]:
        self._begin("AcquireLease", request, context, tuple(request.references))
        refusals = {ref: failure for ref in request.references if (failure := self._fake._refusal(ref))}
        if refusals and not request.partial:
            abort(context, next(iter(refusals.values())))
        lease = self._fake._open()
        context.add_callback(lambda: self._gone(lease))
        yield wire.AcquireLeaseResponse(
            opened=words.LeaseOpened(lease_id=lease.id, references=list(request.references))
        )
        for reference in request.references:
            if reference in refusals:
                failure = refusals[reference]
                refused = words.ReferenceRefused(
                    reference=reference,
                    reason=failure.reason,
                    message=failure.message,
                    record_id=failure.metadata["record_id"],
                )
                yield wire.AcquireLeaseResponse(refused=refused)
            else:
                yield wire.AcquireLeaseResponse(issued=self._fake._issue(lease, reference))
        while (event := lease.events.get()) is not None:
            yield event

    def RedeemHandle(self, request: Any, context: Any) -> wire.RedeemHandleResponse:
        self._begin("RedeemHandle", request, context)
        reference = self._fake._spend(request.handle)
        value = self._fake.secrets.get(reference) if reference is not None else None
        if value is None:
            code = grpc.StatusCode.FAILED_PRECONDITION
            abort(context, _Failure(code, "HANDLE_NOT_ACTIVE", "the handle is not active"))
        plain = value.encode() if isinstance(value, str) else value
        return wire.RedeemHandleResponse(secret_value=plain, record_id="1")

    def EndLease(self, request: Any, context: Any) -> wire.EndLeaseResponse:
        self._begin("EndLease", request, context)
        lease = self._fake._leases.get(request.lease_id)
        if lease is None:
            abort(context, _Failure(grpc.StatusCode.PERMISSION_DENIED, "ACCESS_DENIED", "access denied"))
        self._fake._end(lease, "caller")
        return wire.EndLeaseResponse()

    def CheckAccess(self, request: Any, context: Any) -> wire.CheckAccessResponse:
        self._begin("CheckAccess", request, context, (request.reference,))
        refusal = self._fake._refusal(request.reference)
        if refusal is not None and "advice" in refusal.metadata:
            return wire.CheckAccessResponse(decision=words.DECISION_DENY, advice=refusal.metadata["advice"])
        needed = refusal is not None
        return wire.CheckAccessResponse(decision=words.DECISION_ALLOW, uses=self._fake.uses, approval_required=needed)

    def _begin(self, method: str, request: Any, context: Any, references: tuple[str, ...] = ()) -> None:
        shown = dict(context.invocation_metadata())
        said = {it: getattr(request, it, "") for it in ("tool", "purpose", "session", "destination")}
        caller = shown.get("authorization", "").removeprefix("Bearer ")
        person = shown.get("x-valetkey-on-behalf-of", "")
        self._fake.calls.append(Call(method, caller, references=references, on_behalf_of=person, **said))
        time.sleep(self._fake.delay)
        failure = self._fake._next_failure()
        if failure is not None:
            abort(context, failure)

    def _gone(self, lease: _Lease) -> None:
        self._fake._forget(lease)
        lease.events.put(None)


def abort(context: Any, failure: _Failure) -> NoReturn:
    status = details_pb2.Status(code=failure.code.value[0], message=failure.message)
    info = details_pb2.ErrorInfo(reason=failure.reason, domain="valetkey", metadata=failure.metadata)
    add(status, "ErrorInfo", info)
    if failure.retry_after is not None:
        retry = details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(failure.retry_after * 1000))
        add(status, "RetryInfo", retry)
    if failure.link is not None:
        add(status, "Help", details_pb2.Help(links=[details_pb2.Help.Link(url=failure.link)]))
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(failure.code, failure.message)
    raise AssertionError("`abort` does not return")


def add(status: details_pb2.Status, kind: str, message: Any) -> None:
    detail = status.details.add()
    detail.type_url = f"type.googleapis.com/google.rpc.{kind}"
    detail.value = message.SerializeToString()


def end_cause(cause: str) -> Any:
    return words.EndCause.Value(f"END_CAUSE_{cause.upper()}")
