"""Why the broker did not do what was asked, by who has to act. No message holds a handle, a token or a value."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ApprovalRequired",
    "BadSettings",
    "BrokerFailed",
    "Denied",
    "HandleNotActive",
    "InvalidRequest",
    "LeaseLost",
    "LimitReached",
    "NoBroker",
    "NotFound",
    "PersonUnauthenticated",
    "Precondition",
    "TimedOut",
    "Unauthenticated",
    "Unavailable",
    "ValetkeyError",
    "Violation",
]


@dataclass(frozen=True)
class Violation:
    """One rule that a request breaks."""

    field: str
    description: str


class ValetkeyError(Exception):
    """What all errors of this package are.

    `reason` is the broker's stable code, such as `ACCESS_DENIED`; empty where it gave none. `record_id` is the audit
    record that says more to a reviewer, where there is one. `reference` is what it is about, where that is one thing.
    """

    def __init__(
        self, message: str, *, reason: str = "", record_id: str | None = None, reference: str | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.record_id = record_id
        self.reference = reference


class BadSettings(ValetkeyError):
    """The address, the token or a file cannot be used; nothing was sent."""


class Denied(ValetkeyError):
    """Policy refuses. `advice` is what the policy's author says to do instead, where they say something."""

    advice: str | None = None


class ApprovalRequired(ValetkeyError):
    """Policy allows it once a person has approved it, and none has yet.

    `approval_id` is what they approve; it is no secret. `url` is where, if the broker knows a place. It is not asked
    again by itself, because a person needs minutes: show them both, and ask again, with the same tool and references,
    when they have approved.
    """

    approval_id: str = ""
    url: str | None = None


class NotFound(ValetkeyError):
    """Policy allows, but there is no such vault, item, section or field."""


class Precondition(ValetkeyError):
    """Policy allows, but the reference cannot be given as asked: it is ambiguous, or of another kind."""


class HandleNotActive(ValetkeyError):
    """The handle is unknown, spent, expired, revoked or somebody else's; the broker does not say which."""


class Unauthenticated(ValetkeyError):
    """What was shown is nobody's."""


class PersonUnauthenticated(ValetkeyError):
    """The token of the person on whose behalf the call was made is not good."""


class InvalidRequest(ValetkeyError):
    """The request breaks the rules; `violations` has each."""

    violations: tuple[Violation, ...] = ()


class LimitReached(ValetkeyError):
    """A bound or a quota is reached. `retry_after` is in seconds, where the broker says when."""

    retry_after: float | None = None


class Unavailable(ValetkeyError):
    """The broker, its log or its source is away. `retry_after` is in seconds, where the broker says when."""

    retry_after: float | None = None


class TimedOut(ValetkeyError):
    """No answer within the deadline. Whether the broker did it is not known; a redeem may have spent a use."""


class LeaseLost(ValetkeyError):
    """The lease is over and its handles are dead. `cause` is why, as in `EndCause`: `policy`, `expiry`, …"""

    cause: str = ""


class NoBroker(ValetkeyError):
    """What answers is no broker, as when one with TLS is called in clear text."""


class BrokerFailed(ValetkeyError):
    """The broker failed. `request_id` finds the cause in its log."""

    request_id: str | None = None
