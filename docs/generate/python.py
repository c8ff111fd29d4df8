"""How Python reads on a page: calls, annotations, records, trees of errors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from types import ModuleType, NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
    get_overloads,
    get_type_hints,
)
from urllib.parse import unquote

from bursar.sdk.faces import Method, PagedMethod
from bursar.sdk.results import Listing, Result

# Something for each kind of argument that is no id and no text, only to learn where it is sent.
_SAMPLES: Mapping[object, Any] = {UnionType: 1, Union: 1, Sequence: (), Mapping: {}, Literal: ""}


def heading(title: str, kind: type) -> Iterator[str]:
    """A heading, and under it what a class says of itself."""
    yield f"### {title}"
    yield ""
    yield " ".join((kind.__doc__ or "").split())
    yield ""


def record(kind: type, fields: Mapping[str, Any]) -> Iterator[str]:
    """A class that is made of fields, and how each of them reads."""
    yield from heading(kind.__name__, kind)
    yield "| field | type |"
    yield "|---|---|"
    for name, field in fields.items():
        yield f"| `{name}` | {field} |"
    yield ""


def call(name: str, signature: inspect.Signature, words: str) -> Iterator[str]:
    """How something is called, and what it says of itself."""
    yield "```python"
    yield from _signature(name, signature)
    yield "```"
    yield ""
    yield " ".join(words.split())
    yield ""


def methods(resource: Any) -> Iterator[tuple[str, inspect.Signature, str, str]]:
    """The methods of a resource: name, how it is called, what it says, what it answers with."""
    for name, value in vars(type(resource)).items():
        found = None if name.startswith("_") else getattr(resource, name)
        if isinstance(found, Method | PagedMethod):
            signature = inspect.signature(found)
            kind = signature.return_annotation
            if isinstance(found, PagedMethod):
                kind = get_args(kind)[0]
                answers = f"pages of {annotation(kind, link)}"
            else:
                answers = "nothing" if kind in (None, NoneType) else annotation(kind, link)
            if get_origin(kind) is Listing:
                answers = f"a list of {annotation(get_args(kind)[0], link)}"
            yield name, signature, found.__doc__ or "", answers
        elif isinstance(value, property) and callable(found):
            calling = type(found).__call__
            variants = [inspect.signature(each) for each in get_overloads(calling)]
            kinds = [annotation(each.return_annotation, link) for each in variants]
            own = [each for name, each in variants[0].parameters.items() if name != "self"]
            signature = inspect.Signature(own)
            yield name, signature, calling.__doc__ or "", " or ".join(kinds)


def route(method: Any) -> str:
    """The method and path of the HTTP API that a method of the SDK calls."""
    if not isinstance(method, Method | PagedMethod):
        return "`POST /v1/chat/completions`"
    hints = get_type_hints(method._describe)
    needed = {
        name: f"{{{name}}}"
        if hints[name] in (int, str, bool)
        else _SAMPLES[get_origin(hints[name])]
        for name, each in inspect.signature(method).parameters.items()
        if each.default is each.empty
    }
    described = method._describe(**needed)
    return f"`{described.method} {unquote(described.path)}`"


def _signature(name: str, signature: inspect.Signature) -> Iterator[str]:
    parameters = list(signature.parameters.values())
    if not parameters:
        yield f"{name}()"
        return
    yield f"{name}("
    is_behind_star = False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not is_behind_star:
            is_behind_star = True
            yield "    *,"
        stars = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        kind = annotation(parameter.annotation, lambda each: each.__name__)
        yield f"    {stars}{parameter.name}: {kind}{default},"
    yield ")"


def annotation(kind: Any, name: Callable[[type], str], *, either: str = " | ") -> str:
    """An annotation as Python has it, without modules and what pydantic hangs on."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is None or kind is NoneType:
        return "None"
    if origin is Annotated:
        return annotation(inner[0], name, either=either)
    if origin in (Union, UnionType):
        return either.join(dict.fromkeys(annotation(each, name, either=either) for each in inner))
    if origin is Literal:
        return "bool" if inner[0] in (True, False) else either.join(map(repr, inner))
    if origin is tuple:
        return f"tuple[{annotation(inner[0], name, either=either)}, ...]"
    if origin is not None:
        parts = ", ".join(annotation(each, name, either=either) for each in inner)
        return f"{name(origin)}[{parts}]"
    return name(kind) if isinstance(kind, type) else str(kind).removeprefix("typing.")


def value(kind: Any) -> str:
    """An annotation as a table has it, with links to the records that the page describes."""
    return annotation(kind, link, either=" or ")


def link(kind: type) -> str:
    """A class by its name, linked if its fields are described."""
    if issubclass(kind, Result) or is_dataclass(kind):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    return kind.__name__


def error_tree(module: ModuleType) -> Iterator[str]:
    """What a module of errors draws at its top."""
    yield "```text"
    yield inspect.cleandoc(inspect.cleandoc(module.__doc__ or "").partition("\n\n")[2])
    yield "```"
