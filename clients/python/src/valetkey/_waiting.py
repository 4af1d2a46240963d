"""Deadlines and pauses. Only differences of the monotonic clock are looked at: the clock on the wall may be wrong."""

from __future__ import annotations

import asyncio
import random
import time
from types import TracebackType

PAUSE_FIRST = 0.1
PAUSE_MAX = 2.0


def elapsed() -> float:
    """Seconds since some moment, those in which the machine slept included, where it tells."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class Deadline:
    """A moment until which one may wait."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.at = time.monotonic() + seconds

    def left(self) -> float:
        return max(self.at - time.monotonic(), 0.0)

    def passed(self) -> bool:
        return self.left() == 0.0

    def bound(self) -> Timeout:
        return Timeout(self.left())


class Backoff:
    """Pauses that grow, each a random part of its bound, so that a restarted broker is not met by all at once."""

    def __init__(self) -> None:
        self._bound = PAUSE_FIRST

    async def pause(self, deadline: Deadline, at_least: float | None = None) -> bool:
        """Waits. False, at once, where the deadline would pass before."""
        # A part of the bound stays fixed, so that a pause is never none at all.
        pause = max(random.uniform(self._bound / 4, self._bound), at_least or 0.0)  # noqa: S311
        self._bound = min(self._bound * 2, PAUSE_MAX)
        if pause >= deadline.left():
            return False
        await asyncio.sleep(pause)
        return True

    def reset(self) -> None:
        self._bound = PAUSE_FIRST


class Timeout:
    """Raises `TimeoutError` inside `async with` after so many seconds.

    `asyncio.wait_for` before Python 3.12 can lose a cancellation, and `asyncio.timeout` is not in 3.10.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._expired = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None

    async def __aenter__(self) -> Timeout:
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expire)
        return self

    def _expire(self) -> None:
        self._expired = True
        if self._task is not None:
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._expired or self._task is None:
            return
        # Where somebody else cancelled the task too, theirs is what counts.
        uncancel = getattr(self._task, "uncancel", None)
        others = uncancel is not None and uncancel() > 0
        if kind is asyncio.CancelledError and not others:
            raise TimeoutError from error
