"""What the stream of a lease says, and what is alive after it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from . import _status
from ._proto import lease_pb2 as words
from ._proto import lease_service_pb2 as wire
from ._waiting import elapsed
from .errors import LeaseLost, ValetkeyError


@dataclass(frozen=True)
class Issued:
    """A handle and its terms. Its `repr` shows no handle."""

    handle: str
    handle_id: str
    uses: int
    redeemer: str
    record_id: str
    certificate_bound: bool

    @classmethod
    def of(cls, issued: words.HandleIssued) -> Issued:
        return cls(
            issued.handle,
            issued.handle_id,
            issued.uses,
            lower(words.Redeemer, issued.redeemer, "REDEEMER_"),
            issued.record_id,
            issued.certificate_bound,
        )

    def __repr__(self) -> str:
        return f"Issued({self.handle_id}, redeemer={self.redeemer}, uses={self.uses})"


class State:
    """What one stream has said so far of the references that were asked for. Of others it says nothing that is kept."""

    def __init__(self, references: Iterable[str]) -> None:
        self._asked = frozenset(references)
        self.id = ""
        self.issued: dict[str, Issued] = {}
        self.refused: dict[str, ValetkeyError] = {}
        self.revoked: dict[str, str] = {}
        self.draining = False
        self.ended = ""
        # What the broker's clock said, and ours that counts on, when the stream began.
        self._began: tuple[float, float] | None = None
        self._dies: dict[str, float] = {}

    def begin(self, date: str | None) -> None:
        """Takes the broker's own time from its answer: of the two clocks on the wall only its own counts."""
        try:
            self._began = (parsedate_to_datetime(date).timestamp(), elapsed()) if date else None
        except ValueError:
            self._began = None

    def alive(self, reference: str) -> Issued | None:
        """The handle, unless its time is over and nothing was heard of a fresh one: the machine slept, or this
        process did not come to read."""
        if elapsed() > self._dies.get(reference, float("inf")):
            return None
        return self.issued.get(reference)

    def over(self) -> State:
        """Nothing is alive any more. What was refused was so before, and is why there is nothing: a lease of which all
        is refused ends at once."""
        state = State(())
        state.refused = self.refused
        return state

    def complete(self, references: Iterable[str]) -> bool:
        answered = self.issued.keys() | self.refused.keys() | self.revoked.keys()
        return bool(self.id) and all(reference in answered for reference in references)

    def apply(self, message: wire.AcquireLeaseResponse) -> str:
        """Takes an event in. Returns the cause where a live handle was revoked."""
        kind = message.WhichOneof("event")
        if kind == "opened":
            self.id = message.opened.lease_id
        elif not self.id:
            # Events that this version does not know may come at any time, but never first.
            raise LeaseLost("the stream of the lease does not begin with `opened`; is that a broker?")
        elif kind == "issued":
            self._issue(message.issued)
        elif kind == "refused" and message.refused.reference in self._asked:
            it = message.refused
            self.refused[it.reference] = _status.refused(it.reference, it.reason, it.message, it.record_id)
        elif kind == "renewed":
            self._issue(message.renewed.issued)
        elif kind == "revoked":
            return self._revoke(message.revoked)
        elif kind == "draining":
            self.draining = True
        elif kind == "ended":
            self.ended = cause_of(message.ended.cause)
        return ""

    def _issue(self, issued: words.HandleIssued) -> None:
        reference = issued.reference
        if reference not in self._asked:
            return
        self.issued[reference] = Issued.of(issued)
        self.revoked.pop(reference, None)
        self._dies.pop(reference, None)
        if self._began is not None:
            date, then = self._began
            dies = then + issued.expire_time.seconds - date
            # A handle that comes dead comes from a clock that was set meanwhile: nothing follows from it.
            if dies > elapsed():
                self._dies[reference] = dies

    def _revoke(self, revoked: words.HandleRevoked) -> str:
        alive = self.issued.get(revoked.reference)
        # The one before a renewal does not take the fresh one along.
        if alive is None or alive.handle_id != revoked.handle_id:
            return ""
        del self.issued[revoked.reference]
        cause = cause_of(revoked.cause)
        self.revoked[revoked.reference] = cause
        return cause


def lost(cause: str) -> LeaseLost:
    error = LeaseLost(CAUSES.get(cause, "the lease is over; acquire a new one"))
    error.cause = cause
    return error


def cause_of(cause: int) -> str:
    return lower(words.EndCause, cause, "END_CAUSE_")


def lower(kind: Any, value: int, prefix: str) -> str:
    """`END_CAUSE_POLICY` as `policy`; a value from the future as its number."""
    try:
        name: str = kind.Name(value)
    except ValueError:
        return str(value)
    return name.removeprefix(prefix).lower()


CAUSES = {
    "caller": "the lease was ended by its holder or an operator; its handles are dead",
    "policy": "policy no longer allows it; its handles are dead, ask a reviewer for the reason",
    "expiry": "no handle of the lease is alive any more; acquire a new one",
    "credential": "the token that the lease was opened with was revoked or has had its time; acquire with another",
    "shutdown": "the broker stopped; its handles are dead, acquire a new one",
    "unavailable": "a handle could not be renewed because the log or the source was away; acquire a new one",
    "disconnect": "the lease's connection was lost; its handles are dead, acquire a new one",
    "stalled": "the lease's events were not read; its handles are dead, acquire a new one",
}
