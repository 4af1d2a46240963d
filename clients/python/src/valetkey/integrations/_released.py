"""What a guard remembers: the values that it gave to tools, to know them when a later result has them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

from .._forms import Forms, forms_of
from .._waiting import elapsed
from ..conceal import Concealer
from ..secret import CONCEALED, Secret

VALUES_MAX = 256
BYTES_MAX = 256 * 1024
SECONDS_MAX = 60 * 60.0
# A shorter one would be found in nearly everything.
LENGTH_MIN = 3


class Released:
    """The last values, for an hour. Where there are too many, the oldest go. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, Forms]] = OrderedDict()

    def __repr__(self) -> str:
        return CONCEALED

    def add(self, secrets: Iterable[Secret]) -> None:
        """Remembers them, or that they were released again."""
        with self._lock:
            for secret in secrets:
                if len(secret.expose()) >= LENGTH_MIN:
                    _, forms = self._known.pop(secret.expose(), (0.0, None))
                    self._known[secret.expose()] = (elapsed(), forms or forms_of(secret.expose()))
            self._tidy()

    def concealer(self, secrets: Iterable[Secret] = ()) -> Concealer:
        """Of all that are remembered and of these, which a long time may have gone over."""
        with self._lock:
            self._tidy()
            known = [forms for _, forms in self._known.values()]
            known += [forms_of(it.expose()) for it in secrets if it.expose() not in self._known]
        return Concealer._of(known)

    def _tidy(self) -> None:
        size = sum(len(value) for value in self._known)
        for value, (time, _) in tuple(self._known.items()):
            many = len(self._known) > VALUES_MAX or (size > BYTES_MAX and len(self._known) > 1)
            if not many and elapsed() - time < SECONDS_MAX:
                return
            del self._known[value]
            size -= len(value)
