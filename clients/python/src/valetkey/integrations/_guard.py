"""What all wrappers share: finding references and handles, and a lease around the call of a tool."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from .. import _lease
from ..conceal import Concealer
from ..errors import ApprovalRequired, Denied, HandleNotActive, InvalidRequest, NotFound, Precondition
from ..secret import CONCEALED, Secret
from ..sync import Broker, run, start

F = TypeVar("F", bound=Callable[..., Any])
# The values that stand for what was found, and the lease that they are from, if one was needed.
Entered = tuple[_lease.Lease | None, dict[str, Secret]]

REFERENCE = re.compile(r"op://[A-Za-z0-9_. -]+(?:/[A-Za-z0-9_. -]+){2,3}(?:\?[a-z=-]+)?", re.ASCII)
TEMPLATE = re.compile(r"\{\{\s*(" + REFERENCE.pattern + r")\s*\}\}")
HANDLE = re.compile(r"vkh_[0-9A-Za-z]{16}_[0-9A-Za-z]{40}")
# A model can do something about these: it is told, rather than the run ended.
TOLD = (ApprovalRequired, Denied, HandleNotActive, InvalidRequest, NotFound, Precondition)
FOUND_MAX = 64
DEPTH_MAX = 32


class Guard:
    """Puts values into the arguments of tools, and takes them out of their results.

    In an argument stands a reference alone, `op://vault/item/field`; or, within other text, `{{ op://… }}` or a handle.
    References are leased for the tool that is called, for as long as the call takes: policy decides by the tool's
    name. `tools` gives the broker's name of a tool where it is another than the framework's. `redeem_with` is the
    identity that redeems: one `Broker`, or one by the broker's name of each tool; without it the agent, where policy
    says `@redeem_by("agent")`.

    The brokers are those of `valetkey.sync`: so one guard is good for coroutines and for plain functions.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        redeem_with: Broker | Mapping[str, Broker] | None = None,
        tools: Mapping[str, str] | None = None,
        purpose: str = "called by a model",
    ) -> None:
        self._broker = broker
        self._redeem_with = redeem_with
        self._tools = dict(tools or {})
        self._purpose = purpose

    def wrap(self, function: F, name: str | None = None) -> F:
        """The same function, coroutine or not, with values in place of what the model wrote.

        Decorate the tool itself, below the framework's own decorator: then neither a trace nor a store sees a value.
        """
        tool = name or function.__name__

        @functools.wraps(function)
        async def later(*args: Any, **kwargs: Any) -> Any:
            return await self.call(tool, function, args, kwargs)

        @functools.wraps(function)
        def now(*args: Any, **kwargs: Any) -> Any:
            return self.call_now(tool, function, args, kwargs)

        made: Any = later if inspect.iscoroutinefunction(function) else now
        made.__signature__ = inspect.signature(function)
        return made  # type: ignore[no-any-return]

    async def call(
        self, tool: str, function: Callable[..., Any], args: Any, kwargs: Any, only: Collection[str] | None = None
    ) -> Any:
        """Calls a coroutine function with values in its arguments; `only` names those that the model wrote."""
        written, rest = parted(args, kwargs, only)
        async with self._opened(tool, written) as filled:
            try:
                return filled.concealer.anything(await filled.call(function, rest))
            except Exception as error:
                instead = filled.concealer.error(error)
                if instead is None:
                    raise
        # Out here, so that nothing leads back to the first one.
        raise instead

    def call_now(
        self, tool: str, function: Callable[..., Any], args: Any, kwargs: Any, only: Collection[str] | None = None
    ) -> Any:
        """The same for a plain function."""
        written, rest = parted(args, kwargs, only)
        with self._opened_now(tool, written) as filled:
            try:
                return filled.concealer.anything(filled.call_now(function, rest))
            except Exception as error:
                instead = filled.concealer.error(error)
                if instead is None:
                    raise
        raise instead

    @asynccontextmanager
    async def _opened(self, tool: str, arguments: Any) -> AsyncIterator[Filled]:
        """The arguments with values in them, for the length of the block."""
        found = find(arguments)
        if not found:
            yield Filled(arguments, {})
            return
        entering = start(self._enter(tool, found))
        try:
            lease, values = await asyncio.wrap_future(entering)
        except BaseException:
            # It may have come about just then; nobody would end it.
            entering.add_done_callback(abandon)
            raise
        try:
            yield Filled(arguments, values)
        finally:
            if lease is not None:
                await asyncio.wrap_future(start(lease.release()))

    @contextmanager
    def _opened_now(self, tool: str, arguments: Any) -> Iterator[Filled]:
        """The same without asyncio."""
        found = find(arguments)
        if not found:
            yield Filled(arguments, {})
            return
        lease, values = run(self._enter(tool, found))
        try:
            yield Filled(arguments, values)
        finally:
            if lease is not None:
                run(lease.release())

    async def _enter(self, name: str, found: list[str]) -> Entered:
        tool = self._tools.get(name, name)
        one = self._redeem_with
        redeemer = one if isinstance(one, Broker) or one is None else one.get(tool)
        broker = self._broker._inner
        by = redeemer._inner if redeemer is not None else broker
        references = [text for text in found if text.startswith("op://")]
        values = {}
        for text in found:
            if not text.startswith("op://"):
                values[text] = await by.redeem(text)
        if not references:
            return None, values
        lease = broker.lease(references, tool=tool, purpose=self._purpose, redeem_with=by)
        await lease.__aenter__()
        try:
            secrets = await asyncio.gather(*(lease[reference].redeem() for reference in references))
        except BaseException:
            await lease.release()
            raise
        values.update(zip(references, secrets, strict=True))
        return lease, values


class Filled:
    """Arguments with values in them, and what takes those out of results. Not in the locals of a frame of ours: what
    reports an error may show these."""

    __slots__ = ("_args", "_kwargs", "concealer")

    def __init__(self, arguments: tuple[Any, Any], values: Mapping[str, Secret]) -> None:
        plain = {text: secret.expose() for text, secret in values.items()}
        self._args, self._kwargs = fill(arguments, plain)
        self.concealer = Concealer(plain.values())

    async def call(self, function: Callable[..., Any], rest: Mapping[str, Any]) -> Any:
        return whole(await function(*self._args, **self._kwargs, **rest))

    def call_now(self, function: Callable[..., Any], rest: Mapping[str, Any]) -> Any:
        return whole(function(*self._args, **self._kwargs, **rest))

    def __repr__(self) -> str:
        return CONCEALED


def whole(result: Any) -> Any:
    """What is yet to come would come unconcealed, after the lease."""
    if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError("a guarded tool returns its result whole: define it with `async def`, and without `yield`")
    return result


def abandon(entering: Future[Entered]) -> None:
    if entering.cancelled() or entering.exception() is not None:
        return
    lease, _ = entering.result()
    if lease is not None:
        start(lease.release())


def parted(args: Any, kwargs: Any, only: Collection[str] | None) -> tuple[tuple[Any, Any], dict[str, Any]]:
    """What the model wrote, and what the framework adds."""
    if only is None:
        return (args, kwargs), {}
    written = {name: it for name, it in kwargs.items() if name in only}
    return (args, written), {name: it for name, it in kwargs.items() if name not in only}


def find(thing: Any) -> list[str]:
    """References and handles in arguments, each once."""
    found: dict[str, None] = {}

    def look(text: str) -> str:
        whole = text.strip()
        if REFERENCE.fullmatch(whole):
            found[whole] = None
        else:
            found.update(dict.fromkeys(match[1].strip() for match in TEMPLATE.finditer(text)))
            found.update(dict.fromkeys(HANDLE.findall(text)))
        return text

    each(thing, look)
    if len(found) > FOUND_MAX:
        raise InvalidRequest(f"a tool's arguments name {len(found)} secrets; {FOUND_MAX} at most")
    return list(found)


def fill(thing: Any, values: Mapping[str, str]) -> Any:
    """The arguments with the values in place."""

    def put(text: str) -> str:
        whole = text.strip()
        if whole in values:
            return values[whole]
        # In one pass: what a value holds is not looked at again.
        both = re.compile(f"{TEMPLATE.pattern}|{HANDLE.pattern}")
        return both.sub(lambda match: values.get((match[1] or match[0]).strip(), match[0]), text)

    return each(thing, put)


def each(thing: Any, change: Callable[[str], str], depth: int = 0) -> Any:
    """The same thing with every text changed; keys stay as they are."""
    if depth > DEPTH_MAX:
        raise InvalidRequest("a tool's arguments are nested too deeply")
    if isinstance(thing, str):
        return change(thing)
    if isinstance(thing, dict):
        return {key: each(it, change, depth + 1) for key, it in thing.items()}
    if isinstance(thing, (list, tuple)):
        made = [each(it, change, depth + 1) for it in thing]
        if isinstance(thing, tuple) and hasattr(thing, "_fields"):
            return type(thing)(*made)
        return type(thing)(made)
    fields = getattr(type(thing), "model_fields", None)
    if fields is not None:
        changed = changes(thing, fields, change, depth)
        return thing.model_copy(update=changed) if changed else thing
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type) and is_plain(thing):
        changed = changes(thing, (it.name for it in dataclasses.fields(thing)), change, depth)
        return dataclasses.replace(thing, **changed) if changed else thing
    return thing


def changes(thing: Any, names: Iterable[str], change: Callable[[str], str], depth: int) -> dict[str, Any]:
    """The fields that become others. An object without any, such as a method's own, stays the object that it is."""
    made = {name: each(getattr(thing, name), change, depth + 1) for name in names}
    return {name: it for name, it in made.items() if it != getattr(thing, name)}


def is_plain(thing: Any) -> bool:
    """Whether it is an argument made of data, rather than the framework's own context."""
    return all(
        it.init and isinstance(getattr(thing, it.name), (str, int, float, bool, list, tuple, dict, type(None)))
        for it in dataclasses.fields(thing)
    )
