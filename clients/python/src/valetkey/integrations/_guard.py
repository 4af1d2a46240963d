"""What all wrappers share: a lease around the call of a tool, values in its arguments, and none in its result."""

from __future__ import annotations

import asyncio
import functools
import hmac
import inspect
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from .. import _broker, _lease
from ..conceal import Concealer
from ..errors import ApprovalRequired, Denied, HandleNotActive, InvalidRequest, NotFound, Precondition
from ..secret import CONCEALED, Secret
from ..sync import Broker, run, start
from ._arguments import Parameters, fill, find, leaves, put
from ._released import Released

F = TypeVar("F", bound=Callable[..., Any])
# Makes the call itself of what the model wrote, with values in it. No frame of its own may be left when that runs.
Prepare = Callable[[Mapping[str, Any]], Callable[[], Any]]

# A model can do something about these: it is told, rather than the run ended.
TOLD = (ApprovalRequired, Denied, HandleNotActive, InvalidRequest, NotFound, Precondition)


class GuardedTool:
    """A tool that may be given values. `name` is what policies call it; `fields` are those of its parameters that take
    values; `redeem_with` is the identity that redeems: the tool's own `Broker`, or the guard's own where policy says
    `@redeem_by("agent")`."""

    def __init__(self, name: str, *, fields: Collection[str], redeem_with: Broker) -> None:
        if isinstance(fields, str):
            raise TypeError(f'`fields` are several names: `fields=["{fields}"]`')
        if not isinstance(redeem_with, Broker):
            raise TypeError("`redeem_with` is a `valetkey.sync.Broker`")
        self.name = name
        self.fields = frozenset(fields)
        self.redeem_with = redeem_with

    def __repr__(self) -> str:
        return f"GuardedTool({self.name!r}, fields={sorted(self.fields)})"


class Guard:
    """Puts values into the arguments of tools, and takes them out of their results.

    A tool gets a value only if `tools` has it, by the framework's name, and only in the fields that stand there; any
    other argument stays as the model wrote it. In such a field stands a reference alone, `op://vault/item/field`; or,
    within other text, `{{ op://… }}` or a handle. References are leased for the tool, for as long as the call takes.

    Values that were released are remembered, within bounds and for an hour, and concealed in what every guarded tool
    returns or raises, whether `tools` has it or not. A call in which the model itself wrote one of them is refused.

    The brokers are those of `valetkey.sync`: so one guard is good for coroutines and for plain functions.
    """

    def __init__(self, broker: Broker, tools: Mapping[str, GuardedTool], *, purpose: str = "called by a model") -> None:
        for name, tool in tools.items():
            if not isinstance(tool, GuardedTool):
                raise TypeError(f"what is said of `{name}` is a `GuardedTool`")
        self._broker = broker
        self._tools = dict(tools)
        self._purpose = purpose
        self._released = Released()

    def wrap(self, function: F, name: str | None = None) -> F:
        """The same function, coroutine or not, guarded. Its name is that in `tools`, unless `name` is.

        Decorate the tool itself, below the framework's own decorator: then neither a trace nor a store sees a value.
        """
        tool = name or function.__name__
        parameters = Parameters(function, self._fields(tool))

        def prepared(args: Any, kwargs: Any) -> tuple[str, Mapping[str, Any], Prepare]:
            prepare = functools.partial(parameters.prepared, function, args, kwargs)
            return tool, parameters.written(args, kwargs), prepare

        @functools.wraps(function)
        async def later(*args: Any, **kwargs: Any) -> Any:
            return await self.call(*prepared(args, kwargs))

        @functools.wraps(function)
        def now(*args: Any, **kwargs: Any) -> Any:
            return self.call_now(*prepared(args, kwargs))

        made: Any = later if inspect.iscoroutinefunction(function) else now
        made.__signature__ = parameters.signature
        return made  # type: ignore[no-any-return]

    async def call(self, tool: str, written: Mapping[str, Any], prepare: Prepare) -> Any:
        """Calls a coroutine function. `written` is what the model wrote, by parameter; `prepare` makes the call of
        the same with values in it, such as `lambda filled: functools.partial(function, **filled)`."""
        async with self._opened(tool, written, prepare) as filled:
            try:
                result = await filled.call()
                return self._concealer(filled).anything(result)
            except Exception as error:
                instead = self._concealer(filled).error(error)
                if instead is None:
                    raise
        # Out here, so that nothing leads back to the first one.
        raise instead

    def call_now(self, tool: str, written: Mapping[str, Any], prepare: Prepare) -> Any:
        """The same for a plain function."""
        with self._opened_now(tool, written, prepare) as filled:
            try:
                result = filled.call_now()
                return self._concealer(filled).anything(result)
            except Exception as error:
                instead = self._concealer(filled).error(error)
                if instead is None:
                    raise
        raise instead

    @asynccontextmanager
    async def _opened(self, tool: str, written: Mapping[str, Any], prepare: Prepare) -> AsyncIterator[Filled]:
        """The call with values in it, for the length of the block."""
        entry = self._entry(tool, written)
        if entry is None:
            yield Filled(tool, written, (), {}, prepare)
            return
        try:
            values = await asyncio.wrap_future(start(entry.enter()))
            yield self._filled(tool, written, values, prepare)
        finally:
            # A second cancellation may end the waiting, and must not end this.
            await asyncio.shield(asyncio.wrap_future(start(entry.leave())))

    @contextmanager
    def _opened_now(self, tool: str, written: Mapping[str, Any], prepare: Prepare) -> Iterator[Filled]:
        """The same without asyncio."""
        entry = self._entry(tool, written)
        if entry is None:
            yield Filled(tool, written, (), {}, prepare)
            return
        try:
            values = run(entry.enter())
            yield self._filled(tool, written, values, prepare)
        finally:
            run(entry.leave())

    def _entry(self, tool: str, written: Mapping[str, Any]) -> Entry | None:
        """What is to be leased and redeemed for the call. None where nothing is."""
        known = self._tools.get(tool)
        found = find(not_ours(tool, written), self._fields(tool))
        self._refuse(tool, written, found, self._released.concealer())
        if known is None or not found:
            return None
        return Entry(self._broker._inner, known, found, self._purpose)

    def _filled(self, tool: str, written: Mapping[str, Any], values: Mapping[str, Secret], prepare: Prepare) -> Filled:
        self._refuse(tool, written, values, self._released.concealer(values.values()))
        self._released.add(values.values())
        return Filled(tool, written, self._fields(tool), values, prepare)

    def _refuse(self, tool: str, written: Mapping[str, Any], found: Collection[str], concealer: Concealer) -> None:
        """A tool that repeats what a model guessed would tell it, by what is concealed, which guess was right."""
        blank = dict.fromkeys(found, "")
        for name, argument in not_ours(tool, written).items():
            for it in leaves(argument, keys=True):
                left = put(it, blank) if isinstance(it, str) and name in self._fields(tool) else it
                if concealer.holds(left):
                    raise InvalidRequest(f"`{name}` holds a secret value itself; write its reference or handle instead")

    def _fields(self, tool: str) -> Collection[str]:
        known = self._tools.get(tool)
        return known.fields if known is not None else ()

    def _concealer(self, filled: Filled) -> Concealer:
        # Anew: a call beside it may have released another one meanwhile.
        return self._released.concealer(filled.secrets)


class Entry:
    """What is leased and redeemed for one call. Whoever begins it leaves it, also where they were told of nothing: a
    cancellation may come just when all of it was done. Both run in the loop of the brokers."""

    def __init__(self, broker: _broker.Broker, tool: GuardedTool, found: Collection[str], purpose: str) -> None:
        self._broker = broker
        self._tool = tool
        self._found = found
        self._purpose = purpose
        self._entering: asyncio.Task[Any] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._lease: _lease.Lease | None = None

    async def enter(self) -> dict[str, Secret]:
        """The values, by what stands for them."""
        self._entering = asyncio.current_task()
        by = self._tool.redeem_with._inner
        references = [text for text in self._found if text.startswith("op://")]
        handles = [text for text in self._found if not text.startswith("op://")]
        for handle in handles:
            self._check(handle, by)
        values = {handle: await by.redeem(handle) for handle in handles}
        if references:
            self._lease = lease = self._broker.lease(
                references, tool=self._tool.name, purpose=self._purpose, redeem_with=by
            )
            await lease.__aenter__()
            secrets = await asyncio.gather(*(lease[reference].redeem() for reference in references))
            values.update(zip(references, secrets, strict=True))
        return values

    def _check(self, handle: str, by: _broker.Broker) -> None:
        """An agent can redeem by itself what it leased for another tool: then this is what keeps them apart."""
        tool = tool_of(self._broker, handle)
        if tool == self._tool.name or (tool is None and by is not self._broker):
            return
        raise HandleNotActive(f"the handle is not one that was leased for `{self._tool.name}`, and is alive")

    async def leave(self) -> None:
        """Ends the lease. It goes on where nobody waits for it any more."""
        self._leaving = asyncio.get_running_loop().create_task(self._leave())
        await asyncio.shield(self._leaving)

    async def _leave(self) -> None:
        if self._entering is not None and not self._entering.done():
            self._entering.cancel()
            await asyncio.wait([self._entering])
        if self._lease is not None:
            await self._lease.release()


def tool_of(broker: _broker.Broker, handle: str) -> str | None:
    """The tool that a handle was leased for, if it is alive in a lease of this client."""
    for lease in tuple(broker._leases):
        for reference in lease._request.references:
            issued = None if lease.lost is not None else lease._state.alive(reference)
            if issued is not None and hmac.compare_digest(issued.handle, handle):
                return str(lease._request.tool)
    return None


class Filled:
    """A call with values in its arguments. Not in the locals of a frame of ours: what reports an error may show
    these."""

    __slots__ = ("_arguments", "_call", "_tool", "secrets")

    def __init__(
        self,
        tool: str,
        written: Mapping[str, Any],
        fields: Collection[str],
        values: Mapping[str, Secret],
        prepare: Prepare,
    ) -> None:
        self._tool = tool
        self.secrets = tuple(values.values())
        self._call: Callable[[], Any]
        try:
            self._arguments = filled(written, fields, values)
            self._call = prepare(self._arguments)
            return
        except Exception as error:
            if not values:
                raise
            kind = type(error).__name__
        # Out here, so that nothing leads back to what may hold a value.
        raise TypeError(f"the tool's arguments do not take values ({kind})")

    def without(self, tool: str, written: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a call within this one has other than this one."""
        if tool != self._tool or not self.secrets:
            return written
        mine, missing = self._arguments, object()
        return {name: it for name, it in written.items() if not is_same(it, mine.get(name, missing))}

    async def call(self) -> Any:
        token = _outer.set(self)
        try:
            return whole(await self._call())
        finally:
            _outer.reset(token)
            self._forget()

    def call_now(self) -> Any:
        token = _outer.set(self)
        try:
            return whole(self._call())
        finally:
            _outer.reset(token)
            self._forget()

    def _forget(self) -> None:
        # What the tool began, and goes on, keeps the context that leads here.
        self._arguments, self._call = {}, dict

    def __repr__(self) -> str:
        return CONCEALED


# The guarded call that this one is made in.
_outer: ContextVar[Filled | None] = ContextVar("valetkey_guarded", default=None)


def not_ours(tool: str, written: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where a call is guarded twice, as by `wrap` and by a framework's middleware, the values in it are ours."""
    outer = _outer.get()
    return written if outer is None else outer.without(tool, written)


def is_same(one: Any, other: Any) -> bool:
    return one is other or (isinstance(one, str) and isinstance(other, str) and one == other)


def filled(written: Mapping[str, Any], fields: Collection[str], values: Mapping[str, Secret]) -> dict[str, Any]:
    plain = {text: secret.expose() for text, secret in values.items()}
    return {name: fill(it, plain) if name in fields else it for name, it in written.items()}


def whole(result: Any) -> Any:
    """What is yet to come would come unconcealed, after the lease."""
    if inspect.isawaitable(result) or inspect.isasyncgen(result) or hasattr(type(result), "__next__"):
        raise TypeError("a guarded tool returns its result whole: define it with `async def`, and without `yield`")
    if isinstance(result, memoryview):
        raise TypeError("a guarded tool returns its result whole: `bytes` in place of a view of them")
    return result
