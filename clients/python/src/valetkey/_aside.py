"""Reading files beside the loop: a file system may take its time, or never answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Aside(Generic[T]):
    """Reads in a thread that holds up neither the loop nor the end of the process.

    One at a time: who comes meanwhile waits for the same, so that a file system which hangs takes one thread, and not
    one for each call.
    """

    def __init__(self, read: Callable[[], T]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._pending: Future[T] | None = None

    async def __call__(self) -> T:
        with self._lock:
            pending = self._pending
            if pending is None:
                pending = Future()
                # One who no longer waits does not take it away from the others.
                pending.set_running_or_notify_cancel()
                threading.Thread(target=self._run, args=(pending,), name="valetkey-files", daemon=True).start()
                self._pending = pending
        return await asyncio.wrap_future(pending)

    def _run(self, pending: Future[T]) -> None:
        try:
            found = self._read()
        except BaseException as error:
            self._over()
            pending.set_exception(error)
        else:
            self._over()
            pending.set_result(found)

    def _over(self) -> None:
        with self._lock:
            self._pending = None
