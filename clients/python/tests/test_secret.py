"""A value does not show itself."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import logging
import pickle
import pprint
import traceback
from collections.abc import Callable

import pytest

from valetkey import Secret
from valetkey.errors import Denied

VALUE = "hunter2"


@dataclasses.dataclass
class Login:
    password: Secret


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        ascii,
        "{}".format,
        "{:>40}".format,
        "{!r}".format,
        "%s".__mod__,
        "%r".__mod__,
        "%a".__mod__,
        pprint.pformat,
        Login,
        lambda it: f"{it=}",
        lambda it: [it],
        lambda it: vars(Login(it)),
        lambda it: json.dumps({"password": it}, default=str),
    ],
)
def test_it_prints_as_concealed(show: Callable[[Secret], object]) -> None:
    shown = str(show(Secret(VALUE.encode())))
    assert VALUE not in shown and "concealed" in shown


@pytest.mark.parametrize(
    "copying",
    [
        pickle.dumps,
        lambda it: pickle.dumps({"a": [it]}, protocol=0),
        copy.copy,
        copy.deepcopy,
        json.dumps,
        lambda it: json.dumps({"password": it}),
        lambda it: dataclasses.asdict(Login(it)),
        vars,
        bytes,
        list,
        len,
    ],
)
def test_it_is_not_copied(copying: Callable[[Secret], object]) -> None:
    with pytest.raises(TypeError) as caught:
        copying(Secret(VALUE.encode()))
    assert VALUE not in str(caught.value)


def test_it_is_what_it_is() -> None:
    secret = Secret(VALUE.encode())
    assert secret.expose() == VALUE and secret.expose_bytes() == VALUE.encode()
    assert secret and not Secret(b"")
    assert secret != Secret(VALUE.encode()), "comparing is for exposed values"
    with pytest.raises(AttributeError):
        secret.value = "other"  # type: ignore[attr-defined]
    assert not hasattr(secret, "__dict__")


def test_a_log_and_a_traceback_do_not_show_it() -> None:
    stream = io.StringIO()
    logger = logging.getLogger("valetkey.test")
    logger.addHandler(logging.StreamHandler(stream))
    try:
        secret = Secret(VALUE.encode())
        raise ValueError(secret)
    except ValueError as error:
        logger.exception("failed with %s", secret)
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        stream.write("".join(told.format()))
    assert VALUE not in stream.getvalue().replace('VALUE = "hunter2"', "")


def test_errors_can_be_pickled() -> None:
    error = Denied("no", reason="ACCESS_DENIED", record_id="7")
    error.advice = "ask"
    back = pickle.loads(pickle.dumps(error))
    assert (str(back), back.reason, back.record_id, back.advice) == ("no", "ACCESS_DENIED", "7", "ask")
