"""The exceptions of 1Password's SDK. What else fails is a `valetkey.ValetkeyError`; there it is a bare `Exception`."""

from __future__ import annotations

from ..errors import LimitReached, ValetkeyError

__all__ = ["DesktopSessionExpiredException", "RateLimitExceededException"]


class RateLimitExceededException(LimitReached):
    """The broker's quota at its source, or its own bound for this caller, is reached."""

    @property
    def message(self) -> str:
        return str(self)

    @classmethod
    def of(cls, error: LimitReached) -> RateLimitExceededException:
        made = cls(*error.args)
        vars(made).update(vars(error))
        return made


class DesktopSessionExpiredException(ValetkeyError):
    """Never raised here: there is no desktop app between a broker and its caller."""

    @property
    def message(self) -> str:
        return str(self)
