"""`Client`, with the names and arguments of 1Password's SDK."""

from __future__ import annotations

import asyncio
import os
import re
import warnings
from typing import NoReturn

from .._broker import Broker, address_of
from .._context import current
from .._credentials import Credentials, Token
from .._process import Staying
from ..errors import (
    ApprovalRequired,
    BadSettings,
    Denied,
    InvalidRequest,
    LimitReached,
    NotFound,
    Precondition,
    ValetkeyError,
)
from .errors import RateLimitExceededException
from .types import ResolveAllResponse, ResolvedReference, ResolveReferenceError, Response

__all__ = ["DEFAULT_INTEGRATION_NAME", "DEFAULT_INTEGRATION_VERSION", "Client", "DesktopAuth", "Secrets"]

DEFAULT_INTEGRATION_NAME = "Unknown"
DEFAULT_INTEGRATION_VERSION = "Unknown"
REFERENCES_MAX = 64
REFUSED = (ApprovalRequired, Denied, NotFound, Precondition)
UNUSED = "a broker is asked instead of 1Password, so this is not needed, and was not used"
TOOL_LENGTH_MAX = 128
PURPOSE_LENGTH_MAX = 512
REFERENCE = re.compile(r"op://(?P<path>[\w .-]+(/[\w .-]+){2,3})(\?(attribute=t?otp|ssh-format=openssh))?", re.ASCII)


class DesktopAuth:
    """Accepted and not used: the broker knows who calls by other means."""

    def __init__(self, account_name: str) -> None:
        self.account_name = account_name


class Client(Staying):
    """Resolves secrets over the broker that `VALETKEY_ADDRESS` names."""

    secrets: Secrets

    @classmethod
    async def authenticate(
        cls, auth: str | DesktopAuth | None, integration_name: str, integration_version: str
    ) -> Client:
        """As there; nothing is sent yet.

        `auth` is a token of the broker's, or an issuer's that it knows; nothing else is sent. Without one, or with a
        service account's, which is left unused, the environment says who calls: `VALETKEY_TOKEN`,
        `VALETKEY_TOKEN_FILE`, …

        The lease is asked for by the tool that `valetkey.acting` or `VALETKEY_TOOL` names, or else by one named after
        the integration: `My agent` is `My-agent`.
        """
        shown = auth if isinstance(auth, DesktopAuth) else Token.of(auth or None)
        # What fails from here on may be reported with the locals of this frame.
        del auth
        client = cls()
        tool = current().tool or os.environ.get("VALETKEY_TOOL") or tool_of(integration_name)
        purpose = f"resolve a secret for {integration_name} {integration_version}"
        client.secrets = Secrets(broker_for(shown), tool, shorten(purpose))
        return client

    async def close(self) -> None:
        """Closes the connection. There it is left to the garbage collector, and may be here."""
        await self.secrets._broker.close()

    def __getattr__(self, name: str) -> NoReturn:
        if name in ("items", "vaults", "environments", "groups"):
            raise AttributeError(f"a broker resolves secrets and shows no `{name}`; use 1Password's own SDK for that")
        raise AttributeError(name)


class Secrets(Staying):
    """Resolves secrets, each call with a lease of its own."""

    def __init__(self, broker: Broker, tool: str, purpose: str) -> None:
        self._broker = broker
        self._tool = tool
        self._purpose = purpose

    async def resolve(self, secret_reference: str) -> str:
        """The value that the reference points to.

        Raises `RateLimitExceededException`, or another `valetkey.ValetkeyError`: `Denied`, `NotFound`, …
        """
        try:
            async with self._broker.lease(secret_reference, tool=self._tool, purpose=self._purpose) as lease:
                return (await lease[secret_reference].redeem()).expose()
        except LimitReached as error:
            raise RateLimitExceededException.of(error) from None

    async def resolve_all(self, secret_references: list[str]) -> ResolveAllResponse:
        """The values that the references point to, or why not, one by one."""
        found: dict[str, Response[ResolvedReference, ResolveReferenceError]] = {}
        wanted = []
        for reference in dict.fromkeys(secret_references):
            try:
                self.validate_secret_reference(reference)
                wanted.append(reference)
            except InvalidRequest as error:
                found[reference] = Response(error=ResolveReferenceError.of(error))
        for start in range(0, len(wanted), REFERENCES_MAX):
            found.update(await self._resolve_some(wanted[start : start + REFERENCES_MAX]))
        return ResolveAllResponse({reference: found[reference] for reference in secret_references})

    async def _resolve_some(
        self, references: list[str]
    ) -> dict[str, Response[ResolvedReference, ResolveReferenceError]]:
        async def one(reference: str) -> Response[ResolvedReference, ResolveReferenceError]:
            try:
                value = await lease[reference].redeem()
                return Response(content=ResolvedReference(value.expose()))
            except (ValetkeyError, UnicodeDecodeError) as error:
                ours = error if isinstance(error, ValetkeyError) else ValetkeyError(str(error), reason="FILE_NOT_TEXT")
                return Response(error=ResolveReferenceError.of(ours))

        asked = self._broker.lease(references, tool=self._tool, purpose=self._purpose, partial=True)
        try:
            async with asked as lease:
                return dict(zip(references, await asyncio.gather(*map(one, references)), strict=True))
        except LimitReached as error:
            raise RateLimitExceededException.of(error) from None
        except REFUSED as error:
            # Where all of them are refused, there is no lease, and one error for them all.
            if len(references) == 1:
                return {references[0]: Response(error=ResolveReferenceError.of(error))}
        answers = await asyncio.gather(*(self._resolve_some([reference]) for reference in references))
        return {reference: answer for some in answers for reference, answer in some.items()}

    @staticmethod
    def validate_secret_reference(secret_reference: str) -> None:
        """Raises where the text is no secret reference. Nobody is asked."""
        match = REFERENCE.fullmatch(secret_reference)
        parts = match["path"].split("/") if match else []
        if not parts or any(part != part.strip() or part in (".", "..") or len(part) > 256 for part in parts):
            raise InvalidRequest(
                "a secret reference is `op://<vault>/<item>/[<section>/]<field>`, and names parts with other "
                "characters than letters, digits, blanks and `_` `.` `-` by their id",
                reason="INVALID_SECRET_REFERENCE",
            )


def broker_for(shown: Token | DesktopAuth | None) -> Broker:
    if isinstance(shown, DesktopAuth):
        warnings.warn(f"{UNUSED}; leave `DesktopAuth` out", stacklevel=3)
    elif shown is not None and shown.is_theirs():
        warnings.warn(f"{UNUSED}; take the service account's token out of this environment", stacklevel=3)
    elif shown is not None and not shown.is_ours():
        raise BadSettings(
            "`auth` is no token that a broker takes: neither `vkt_…` nor an issuer's; are there quotes around it?"
        )
    elif shown is not None:
        return Broker._of(address_of(os.environ), Credentials.from_env(os.environ, shown))
    return Broker.from_env()


def tool_of(integration_name: str) -> str:
    """A tool's name has no blanks."""
    name = re.sub(r"[^A-Za-z0-9._/@:-]+", "-", integration_name).strip("-")
    return name[:TOOL_LENGTH_MAX] or "onepassword-sdk"


def shorten(text: str) -> str:
    return text.encode()[:PURPOSE_LENGTH_MAX].decode(errors="ignore")
