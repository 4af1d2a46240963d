"""What belongs to one process: it neither comes along into a forked child, nor travels into another."""

from __future__ import annotations

import os
from typing import Any, NoReturn

from .errors import BadSettings

# Otherwise gRPC's core tries to follow a fork by itself, although it cannot with asyncio, and now and then aborts the
# child, even one that has nothing to do with brokers. gRPC for Python calls this the default.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

_used_by: int | None = None


def use() -> None:
    """To be called before gRPC is used. Raises in the child of a process that has used it."""
    global _used_by
    check()
    _used_by = os.getpid()


def check() -> None:
    """Raises there. The threads of gRPC did not come along: a child that called would wait for ever, and take away
    what wakes the parent."""
    if forked():
        raise BadSettings(
            "this process was forked from one that had already used a broker, which does not work; start it by "
            "`spawn`, or fork before the first use and make a `Broker` in the child"
        )


def forked() -> bool:
    """Whether what is open is the parent's, to be left alone."""
    return _used_by is not None and _used_by != os.getpid()


class Staying:
    """Is not copied or pickled: it has tokens, and a connection of this process."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} is not copied or pickled; make one where it is used")
