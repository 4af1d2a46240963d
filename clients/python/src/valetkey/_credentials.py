"""What a client shows, and whom it trusts; found as the `valetkey` program finds it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import BadSettings

TOKEN_LENGTH_MAX = 8192
FILE_SIZE_MAX = 1024 * 1024


class Token:
    """A bearer token, which does not show itself: neither here nor in the locals of a traceback."""

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text.strip()

    @classmethod
    def of(cls, text: str | None) -> Token | None:
        return None if text is None else cls(text)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Token:
        # What no token has says so when it is looked at.
        return cls(read(path).decode("latin-1"))

    def bearer(self) -> Shown:
        return Shown(f"Bearer {self.plain()}")

    def plain(self) -> Shown:
        """The text. Raises where it cannot be a token's."""
        if not self.__text:
            raise BadSettings("the token is empty; `valetkey token create` makes one")
        if len(self.__text) > TOKEN_LENGTH_MAX:
            raise BadSettings(f"the token has more than {TOKEN_LENGTH_MAX} characters; is it the right file?")
        if not all("!" <= c <= "~" for c in self.__text):
            raise BadSettings("the token has a character that no token has; is it the right file?")
        return Shown(self.__text)

    def __repr__(self) -> str:
        return "Token(…)"


class Shown(str):
    """The value of a header, which is shown to the broker alone: not in a tuple, an object or the locals of a frame."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


@dataclass(frozen=True)
class Credentials:
    """A token, the files of a TLS client in PEM form, or both."""

    token: Token | None = field(default=None, repr=False)
    # Read again for each call, where given: a platform renews it in place.
    token_file: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Credentials:
        """Takes them, and looks at none: a traceback from here would have the whole environment in it."""
        token, token_file = env.get("VALETKEY_TOKEN"), env.get("VALETKEY_TOKEN_FILE")
        return cls(
            Token.of(token),
            Path(token_file) if token_file and token is None else None,
            *(Path(env[name]) if env.get(name) else None for name in ENV_FILES),
        )

    def check(self, scheme: str, shown: str) -> None:
        """Says now what would fail later."""
        if (self.certificate is None) != (self.key is None):
            raise BadSettings(
                "a client certificate needs its key, and a key its certificate: set `VALETKEY_CERT` and `VALETKEY_KEY`"
            )
        if self.certificate and scheme != "https":
            raise BadSettings(
                f"`{shown}` is reached without TLS, so the client certificate would not be shown; use `https`, "
                "or leave it out"
            )
        if scheme == "https" and not self.ca:
            raise BadSettings("who signs the broker's certificate? name the file of its authority (`VALETKEY_CA`)")
        if not (self.token or self.token_file or self.certificate or scheme == "unix"):
            raise BadSettings(
                "who are you? set `VALETKEY_TOKEN` or `VALETKEY_TOKEN_FILE` (`valetkey token create` makes a "
                "token), or `VALETKEY_CERT` and `VALETKEY_KEY`"
            )
        self.bearer()

    def bearer(self) -> Shown | None:
        """What to show now."""
        token = Token.from_file(self.token_file) if self.token_file else self.token
        return token.bearer() if token else None

    def pem(self) -> tuple[bytes, bytes | None, bytes | None]:
        """The authority, the own key and the own certificate."""
        if self.ca is None:
            raise BadSettings("who signs the broker's certificate? name the file of its authority (`VALETKEY_CA`)")
        return (
            pem(self.ca, b"CERTIFICATE"),
            pem(self.key, b"PRIVATE KEY") if self.key else None,
            pem(self.certificate, b"CERTIFICATE") if self.certificate else None,
        )


def pem(path: Path, wanted: bytes) -> bytes:
    text = read(path)
    if wanted + b"-----" not in text:
        raise BadSettings(f"`{path}` has no {wanted.decode().lower()} in PEM form")
    return text


def read(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(FILE_SIZE_MAX + 1)
    except OSError as error:
        raise BadSettings(f"`{os.fspath(path)}` cannot be read: {error.strerror}") from None
    if len(content) > FILE_SIZE_MAX:
        raise BadSettings(f"`{os.fspath(path)}` has more than {FILE_SIZE_MAX} bytes")
    return content


ENV_FILES = ("VALETKEY_CA", "VALETKEY_CERT", "VALETKEY_KEY")
