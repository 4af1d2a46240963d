"""What is being done right now, for whoever asks for a lease deeper down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace

__all__ = ["Acting", "acting", "current"]


@dataclass(frozen=True)
class Acting:
    """What a lease is asked with, where the call itself does not say."""

    tool: str | None = None
    purpose: str | None = None
    session: str | None = None
    destination: str | None = None


_current: ContextVar[Acting] = ContextVar("valetkey_acting", default=Acting())  # noqa: B039


@contextmanager
def acting(
    *,
    tool: str | None = None,
    purpose: str | None = None,
    session: str | None = None,
    destination: str | None = None,
) -> Iterator[None]:
    """Within the block, leases are asked for with these, unless the call says otherwise."""
    given = Acting(tool, purpose, session, destination)
    said = {it.name: getattr(given, it.name) for it in fields(given) if getattr(given, it.name) is not None}
    token = _current.set(replace(_current.get(), **said))
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Acting:
    """What the innermost block says."""
    return _current.get()
