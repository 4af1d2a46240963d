"""What a client shows, and whom it trusts; found as the `valetkey` program finds it."""

from __future__ import annotations

import os
import re
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from ._process import Staying
from .errors import BadSettings

TOKEN_LENGTH_MAX = 8192
FILE_SIZE_MAX = 1024 * 1024
TEXT_MAX = 256
# A broker's own token, or an issuer's: a JWT.
OURS = re.compile(r"vkt_[0-9A-Za-z]+(_[0-9A-Za-z]+)?|eyJ[\w-]*\.[\w-]+\.[\w-]*", re.ASCII)
# A token of a service account, however it came to be quoted.
THEIRS = re.compile("ops_", re.IGNORECASE)
# What must not be repeated, wherever it was put by mistake.
SECRET = re.compile("(?i:vkt_|ops_|-----BEGIN)|eyJ")


class Token(Staying):
    """A bearer token, which does not show itself: neither here nor in the locals of a traceback."""

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text.strip()

    @classmethod
    def of(cls, text: str | None) -> Token | None:
        return None if text is None else cls(text)

    @classmethod
    def from_file(cls, path: File) -> Token:
        # What no token has says so when it is looked at.
        return cls(path.read().decode("latin-1"))

    def bearer(self) -> Shown:
        return Shown(f"Bearer {self.plain()}")

    def is_ours(self) -> bool:
        """Whether it looks like what a broker takes."""
        return OURS.fullmatch(self.__text) is not None

    def is_theirs(self) -> bool:
        """Whether a service account's is in it, which is for 1Password alone."""
        return not self.is_ours() and THEIRS.search(self.__text) is not None

    def plain(self) -> Shown:
        """The text. Raises where it cannot be a token's, or is not for a broker to see."""
        if self.is_theirs():
            raise BadSettings(
                "this is the token of a service account, which no caller of a broker needs; "
                "`valetkey token create` makes one"
            )
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


class File(os.PathLike[str]):
    """The name of a file, which does not show itself where it looks like what belongs into the file."""

    __slots__ = ("_name",)

    def __init__(self, name: str | os.PathLike[str]) -> None:
        self._name = hushed(os.fspath(name))

    @classmethod
    def of(cls, name: str | os.PathLike[str] | None) -> File | None:
        return None if name is None else cls(name)

    def __fspath__(self) -> str:
        return self._name

    def __str__(self) -> str:
        return fit(self._name)

    __repr__ = __str__

    def read(self) -> bytes:
        """All of it, at once: what would have to be waited for, such as a pipe, is refused."""
        try:
            with open(self._name, "rb", opener=opened) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise BadSettings(f"`{self}` is no regular file")
                content = file.read(FILE_SIZE_MAX + 1)
        except (OSError, ValueError) as error:
            raise BadSettings(f"`{self}` cannot be read: {getattr(error, 'strerror', 'that is no name')}") from None
        if len(content) > FILE_SIZE_MAX:
            del content
            raise BadSettings(f"`{self}` has more than {FILE_SIZE_MAX} bytes")
        return content

    def pem(self, wanted: str) -> bytes:
        text = self.read()
        if f"{wanted}-----".encode() not in text:
            # It may be a key: what reports this error shows what is named here.
            del text
            raise BadSettings(f"`{self}` has no {wanted.lower()} in PEM form")
        return text


@dataclass(frozen=True, repr=False)
class Pem:
    """The authority, the own key and the own certificate."""

    ca: bytes
    key: bytes | None
    certificate: bytes | None


@dataclass(frozen=True)
class Credentials:
    """A token, the files of a TLS client in PEM form, or both."""

    token: Token | None = field(default=None, repr=False)
    # Read again for each call, where given: a platform renews it in place.
    token_file: File | None = None
    ca: File | None = None
    certificate: File | None = None
    key: File | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str], token: Token | None = None) -> Credentials:
        """Takes them, and looks at none: a traceback from here would have the whole environment in it. A `token` comes
        before the one that is there."""
        token, token_file = token or Token.of(env.get("VALETKEY_TOKEN")), env.get("VALETKEY_TOKEN_FILE")
        return cls(
            token,
            File(token_file) if token_file and token is None else None,
            *(File(env[name]) if env.get(name) else None for name in ENV_FILES),
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

    def pem(self) -> Pem:
        """What a connection over TLS is made with."""
        if self.ca is None:
            raise BadSettings("who signs the broker's certificate? name the file of its authority (`VALETKEY_CA`)")
        return Pem(
            self.ca.pem("CERTIFICATE"),
            self.key.pem("PRIVATE KEY") if self.key else None,
            self.certificate.pem("CERTIFICATE") if self.certificate else None,
        )

    def fit_together(self, pem: Pem) -> None:
        """Says what gRPC would keep for its own log: a connection with such files only ever fails."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=pem.ca.decode("latin-1"))
        except (ssl.SSLError, ValueError):
            raise BadSettings(f"`{self.ca}` has no certificate that can be read") from None
        if self.certificate is None or self.key is None:
            return
        try:
            context.load_cert_chain(self.certificate, self.key, password=no_password)
        except (OSError, ValueError) as error:
            raise BadSettings(
                f"`{self.key}` is not the key of the certificate in `{self.certificate}`, or one of them is damaged "
                f"({getattr(error, 'reason', None) or 'a key with a password'})"
            ) from None


def no_password() -> str:
    """Instead of asking for one at the terminal."""
    raise ValueError


def opened(name: str, flags: int) -> int:
    """Without waiting for whoever would write into a pipe."""
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def hushed(text: str) -> str:
    """The same text, which no report of an error shows where it looks like a token or a key."""
    return Shown(text) if SECRET.search(text) else text


def fit(text: str) -> str:
    """For messages: a token or a key that was put into the wrong place is not repeated."""
    if SECRET.search(text):
        return "not shown, because it looks like a token or a key"
    return "".join(c for c in text if c.isprintable())[:TEXT_MAX]


ENV_FILES = ("VALETKEY_CA", "VALETKEY_CERT", "VALETKEY_KEY")
