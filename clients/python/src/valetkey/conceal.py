"""Takes values out of what goes back to a model, a log or a trace: also their base64, hexadecimal, URL, HTML and JSON
forms, and a long one's that is broken into lines.

A second fence: a tool that encrypts a value, or spells it backwards, gets it past this one.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ._forms import Forms, Index, forms_of, merged, squeeze
from .secret import CONCEALED

__all__ = ["Concealer"]

DEPTH_MAX = 32
ERRORS_MAX = 256


class Concealer:
    """Knows some values, and replaces them by `<concealed by valetkey>`."""

    __slots__ = ("_exact", "_squeezed")

    def __init__(self, values: Iterable[str]) -> None:
        self._take([forms_of(value) for value in values])

    @classmethod
    def _of(cls, known: list[Forms]) -> Concealer:
        made = cls.__new__(cls)
        made._take(known)
        return made

    def _take(self, known: list[Forms]) -> None:
        self._exact = Index(form for forms in known for form in forms.exact)
        self._squeezed = Index(form for forms in known for form in forms.squeezed)

    def __repr__(self) -> str:
        return "Concealer(…)"

    def text(self, text: str) -> str:
        """The text without them."""
        at, pieces = 0, []
        for start, end in self._places(text):
            pieces += [text[at:start], CONCEALED]
            at = end
        return "".join([*pieces, text[at:]]) if pieces else text

    def hides(self, text: str) -> bool:
        """Whether the text has one of them."""
        return bool(self._places(text))

    def holds(self, thing: Any) -> bool:
        """Whether a thing of any kind has one of them."""
        return self.anything(thing) is not thing

    def anything(self, thing: Any, depth: int = 0) -> Any:
        """A result of any kind without them: texts, bytes and what is made of them, keys included. What has none comes
        back as it is; an object of another kind that shows one comes back as its text. What is read only once, such as
        an iterator, cannot be looked into, and is concealed."""
        if not self._exact or thing is None or isinstance(thing, (bool, type)):
            return thing
        if depth > DEPTH_MAX or hasattr(type(thing), "__next__"):
            return CONCEALED
        if isinstance(thing, str):
            return self.text(thing)
        plain = plain_of(thing)
        if plain is not None and self.hides(plain):
            return self.text(plain).encode("latin-1", "replace")
        if isinstance(thing, (bytes, bytearray, memoryview)):
            return thing
        if isinstance(thing, Mapping):
            made = {self.anything(key, depth + 1): self.anything(it, depth + 1) for key, it in thing.items()}
            return thing if made == thing else made
        if isinstance(thing, (list, tuple, set, frozenset)):
            return self._sequence(thing, depth)
        return self._object(thing, depth)

    def error(self, error: BaseException) -> Exception | None:
        """One to raise instead, where the error, one that led to it or one that is part of it shows a value."""
        if not self._exact or not self._shows(error):
            return None
        try:
            text = self.text(str(error))
        except Exception:
            text = CONCEALED
        return RuntimeError(f"{type(error).__name__}: {text}")

    def _places(self, text: str) -> list[tuple[int, int]]:
        found = list(self._exact.places(text))
        if self._squeezed:
            short = squeeze(text)
            found += [(short.place(at), short.place(end - 1) + 1) for at, end in self._squeezed.places(short.text)]
        return merged(found)

    def _shows(self, error: BaseException) -> bool:
        left: list[BaseException | None] = [error]
        seen: set[int] = set()
        while left and len(seen) < ERRORS_MAX:
            it = left.pop()
            if it is None or id(it) in seen:
                continue
            seen.add(id(it))
            for told in (shown(it), shown(vars(it))):
                if told is None or self.hides(told):
                    return True
            left += [it.__cause__, it.__context__, *getattr(it, "exceptions", ())]
        # Of so many nobody has looked at the rest.
        return bool(left)

    def _sequence(self, thing: Any, depth: int) -> Any:
        made = [self.anything(it, depth + 1) for it in thing]
        if all(new is old for new, old in zip(made, thing, strict=True)):
            return thing
        if isinstance(thing, tuple) and hasattr(thing, "_fields"):
            return type(thing)(*made)
        return type(thing)(made)

    def _object(self, thing: Any, depth: int) -> Any:
        try:
            made = self._with_fields(thing, depth)
        except Exception:
            return CONCEALED
        # Its own words may have what its fields do not.
        told = shown(made)
        if told is None:
            return CONCEALED
        if not self.hides(told):
            return made
        return self.text(str(made) if self.hides(str(made)) else repr(made))

    def _with_fields(self, thing: Any, depth: int) -> Any:
        """One of the same kind, where it is made of fields and one of them has a value."""
        if dataclasses.is_dataclass(thing):
            names = [it.name for it in dataclasses.fields(thing)]
        else:
            names = list(getattr(type(thing), "model_fields", ()))
        fields = {name: getattr(thing, name) for name in names if hasattr(thing, name)}
        made = {name: self.anything(it, depth + 1) for name, it in fields.items()}
        changed = {name: it for name, it in made.items() if it is not fields[name]}
        if changed:
            thing = copy.copy(thing)
            for name, it in changed.items():
                # Also where it is frozen.
                object.__setattr__(thing, name, it)
        return thing


def plain_of(thing: Any) -> str | None:
    """The bytes of what has them, such as an array, one character each."""
    try:
        return memoryview(thing).tobytes().decode("latin-1")
    except TypeError:
        return None


def shown(thing: Any) -> str | None:
    """What it says of itself, where it can."""
    try:
        told = f"{thing!r} {thing}"
        if hasattr(type(thing), "model_dump"):
            # Its fields may have become texts.
            told += f" {thing.model_dump(warnings=False)!r}"
    except Exception:
        return None
    return told
