"""How a value may be spelled in what a tool returns, and where a text has it."""

from __future__ import annotations

import base64
import html
import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

from .secret import CONCEALED

# Shorter ones would be found in half of all text, and say nothing.
ENCODED_LENGTH_MIN = 4
# So long is also looked for across line breaks and indents, and so is each such line of a value that has several.
LONG_LENGTH_MIN = 16


@dataclass(frozen=True)
class Forms:
    """Those of one value: as they are, and, if they are long, without white space."""

    exact: frozenset[str]
    squeezed: frozenset[str]

    def __repr__(self) -> str:
        return CONCEALED


def forms_of(value: str) -> Forms:
    """How a value may be spelled."""
    exact = {value, value.strip()} if value else set()
    if len(value) >= ENCODED_LENGTH_MIN:
        exact |= escaped(value) | encoded(value.encode()) | lines_of(value)
    exact.discard("")
    squeezed = {squeeze(form).text for form in exact}
    return Forms(frozenset(exact), frozenset(form for form in squeezed if len(form) >= LONG_LENGTH_MIN))


def escaped(value: str) -> set[str]:
    """As JSON, Python, URLs and HTML write it."""
    ways = [json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]]
    ways += [json.dumps(way)[1:-1] for way in ways]
    ways += [way.replace("/", "\\/") for way in ways]
    # What stays as it is in a URL: nothing, a path, a form, and what two functions of JavaScript say.
    urls = [quote(value, safe=safe) for safe in ("", "/", "!'()*", "!'()*;/?:@&=+$,#")] + [quote_plus(value)]
    urls += [re.sub("%..", lambda code: code[0].lower(), url) for url in urls]
    pages = [html.escape(value), html.escape(value, quote=False)]
    pages += [page.replace("&#x27;", code) for page in pages for code in ("&#39;", "&apos;", "'")]
    return {*ways, repr(value)[1:-1], *urls, *pages}


def encoded(plain: bytes) -> set[str]:
    """In hexadecimal, in base64, and as bytes that were taken for another text."""
    both = (base64.b64encode, base64.urlsafe_b64encode)
    forms = {inner(encode, plain, offset) for encode in both for offset in range(3)}
    return {*forms, plain.hex(), plain.hex().upper(), plain.decode("latin-1")}


def inner(encode: Callable[[bytes], bytes], plain: bytes, offset: int) -> str:
    """The characters of base64 that depend on the value alone, where it begins so many bytes into what is encoded."""
    text = encode(b"\0" * offset + plain).decode().rstrip("=")
    start = -(-offset * 8 // 6)
    end = (offset + len(plain)) * 8 // 6
    return text[start:end]


def lines_of(value: str) -> set[str]:
    """The long lines of one that has several, such as a private key; what frames a key is the same in all of them."""
    lines = [line.strip() for line in value.splitlines()]
    return {line for line in lines if len(line) >= LONG_LENGTH_MIN and not line.startswith("-----")}


@dataclass(frozen=True)
class Squeezed:
    """A text without its white space, and where its pieces were."""

    text: str
    starts: list[int]
    places: list[int]

    def place(self, at: int) -> int:
        piece = bisect_right(self.starts, at) - 1
        return self.places[piece] + at - self.starts[piece]

    def __repr__(self) -> str:
        return CONCEALED


SPACE = re.compile(r"(?:\s|\\[nrt])+")


def squeeze(text: str) -> Squeezed:
    """White space as it is, and as JSON writes it."""
    pieces, starts, places = [], [], []
    at = length = 0
    for space in [*SPACE.finditer(text), None]:
        piece = text[at : space.start() if space else None]
        if piece:
            pieces.append(piece)
            starts.append(length)
            places.append(at)
            length += len(piece)
        at = space.end() if space else at
    return Squeezed("".join(pieces), starts, places)


class Index:
    """Forms by how they begin: most of them are in no text, and a look at each would take long."""

    __slots__ = ("_by_start", "_short")

    def __init__(self, forms: Iterable[str]) -> None:
        self._short: set[str] = set()
        self._by_start: dict[str, set[str]] = {}
        for form in forms:
            into = self._short if len(form) < START_LENGTH else self._by_start.setdefault(form[:START_LENGTH], set())
            into.add(form)

    def __bool__(self) -> bool:
        return bool(self._short or self._by_start)

    def places(self, text: str) -> Iterator[tuple[int, int]]:
        """Where the text has any of these, from and to."""
        starts = {text[at : at + START_LENGTH] for at in range(len(text))}
        for form in self._short.union(*(self._by_start[start] for start in starts & self._by_start.keys())):
            at = text.find(form)
            while at >= 0:
                yield at, at + len(form)
                at = text.find(form, at + len(form))

    def __repr__(self) -> str:
        return CONCEALED


START_LENGTH = 3


def merged(places: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same places in order, of which no two overlap."""
    made: list[tuple[int, int]] = []
    for start, end in sorted(places):
        if made and start < made[-1][1]:
            made[-1] = (made[-1][0], max(end, made[-1][1]))
        else:
            made.append((start, end))
    return made
