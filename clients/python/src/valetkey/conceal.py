"""Takes values out of what goes back to a model, a log or a trace: also their base64, URL-encoded and JSON forms.

A second fence: a tool that encrypts a value, or spells it backwards, gets it past this one.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast
from urllib.parse import quote, quote_plus

from .secret import CONCEALED

__all__ = ["Concealer"]

# Shorter ones would be found in half of all text, and say nothing.
ENCODED_LENGTH_MIN = 4
DEPTH_MAX = 32


class Concealer:
    """Knows some values, and replaces them by `<concealed by valetkey>`."""

    def __init__(self, values: Iterable[str]) -> None:
        forms = {form for value in values for form in forms_of(value)}
        # The longest first: a value may begin with another.
        pattern = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
        self._pattern = re.compile(pattern) if pattern else None

    def __repr__(self) -> str:
        return "Concealer(…)"

    def text(self, text: str) -> str:
        """The text without them."""
        return self._pattern.sub(CONCEALED, text) if self._pattern else text

    def hides(self, text: str) -> bool:
        """Whether the text has one of them."""
        return bool(self._pattern and self._pattern.search(text))

    def anything(self, thing: Any, depth: int = 0) -> Any:
        """A result of any kind without them: texts, bytes and what is made of them, keys included. What has none comes
        back as it is; an object of another kind that shows one comes back as its text."""
        if self._pattern is None or thing is None or isinstance(thing, (bool, type)):
            return thing
        if depth > DEPTH_MAX:
            return CONCEALED
        if isinstance(thing, str):
            return self.text(thing)
        if isinstance(thing, (bytes, bytearray)):
            plain = bytes(thing).decode("latin-1")
            return thing if not self.hides(plain) else self.text(plain).encode("latin-1", "replace")
        if isinstance(thing, Mapping):
            made = {self.anything(key, depth + 1): self.anything(it, depth + 1) for key, it in thing.items()}
            return thing if made == thing else made
        if isinstance(thing, (list, tuple, set, frozenset)):
            return self._sequence(thing, depth)
        return self._object(thing, depth)

    def error(self, error: BaseException) -> Exception | None:
        """One to raise instead, where the error or one that led to it shows a value."""
        chain: list[str] = []
        seen: BaseException | None = error
        while seen is not None and len(chain) < DEPTH_MAX:
            chain.append(f"{seen!r} {seen} {getattr(seen, '__notes__', '')}")
            seen = seen.__cause__ or seen.__context__
        if not any(self.hides(text) for text in chain):
            return None
        return RuntimeError(f"{type(error).__name__}: {self.text(str(error))}")

    def _sequence(self, thing: Any, depth: int) -> Any:
        made = [self.anything(it, depth + 1) for it in thing]
        if all(new is old for new, old in zip(made, thing, strict=True)):
            return thing
        if isinstance(thing, tuple) and hasattr(thing, "_fields"):
            return type(thing)(*made)
        return type(thing)(made)

    def _object(self, thing: Any, depth: int) -> Any:
        content = None
        if hasattr(thing, "model_dump"):
            content = thing.model_dump()
        elif dataclasses.is_dataclass(thing):
            content = {it.name: getattr(thing, it.name) for it in dataclasses.fields(thing)}
        if content is not None:
            made = self.anything(content, depth + 1)
            return thing if made == content else made
        shown = f"{thing!r} {thing}"
        return self.text(str(thing) if self.hides(str(thing)) else repr(thing)) if self.hides(shown) else thing


def forms_of(value: str) -> set[str]:
    """How a value may be spelled in what a tool returns."""
    if not value:
        return set()
    forms = {value, value.strip() or value}
    if len(value) < ENCODED_LENGTH_MIN:
        return forms
    plain = value.encode()
    forms |= {quote(value, safe=""), quote(value), quote_plus(value)}
    forms |= {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    forms |= {plain.hex(), plain.decode("latin-1")}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        forms |= {inner(encode, plain, offset) for offset in range(3)}
    return {form for form in forms if form}


def inner(encode: Any, plain: bytes, offset: int) -> str:
    """The characters of base64 that depend on the value alone, where it begins so many bytes into what is encoded."""
    text = cast(str, encode(b"\0" * offset + plain).decode().rstrip("="))
    start = -(-offset * 8 // 6)
    end = (offset + len(plain)) * 8 // 6
    return text[start:end]
