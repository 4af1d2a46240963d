"""A broker, as one identity."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any
from weakref import WeakSet

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration

from . import _process, _status
from ._address import Address
from ._connect import Connection
from ._context import current
from ._credentials import Credentials, File, Token, hushed
from ._events import lower
from ._lease import Lease
from ._process import Staying
from ._proto import lease_pb2 as words
from ._proto import lease_service_pb2 as wire
from ._waiting import Backoff, Deadline
from .errors import BadSettings, InvalidRequest, TimedOut, ValetkeyError
from .secret import Secret

ADDRESS_USUAL = "http://127.0.0.1:7447"
DEADLINE_USUAL = 30.0

References = Mapping[str, str] | Iterable[str] | str
Ttl = timedelta | float | None


@dataclass(frozen=True)
class Access:
    """What the broker would decide. `ttl_max` is in seconds, where policy sets a bound. With `approval_required`, a
    lease waits for a person first."""

    allowed: bool
    advice: str
    record_id: str
    ttl_max: float | None
    uses: int
    redeemer: str
    certificate_bound: bool
    approval_required: bool = False


class Broker(Staying):
    """A connection to a broker, as one identity: an agent, or a tool.

    It connects when it is first used. `deadline` bounds every wait, in seconds: for a lease, for a value, and for a
    lease that is asked for again after its broker went away.
    """

    def __init__(
        self,
        address: str = ADDRESS_USUAL,
        *,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        ca: str | os.PathLike[str] | None = None,
        certificate: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        deadline: float = DEADLINE_USUAL,
    ) -> None:
        credentials = Credentials(Token.of(token), *map(File.of, (token_file, ca, certificate, key)))
        address = hushed(address)
        # What fails from here on may be reported with the locals of this frame.
        del token, token_file, ca, certificate, key
        self._set_up(address, credentials, deadline)

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, *, deadline: float = DEADLINE_USUAL) -> Broker:
        """As the environment says, by the names that the `valetkey` program knows: `VALETKEY_ADDRESS`,
        `VALETKEY_TOKEN` or `VALETKEY_TOKEN_FILE`, `VALETKEY_CA`, `VALETKEY_CERT` and `VALETKEY_KEY`.

        A token's file is read for each call, so that one which is renewed in place is used.
        """
        env = os.environ if env is None else env
        address, credentials = address_of(env), Credentials.from_env(env)
        # As above: all of it would be reported.
        del env
        return cls._of(address, credentials, deadline)

    @classmethod
    def _of(cls, address: str, credentials: Credentials, deadline: float = DEADLINE_USUAL) -> Broker:
        broker = cls.__new__(cls)
        broker._set_up(address, credentials, deadline)
        return broker

    def _set_up(self, address: str, credentials: Credentials, deadline: float) -> None:
        if not 0 < deadline < float("inf"):
            raise BadSettings("a deadline is a positive number of seconds")
        self.deadline = deadline
        self._connection = Connection(Address.parse(address), credentials)
        self.address = address
        # Those that are open: gRPC does not reliably end the streams of a connection that is closed.
        self._leases: WeakSet[Lease] = WeakSet()

    async def __aenter__(self) -> Broker:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Releases the leases that are still open, and closes the connection. In a forked child it does nothing: both
        are the parent's."""
        if _process.forked():
            return
        if self._connection.is_here():
            await asyncio.gather(*(lease.release() for lease in tuple(self._leases)))
        await self._connection.close()

    def __repr__(self) -> str:
        # What reports the error of a setting that cannot be used asks for this too.
        connection = getattr(self, "_connection", None)
        return f"Broker({connection.address.shown!r})" if connection is not None else "Broker(not set up)"

    def lease(
        self,
        references: References,
        *,
        tool: str | None = None,
        purpose: str | None = None,
        ttl: Ttl = None,
        partial: bool = False,
        session: str | None = None,
        destination: str | None = None,
        on_behalf_of: str | None = None,
        redeem_with: Broker | None = None,
    ) -> Lease:
        """A lease on secret references for one tool, for `async with`. Nothing is asked before.

        `references` are `{"password": "op://vault/item/field"}`, or references alone, which are then their own names.
        `tool` will use the secrets and alone can redeem them; `purpose` is for reviewers. `ttl` is the life of each
        handle, in seconds; the broker's usual one without it. `partial` takes some where others are refused.
        `on_behalf_of` is a signed token of the person the agent acts for. `redeem_with` is the tool's own `Broker`,
        where it is at hand.
        """
        names, person = named(references), Token.of(on_behalf_of)
        del on_behalf_of
        acting = current()
        tool = tool or acting.tool
        if not tool:
            raise InvalidRequest('a lease is for one tool; name it: `tool="navan.book_flight"`')
        request = wire.AcquireLeaseRequest(
            tool=tool,
            references=list(dict.fromkeys(names.values())),
            purpose=purpose or acting.purpose or "",
            ttl=duration(ttl),
            partial=partial,
            session=session or acting.session or "",
            destination=destination or acting.destination or "",
        )
        return Lease(self, names, request, person, redeem_with)

    async def redeem(self, handle: str, *, destination: str | None = None) -> Secret:
        """The value behind a handle, as the tool that it was issued for.

        Raises `HandleNotActive` for every handle that gives nothing, whatever the cause, and `InvalidRequest` for what
        is none. Asked again only where it is sure that no use was spent.
        """
        return await self._redeem(handle, destination, Deadline(self.deadline))

    async def check(
        self,
        reference: str,
        *,
        tool: str | None = None,
        ttl: Ttl = None,
        session: str | None = None,
        destination: str | None = None,
        on_behalf_of: str | None = None,
    ) -> Access:
        """Whether a lease would be granted. Nothing is fetched; the question is recorded."""
        person = Token.of(on_behalf_of)
        del on_behalf_of
        acting = current()
        request = wire.CheckAccessRequest(
            tool=tool or acting.tool or "",
            reference=reference,
            ttl=duration(ttl),
            session=session or acting.session or "",
            destination=destination or acting.destination or "",
        )
        deadline = Deadline(self.deadline)
        answer = await self._ask("CheckAccess", request, deadline, person)
        bound = answer.ttl_max
        return Access(
            allowed=answer.decision == words.DECISION_ALLOW,
            advice=answer.advice,
            record_id=answer.record_id,
            ttl_max=bound.seconds + bound.nanos / 1e9 if answer.HasField("ttl_max") else None,
            uses=answer.uses,
            redeemer=lower(words.Redeemer, answer.redeemer, "REDEEMER_"),
            certificate_bound=answer.certificate_bound,
            approval_required=answer.approval_required,
        )

    async def end_lease(self, lease_id: str) -> None:
        """Ends a lease by its id: its handles are dead when this returns."""
        await self._end(lease_id, Deadline(self.deadline))

    async def _end(self, lease_id: str, deadline: Deadline) -> None:
        await self._ask("EndLease", wire.EndLeaseRequest(lease_id=lease_id), deadline)

    async def _redeem(self, handle: str, destination: str | None, deadline: Deadline) -> Secret:
        where = destination or current().destination or ""
        request = wire.RedeemHandleRequest(handle=handle, destination=where)
        secret: Secret = await self._ask("RedeemHandle", request, deadline)
        return secret

    async def _ask(self, method: str, request: Any, deadline: Deadline, person: Token | None = None) -> Any:
        """One answer. Asked again, within the deadline, only where nothing was done."""
        backoff = Backoff()
        while True:
            stub, metadata = await self._connection.prepare(deadline, person)
            try:
                async with deadline.bound():
                    return await getattr(stub, method)(request, metadata=metadata)
            except TimeoutError:
                raise self._timed_out(deadline) from None
            except grpc.aio.AioRpcError as rpc:
                error: ValetkeyError = _status.from_rpc(rpc)
            if not _status.surely_not_done(error):
                raise error
            if not await backoff.pause(deadline, getattr(error, "retry_after", None)):
                raise error

    def _timed_out(self, deadline: Deadline) -> ValetkeyError:
        return TimedOut(
            f"the broker at `{self._connection.address.shown}` did not answer within {deadline.seconds:g} s; look "
            "into the audit log before asking again"
        )


def address_of(env: Mapping[str, str]) -> str:
    return hushed(env.get("VALETKEY_ADDRESS", ADDRESS_USUAL))


def named(references: References) -> dict[str, str]:
    """By name; a reference alone is its own."""
    if isinstance(references, str):
        return {references: references}
    if isinstance(references, Mapping):
        return dict(references)
    return {reference: reference for reference in references}


def duration(ttl: Ttl) -> Duration | None:
    if ttl is None:
        return None
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else float(ttl)
    if not -1e9 < seconds < 1e9:
        raise InvalidRequest("`ttl` is a number of seconds", reason="INVALID_TTL")
    made = Duration()
    made.FromTimedelta(timedelta(seconds=seconds))
    return made
