"""A lease: its stream, what is alive in it, and how it is asked for again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from . import _process, _status
from ._credentials import Token
from ._events import Issued, State, lost
from ._process import Staying
from ._proto import lease_service_pb2 as wire
from ._waiting import Backoff, Deadline
from .errors import HandleNotActive, LeaseLost, TimedOut, Unavailable, ValetkeyError
from .secret import Secret

if TYPE_CHECKING:
    from ._broker import Broker

# Causes after which asking again can help.
PASSING = ("shutdown", "unavailable", "stalled", "disconnect")
# A lease that lived so long counts as a success: the next pause is short again.
STEADY_SECONDS = 10.0
RELEASE_MAX = 2.0
# As long as a dead connection takes to be noticed, and a little more.
NOTICE_MAX = 6.0
NOTICE_REVOKED_MAX = 0.25


class LeasedSecret(Staying):
    """One reference of a lease."""

    def __init__(self, lease: Lease, name: str, reference: str) -> None:
        self._lease = lease
        self.name = name
        self.reference = reference

    @property
    def issued(self) -> Issued:
        """The handle that is alive now, and its terms. Raises as `handle` does."""
        return self._lease._issued(self.reference)

    @property
    def handle(self) -> str:
        """The handle that is alive now: safe in a prompt, a log or a trace, and worth something to its tool alone.

        Read it anew each time: a renewal replaces it. Raises `LeaseLost` or what refused it where there is none, and
        `Unavailable` while the lease is being asked for again (`await lease.ready()` waits for that).
        """
        return self.issued.handle

    async def redeem(self, *, redeem_with: Broker | None = None, destination: str | None = None) -> Secret:
        """The value, redeemed as the identity of `redeem_with`: the tool's own `Broker`.

        Without it, as that of the lease's `redeem_with`, or else as the agent: policy must then say
        `@redeem_by("agent")`. Where the broker restarts meanwhile, a fresh handle is waited for and used, within the
        deadline.
        """
        return await self._lease._redeem(self.reference, redeem_with, destination)

    def __repr__(self) -> str:
        return f"LeasedSecret({self.name!r}, {self.reference!r})"


class Lease(Staying, Mapping[str, LeasedSecret]):
    """What `Broker.lease` gives: open within `async with`, and over at its end.

    Names lead to secrets: `lease["password"].handle`. `revoked` is an `asyncio.Event`, set when a handle or the whole
    lease ended other than by leaving the block. `lost` then says why. `refused` has, by name, what a partial lease did
    not get.
    """

    def __init__(
        self,
        broker: Broker,
        names: Mapping[str, str],
        request: wire.AcquireLeaseRequest,
        person: Token | None,
        redeem_with: Broker | None,
    ) -> None:
        self._broker = broker
        self._secrets = {name: LeasedSecret(self, name, reference) for name, reference in names.items()}
        self._request = request
        self._person = person
        self._redeem_with = redeem_with
        self._state = State(())
        self._call: Any = None
        self._shown: object = None
        self._keeper: asyncio.Task[None] | None = None
        self._backoff = Backoff()
        self._changed = asyncio.Event()
        # Of the handles that are alive now, how often each was redeemed.
        self._spent: dict[str, tuple[str, int]] = {}
        self._on_revoked: Callable[[], None] | None = None
        self.revoked = asyncio.Event()
        self.lost: ValetkeyError | None = None

    @property
    def id(self) -> str:
        """The lease's id, `vkl_…`; not a secret. Another one once it was asked for again."""
        return self._state.id

    @property
    def draining(self) -> bool:
        """Whether the broker has said that it is about to stop.

        The lease is asked for again when it has, and not before: until then its handles are good, and it is still what
        answers at its address, with a refusal.
        """
        return self._state.draining

    @property
    def refused(self) -> Mapping[str, ValetkeyError]:
        """What a partial lease did not get, and why, by name."""
        gone = self._state.refused
        return {name: gone[it.reference] for name, it in self._secrets.items() if it.reference in gone}

    def __getitem__(self, name: str) -> LeasedSecret:
        return self._secrets[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._secrets)

    def __len__(self) -> int:
        return len(self._secrets)

    def __repr__(self) -> str:
        return f"Lease({self.id or 'not open'}, {list(self._secrets)})"

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    async def __aenter__(self) -> Lease:
        if self._keeper is not None or self.lost is not None:
            raise RuntimeError("a lease is opened once; ask the broker for another")
        await self._open(Deadline(self._broker.deadline))
        self._keeper = asyncio.get_running_loop().create_task(self._keep())
        self._keeper.add_done_callback(self._kept)
        self._broker._leases.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.release()

    async def release(self) -> None:
        """Ends the lease: its handles are dead when this returns, and within seconds where the broker is away."""
        if _process.forked():
            # It is the parent's, and goes on there.
            return
        lease_id, ended, call = self._state.id, self.lost is not None, self._call
        if not ended:
            self.lost = LeaseLost("the lease was released; acquire a new one")
            self.lost.cause = "caller"
        self._state = self._state.over()
        self._notify()
        try:
            if lease_id and not ended:
                await self._broker._end(lease_id, Deadline(RELEASE_MAX))
        except ValetkeyError:
            # Closing the stream does the same, a little later.
            pass
        finally:
            self._broker._leases.discard(self)
            if self._keeper is not None:
                self._keeper.cancel()
            for it in (call, self._call):
                if it is not None:
                    it.cancel()

    async def ready(self) -> None:
        """Waits until every handle is alive, within the broker's deadline. Raises why not."""
        deadline = Deadline(self._broker.deadline)
        for reference in self._request.references:
            if reference not in self._state.refused:
                await self._alive(reference, deadline)

    # What keeps it.

    async def _open(self, deadline: Deadline) -> None:
        """Asks until there is a lease, an error that stays, or no time left."""
        error: ValetkeyError = self._timed_out(deadline)
        while True:
            stub, shown = await self._broker._connection.prepare(deadline, self._person)
            try:
                async with deadline.bound():
                    await self._ask(stub, shown)
                return
            except TimeoutError:
                # What an attempt before it met says more.
                raise error from None
            except grpc.aio.AioRpcError as rpc:
                error = _status.from_rpc(rpc)
                if not _status.may_ask_again(error):
                    raise error from None
            except LeaseLost as gone:
                error = gone
                if gone.cause not in PASSING:
                    raise
            if not await self._backoff.pause(deadline, getattr(error, "retry_after", None)):
                raise error from None

    async def _ask(self, stub: Any, shown: object) -> None:
        """One attempt. Returns when each reference has its answer."""
        self._shown = shown
        call = stub.AcquireLease(self._request, metadata=shown)
        state = State(self._request.references)
        try:
            while not state.complete(self._request.references):
                event = await call.read()
                if event is grpc.aio.EOF:
                    await raise_status(call)
                    raise lost("disconnect")
                if not state.id:
                    state.begin(date_of(await call.initial_metadata()))
                state.apply(event)
                if state.ended:
                    raise lost(state.ended)
        except BaseException:
            call.cancel()
            raise
        self._call, self._state = call, state
        self._spent.clear()
        self._notify()

    async def _keep(self) -> None:
        """Reads what comes, and asks again when that can help."""
        while True:
            since = time.monotonic()
            cause = await self._follow()
            if time.monotonic() - since > STEADY_SECONDS:
                self._backoff.reset()
            self._call.cancel()
            if self.lost is not None:
                return
            renewed_credential = cause == "credential" and await self._shown_now() != self._shown
            if cause not in PASSING and not renewed_credential:
                return self._end(lost(cause))
            self._state = State(())
            self._notify()
            deadline = Deadline(self._broker.deadline)
            try:
                await self._backoff.pause(deadline)
                await self._open(deadline)
            except ValetkeyError as error:
                return self._end(error)
            except Exception as error:
                # Whatever it was, nobody may wait for this lease any more.
                return self._end(LeaseLost(f"the lease was lost ({type(error).__name__}); acquire a new one"))

    def _kept(self, keeper: asyncio.Task[None]) -> None:
        """However it ended, as when the broker was closed around an open lease: what nobody keeps is not shown."""
        error = None if keeper.cancelled() else keeper.exception()
        if self.lost is None:
            self._end(error if isinstance(error, ValetkeyError) else lost("disconnect"))

    async def _follow(self) -> str:
        """Reads events until the lease is over. Returns the cause."""
        while True:
            try:
                event = await self._call.read()
            except grpc.aio.AioRpcError:
                return "disconnect"
            if event is grpc.aio.EOF or self.lost is not None:
                return "disconnect"
            cause = self._state.apply(event)
            if self._state.ended:
                return self._state.ended
            if cause == "unavailable":
                return cause
            if cause:
                self._tell_revoked()
            self._notify()

    def _end(self, error: ValetkeyError) -> None:
        self.lost = error
        self._state = self._state.over()
        self._tell_revoked()
        self._notify()

    def _tell_revoked(self) -> None:
        self.revoked.set()
        if self._on_revoked is not None:
            self._on_revoked()

    def _notify(self) -> None:
        """Wakes all who wait for a change."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _shown_now(self) -> object:
        try:
            return (await self._broker._connection.prepare(Deadline(self._broker.deadline), self._person))[1]
        except ValetkeyError:
            return self._shown

    def _timed_out(self, deadline: Deadline) -> ValetkeyError:
        return TimedOut(
            f"the broker at `{self._broker._connection.address.shown}` gave no lease within {deadline.seconds:g} s"
        )

    # What is alive.

    def _issued(self, reference: str) -> Issued:
        # In a child nobody would replace it.
        _process.check()
        state = self._state
        if reference in state.refused:
            raise copy_of(state.refused[reference])
        if self.lost is not None:
            raise copy_of(self.lost)
        if issued := state.alive(reference):
            return issued
        if reference in state.revoked:
            raise lost(state.revoked[reference])
        if self._keeper is None:
            raise LeaseLost("the lease is not open; use it within `async with`")
        if old := state.issued.get(reference):
            if self._times_spent(reference, old) >= old.uses:
                # Of these no fresh one comes.
                raise HandleNotActive("the handle was redeemed, and had its time; acquire a new lease")
            raise Unavailable("the handle had its time, and a fresh one is yet to come; wait for `ready()`")
        raise Unavailable("the broker went away, and the lease is being asked for again; wait for `ready()`")

    async def _alive(self, reference: str, deadline: Deadline) -> Issued:
        """The live handle, waited for while the lease is being asked for again."""
        while True:
            changed = self._changed
            try:
                return self._issued(reference)
            except Unavailable:
                if reference in self._state.refused or self.lost is not None:
                    raise
            try:
                async with deadline.bound():
                    await changed.wait()
            except TimeoutError:
                raise self._timed_out(deadline) from None

    async def _redeem(self, reference: str, other: Broker | None, destination: str | None) -> Secret:
        broker = other or self._redeem_with or self._broker
        deadline = Deadline(broker.deadline)
        while True:
            issued = await self._alive(reference, deadline)
            try:
                value = await broker._redeem(issued.handle, destination, deadline)
            except HandleNotActive as error:
                # A second redeem of a handle that was good for one is no sign of anything else.
                if self._times_spent(reference, issued) >= issued.uses:
                    raise
                await self._replaced(reference, issued, deadline, NOTICE_REVOKED_MAX, error)
            except Unavailable as error:
                await self._replaced(reference, issued, deadline, NOTICE_MAX, error)
            else:
                self._spent[reference] = (issued.handle_id, self._times_spent(reference, issued) + 1)
                return value

    def _times_spent(self, reference: str, issued: Issued) -> int:
        handle_id, times = self._spent.get(reference, ("", 0))
        return times if handle_id == issued.handle_id else 0

    async def _replaced(
        self, reference: str, old: Issued, deadline: Deadline, notice: float, error: ValetkeyError
    ) -> None:
        """Waits until the handle is another one, or gone. Raises what failed where it stays."""
        noticed = Deadline(min(notice, deadline.left()))
        while self._state.issued.get(reference) is old:
            changed = self._changed
            try:
                async with noticed.bound():
                    await changed.wait()
            except TimeoutError:
                raise error from None


async def raise_status(call: Any) -> None:
    """A stream that a status ended reads as one that ended well."""
    code = await call.code()
    if code is not grpc.StatusCode.OK:
        raise grpc.aio.AioRpcError(
            code, await call.initial_metadata(), await call.trailing_metadata(), await call.details()
        )


def date_of(metadata: Any) -> str | None:
    return next((value for key, value in metadata or () if key == "date" and isinstance(value, str)), None)


def copy_of(error: ValetkeyError) -> ValetkeyError:
    """One to raise: the same object, raised again and again, would gather all their tracebacks."""
    made = type(error)(*error.args)
    vars(made).update(vars(error))
    return made
