"""The same names without asyncio: `from valetkey.sync import Broker`.

One thread of the process runs the loop that all of these share, so that a lease is kept while its owner computes. A
process that forks does so before its first call: neither threads nor gRPC come along. In a child of one that has called
already, calls raise `BadSettings`, and leaving a block leaves the parent's lease alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import Future, wait
from types import TracebackType
from typing import Any, TypeVar

from . import _broker, _lease, _process
from ._broker import ADDRESS_USUAL, DEADLINE_USUAL, Access, References, Ttl
from ._credentials import Credentials, File, Token, hushed
from ._events import Issued
from ._process import Staying
from .errors import TimedOut, ValetkeyError
from .secret import Secret

__all__ = ["Access", "Broker", "Lease", "LeasedSecret", "Secret"]

T = TypeVar("T")


class LeasedSecret(Staying):
    """One reference of a lease."""

    def __init__(self, inner: _lease.LeasedSecret) -> None:
        self._inner = inner
        self.name = inner.name
        self.reference = inner.reference

    @property
    def issued(self) -> Issued:
        """The handle that is alive now, and its terms."""
        return self._inner.issued

    @property
    def handle(self) -> str:
        """The handle that is alive now. As `valetkey.LeasedSecret.handle`."""
        return self._inner.handle

    def redeem(self, *, redeem_with: Broker | None = None, destination: str | None = None) -> Secret:
        """The value. As `valetkey.LeasedSecret.redeem`."""
        other = redeem_with._inner if redeem_with is not None else None
        return run(self._inner.redeem(redeem_with=other, destination=destination))

    def __repr__(self) -> str:
        return repr(self._inner)


class Lease(Staying, Mapping[str, LeasedSecret]):
    """As `valetkey.Lease`, open within `with`. `revoked` is a `threading.Event`."""

    def __init__(self, inner: _lease.Lease) -> None:
        self._inner = inner
        self._secrets = {name: LeasedSecret(secret) for name, secret in inner.items()}
        self.revoked = threading.Event()
        inner._on_revoked = self.revoked.set

    @property
    def id(self) -> str:
        """The lease's id, `vkl_…`; not a secret."""
        return self._inner.id

    @property
    def draining(self) -> bool:
        """Whether the broker has said that it is about to stop."""
        return self._inner.draining

    @property
    def lost(self) -> ValetkeyError | None:
        """Why the lease is over, where it is."""
        return self._inner.lost

    @property
    def refused(self) -> Mapping[str, ValetkeyError]:
        """What a partial lease did not get, and why, by name."""
        return self._inner.refused

    def ready(self) -> None:
        """Waits until every handle is alive, within the broker's deadline."""
        run(self._inner.ready())

    def release(self) -> None:
        """Ends the lease: its handles are dead when this returns. In a forked child it does nothing: the lease is the
        parent's."""
        if not _process.forked():
            run(self._inner.release())

    def __getitem__(self, name: str) -> LeasedSecret:
        return self._secrets[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._secrets)

    def __len__(self) -> int:
        return len(self._secrets)

    def __repr__(self) -> str:
        return repr(self._inner)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __enter__(self) -> Lease:
        run(self._inner.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Broker(Staying):
    """As `valetkey.Broker`, for `with`. Threads may share it."""

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
        # What fails may be reported with the locals of this frame.
        del token, token_file, ca, certificate, key
        self._inner = _broker.Broker._of(address, credentials, deadline)

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, *, deadline: float = DEADLINE_USUAL) -> Broker:
        """As the environment says. As `valetkey.Broker.from_env`."""
        broker = cls.__new__(cls)
        broker._inner = _broker.Broker.from_env(env, deadline=deadline)
        return broker

    @property
    def address(self) -> str:
        """Where it is."""
        return self._inner.address

    @property
    def deadline(self) -> float:
        """What bounds every wait, in seconds."""
        return self._inner.deadline

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Releases the leases that are still open, and closes the connection. In a forked child it does nothing: both
        are the parent's."""
        if not _process.forked():
            run(self._inner.close())

    def __repr__(self) -> str:
        return repr(getattr(self, "_inner", "Broker(not set up)"))

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
        """A lease on secret references for one tool, for `with`. As `valetkey.Broker.lease`."""
        other = redeem_with._inner if redeem_with is not None else None
        return Lease(
            self._inner.lease(
                references,
                tool=tool,
                purpose=purpose,
                ttl=ttl,
                partial=partial,
                session=session,
                destination=destination,
                on_behalf_of=on_behalf_of,
                redeem_with=other,
            )
        )

    def redeem(self, handle: str, *, destination: str | None = None) -> Secret:
        """The value behind a handle. As `valetkey.Broker.redeem`."""
        return run(self._inner.redeem(handle, destination=destination))

    def check(
        self,
        reference: str,
        *,
        tool: str | None = None,
        ttl: Ttl = None,
        session: str | None = None,
        destination: str | None = None,
        on_behalf_of: str | None = None,
    ) -> Access:
        """Whether a lease would be granted. As `valetkey.Broker.check`."""
        asked = self._inner.check(
            reference, tool=tool, ttl=ttl, session=session, destination=destination, on_behalf_of=on_behalf_of
        )
        # What fails may be reported with the locals of this frame.
        del on_behalf_of
        return run(asked)

    def end_lease(self, lease_id: str) -> None:
        """Ends a lease by its id."""
        run(self._inner.end_lease(lease_id))


_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs it in the loop's thread, with the caller's context, and waits."""
    if threading.current_thread().name == THREAD_NAME:
        work.close()
        raise RuntimeError("this would wait for itself; use `valetkey.Broker` inside a coroutine")
    future = start(work)
    try:
        while not wait([future], STILL_MAX).done:
            _moves()
        return future.result()
    except BaseException:
        # Ctrl-C while waiting: what was begun must not go on alone.
        future.cancel()
        raise


def start(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Begins it there, and does not wait."""
    try:
        _process.check()
        return asyncio.run_coroutine_threadsafe(work, _running())
    except BaseException:
        work.close()
        raise


def _running() -> asyncio.AbstractEventLoop:
    global _loop
    with _lock:
        if _loop is None:
            logging.getLogger("asyncio").addFilter(_is_news)
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name=THREAD_NAME, daemon=True).start()
        return _loop


def _moves() -> None:
    """Raises where the loop stands still: then what is to end by itself, at its deadline, does not."""
    moved = threading.Event()
    _running().call_soon_threadsafe(moved.set)
    # In small steps: a process that was stopped and goes on finds one of them over, and not all.
    if not any(moved.wait(STILL_MAX / 20) for _ in range(20)):
        raise TimedOut(
            f"the thread that talks to brokers stood still for {STILL_MAX:g} s; look into the audit log before asking "
            "again"
        )


def _is_news(record: logging.LogRecord) -> bool:
    """Before some version, gRPC wakes every loop of a process, and those for which there is nothing complain."""
    kind = record.exc_info[0] if record.exc_info else None
    return not (kind is BlockingIOError and "PollerCompletionQueue._handle_events" in record.getMessage())


def _forget() -> None:
    """In a child: the thread did not come along."""
    global _loop, _lock
    _loop, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

THREAD_NAME = "valetkey"
# Nothing in the loop takes long, however long the work waits that it runs.
STILL_MAX = 20.0
