"""Taking values out of results: the forms they have, the kinds of things they are in, and errors."""

from __future__ import annotations

import base64
import html
import io
import json
import textwrap
import urllib.parse
from array import array
from collections import namedtuple
from collections.abc import Callable
from dataclasses import InitVar, dataclass

import pytest

from valetkey.conceal import Concealer

VALUE = 'hünter2 "/+?'
CONCEALED = "<concealed by valetkey>"
Pair = namedtuple("Pair", "a b")


@dataclass
class Holder:
    secret: str


class Silent:
    """Shows nothing of what it has."""


class Loud:
    def __repr__(self) -> str:
        return f"Loud({VALUE})"


def shifted(prefix: str) -> str:
    return base64.b64encode((prefix + VALUE + prefix).encode()).decode()


@pytest.mark.parametrize(
    "text",
    [
        VALUE,
        f"in the middle {VALUE}, twice {VALUE}",
        base64.b64encode(VALUE.encode()).decode(),
        base64.urlsafe_b64encode(VALUE.encode()).decode(),
        shifted("u"),
        shifted("us"),
        shifted("user:"),
        urllib.parse.quote(VALUE),
        urllib.parse.quote_plus(VALUE),
        urllib.parse.urlencode({"password": VALUE}),
        json.dumps({"password": VALUE}),
        json.dumps({"password": VALUE}, ensure_ascii=False),
        repr([VALUE]),
        VALUE.encode().hex(),
        VALUE.encode().hex().upper(),
        urllib.parse.quote(VALUE).lower(),
        html.escape(VALUE),
        html.escape(VALUE).replace("&quot;", '"'),
        json.dumps(VALUE).replace("/", "\\/"),
        json.dumps(json.dumps({"password": VALUE})),
    ],
)
def test_each_form_is_concealed(text: str) -> None:
    shown = Concealer([VALUE]).text(text)
    assert CONCEALED in shown and "nter2" not in shown
    found = shown.replace(CONCEALED, "")
    # Of base64 a few bits at the ends may depend on the neighbours.
    for part in (base64.b64encode(VALUE.encode()).decode()[2:-3], VALUE.encode().hex()):
        assert part not in found


@pytest.mark.parametrize(
    ("thing", "shown"),
    [
        ({"a": [VALUE, 1, None]}, {"a": [CONCEALED, 1, None]}),
        ({VALUE: "key"}, {CONCEALED: "key"}),
        ((VALUE, "b"), (CONCEALED, "b")),
        ({VALUE}, {CONCEALED}),
        (Pair(VALUE, 2), Pair(CONCEALED, 2)),
        (f"x{VALUE}".encode(), b"x" + CONCEALED.encode()),
        (Holder(VALUE), Holder(CONCEALED)),
        (Loud(), f"Loud({CONCEALED})"),
        (7, 7),
        (True, True),
    ],
)
def test_each_kind_of_result(thing: object, shown: object) -> None:
    assert Concealer([VALUE]).anything(thing) == shown


def test_what_has_none_comes_back_as_it_is() -> None:
    concealer = Concealer([VALUE])
    for thing in ({"a": [1, "b"]}, ["x"], ("y", Holder("z")), Holder("z"), Silent(), 4111):
        assert concealer.anything(thing) is thing
    number = Concealer(["4111"])
    assert number.anything({"card": 4111}) == {"card": CONCEALED}
    deep: list[object] = []
    for _ in range(100):
        deep = [deep]
    assert CONCEALED in str(concealer.anything(deep))


def test_short_and_empty_values() -> None:
    assert Concealer(["", "42"]).text("42 and 7") == f"{CONCEALED} and 7"
    assert Concealer([""]).text("all of it") == "all of it"
    assert Concealer(["abcd", "abcdef"]).text("abcdef") == CONCEALED


KEY = (
    "-----BEGIN OPENSSH PRIVATE KEY-----\n"
    + "".join(f"b3BlbnNzaC1rZXkt{line:02}AAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\n" for line in range(4))
    + "-----END OPENSSH PRIVATE KEY-----\n"
)


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key.replace("\n", "\r\n"),
        lambda key: textwrap.indent(key, "    "),
        lambda key: "\n".join("+" + line for line in key.splitlines()),
        lambda key: " ".join(key.split()),
        str.splitlines,
        lambda key: json.dumps({"key": key.replace("\n", "\r\n")}, indent=1),
        lambda key: base64.encodebytes(key.encode()).decode(),
        lambda key: json.dumps(base64.encodebytes(key.encode()).decode()),
        lambda key: "\n".join(textwrap.wrap(key.encode().hex(), 60)),
    ],
)
def test_a_key_is_concealed_line_by_line(change: Callable[[str], object]) -> None:
    thing = change(KEY)
    shown = str(Concealer([KEY]).anything(thing))
    assert CONCEALED in shown
    for piece in ("b3BlbnNzaC1rZXkt", base64.b64encode(KEY.encode()).decode()[80:100], KEY.encode().hex()[130:150]):
        assert piece not in shown
    frame = "a key begins with -----BEGIN OPENSSH PRIVATE KEY-----"
    assert Concealer([KEY]).text(frame) == frame


@dataclass
class Session:
    user: str
    password: InitVar[str] = ""

    def __post_init__(self, password: str) -> None:
        self._password = password

    def __str__(self) -> str:
        return f"https://{self.user}:{self._password}@navan.example"


class Unspeakable:
    def __repr__(self) -> str:
        raise ValueError(VALUE)


@pytest.mark.parametrize(
    ("thing", "shown"),
    [
        (Session("bob", VALUE), f"https://bob:{CONCEALED}@navan.example"),
        ({"later": map(str, [VALUE])}, {"later": CONCEALED}),
        ([io.StringIO(VALUE)], [CONCEALED]),
        ((memoryview(VALUE.encode()),), (CONCEALED.encode(),)),
        (array("b", VALUE.encode()), CONCEALED.encode()),
        (Unspeakable(), CONCEALED),
    ],
)
def test_what_shows_it_otherwise(thing: object, shown: object) -> None:
    assert Concealer([VALUE]).anything(thing) == shown


class Group(Exception):
    """As `ExceptionGroup`, which Python 3.10 has not."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__("several")
        self.exceptions = errors


def led_to(cause: Exception, error: Exception) -> Exception:
    error.__cause__ = cause
    return error


def with_body(error: Exception) -> Exception:
    error.body = f"token {VALUE}"  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    "error",
    [
        ValueError(VALUE),
        led_to(ValueError(VALUE), KeyError("x")),
        Group(KeyError("y"), led_to(ValueError(VALUE), KeyError("x"))),
        led_to(Group(Group(ValueError(VALUE))), KeyError("x")),
        with_body(KeyError("x")),
    ],
)
def test_an_error_that_shows_it_somewhere(error: Exception) -> None:
    instead = Concealer([VALUE]).error(error)
    assert instead is not None and "nter2" not in f"{instead!r} {vars(instead)}" and instead.__cause__ is None
    assert Concealer(["another"]).error(error) is None
