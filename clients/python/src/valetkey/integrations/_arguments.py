"""The arguments of a tool: what of them the model wrote, what stands in there for a value, and putting it in."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from ..errors import InvalidRequest

REFERENCE = re.compile(r"op://[A-Za-z0-9_. -]+(?:/[A-Za-z0-9_. -]+){2,3}(?:\?[a-z=-]+)?", re.ASCII)
TEMPLATE = re.compile(r"\{\{\s*(" + REFERENCE.pattern + r")\s*\}\}")
HANDLE = re.compile(r"vkh_[0-9A-Za-z]{16}_[0-9A-Za-z]{40}")
# What a framework adds to a call, by the names that stand in an annotation.
ADDED = re.compile(
    r"\b(Injected\w*|ToolRuntime|RunContext(Wrapper)?|ToolContext|RunnableConfig|\w*CallbackManager\w*)\b"
)
FOUND_MAX = 64
DEPTH_MAX = 32


class Parameters:
    """Those of a function. Not for a model to write are `self` and what its framework adds, by their annotations."""

    def __init__(self, function: Callable[..., Any], fields: Collection[str]) -> None:
        self.signature = inspect.signature(function)
        all_of_them = self.signature.parameters
        self._rest = next((it.name for it in all_of_them.values() if it.kind is it.VAR_KEYWORD), None)
        first = next(iter(all_of_them), "")
        added = {first} & {"self", "cls"}
        added |= {name for name, it in all_of_them.items() if ADDED.search(annotation(it))}
        self._added = added
        for name in fields:
            if name in added or (name not in all_of_them and self._rest is None):
                what = "is the framework's to fill" if name in added else "is none of its parameters"
                raise TypeError(f"`{function.__name__}` cannot take a value in `{name}`, which {what}")

    def written(self, args: Any, kwargs: Any) -> dict[str, Any]:
        """What the model wrote, by name."""
        given = self.signature.bind(*args, **kwargs).arguments
        rest = given.pop(self._rest, {}) if self._rest else {}
        return {**{name: it for name, it in given.items() if name not in self._added}, **rest}

    def prepared(
        self, function: Callable[..., Any], args: Any, kwargs: Any, filled: Mapping[str, Any]
    ) -> Callable[[], Any]:
        """The call with these in place of what the model wrote."""
        call = self.signature.bind(*args, **kwargs)
        for name, it in filled.items():
            into = call.arguments
            if name not in into and self._rest:
                into = into[self._rest]
            into[name] = it
        return functools.partial(function, *call.args, **call.kwargs)


def annotation(parameter: inspect.Parameter) -> str:
    return parameter.annotation if isinstance(parameter.annotation, str) else repr(parameter.annotation)


def find(written: Mapping[str, Any], fields: Collection[str]) -> list[str]:
    """References and handles in the fields that take values, each once."""
    found: dict[str, None] = {}
    for text in leaves([it for name, it in written.items() if name in fields]):
        if not isinstance(text, str):
            continue
        if REFERENCE.fullmatch(text.strip()):
            found[text.strip()] = None
        else:
            found.update(dict.fromkeys(match[1].strip() for match in TEMPLATE.finditer(text)))
            found.update(dict.fromkeys(HANDLE.findall(text)))
    if len(found) > FOUND_MAX:
        raise InvalidRequest(f"a tool's arguments name {len(found)} secrets; {FOUND_MAX} at most")
    return list(found)


def put(text: str, values: Mapping[str, str]) -> str:
    """The text with the values in place."""
    if text.strip() in values:
        return values[text.strip()]
    # In one pass: what a value holds is not looked at again.
    both = re.compile(f"{TEMPLATE.pattern}|{HANDLE.pattern}")
    return both.sub(lambda match: values.get((match[1] or match[0]).strip(), match[0]), text)


def fill(thing: Any, values: Mapping[str, str]) -> Any:
    """An argument with the values in place; keys stay as they are."""
    if isinstance(thing, str):
        return put(thing, values)
    if isinstance(thing, dict):
        return {key: fill(it, values) for key, it in thing.items()}
    if isinstance(thing, (list, tuple)):
        made = [fill(it, values) for it in thing]
        if isinstance(thing, tuple) and hasattr(thing, "_fields"):
            return type(thing)(*made)
        return type(thing)(made)
    names = fields_of(thing)
    made_of = {name: fill(getattr(thing, name), values) for name in names}
    changed = {name: it for name, it in made_of.items() if it != getattr(thing, name)}
    if not changed:
        return thing
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return dataclasses.replace(thing, **changed)
    return thing.model_copy(update=changed)


def leaves(thing: Any, keys: bool = False, depth: int = 0) -> Iterator[Any]:
    """What an argument is made of."""
    if depth > DEPTH_MAX:
        raise InvalidRequest("a tool's arguments are nested too deeply")
    if isinstance(thing, dict):
        for key, it in thing.items():
            if keys:
                yield from leaves(key, keys, depth + 1)
            yield from leaves(it, keys, depth + 1)
    elif isinstance(thing, (list, tuple)):
        for it in thing:
            yield from leaves(it, keys, depth + 1)
    elif names := fields_of(thing):
        for name in names:
            yield from leaves(getattr(thing, name), keys, depth + 1)
    else:
        yield thing


def fields_of(thing: Any) -> list[str]:
    """Those of an argument that is made of data, rather than an object of a framework."""
    names = getattr(type(thing), "model_fields", None)
    if names is not None:
        return list(names)
    if not dataclasses.is_dataclass(thing) or isinstance(thing, type):
        return []
    fields = dataclasses.fields(thing)
    data = (str, int, float, bool, list, tuple, dict, type(None))
    if all(it.init and isinstance(getattr(thing, it.name), data) for it in fields):
        return [it.name for it in fields]
    return []
