"""The reference of the control API: routes, parameters, and what is sent and answered."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typing_extensions import is_typeddict

from bursar.api import registry, routes
from bursar.api.registry import Route
from bursar.edge import fields as wire
from bursar.edge.calls import default_action
from bursar.gateway.wire.calls import DROPPED
from bursar.service.access import ProvisioningPrincipal

_CALLERS = {
    "InferencePrincipal": "inference",
    "ProvisioningPrincipal": "provisioning",
    "UserPrincipal": "access token",
    "OperatorPrincipal": "operator",
}
# Types of the wire that mean more than the type they are made of.
_WIRE_TYPES: dict[object, str] = {
    wire.Usd: "USD, text",
    wire.UsdTextIn: "USD, text",
    wire.UsdNumber: "USD, number or null",
    wire.UsdNumberIn: "USD, number",
    wire.Moment: "moment",
    wire.MomentIn: "moment",
}
_PLAIN_TYPES: dict[object, str] = {
    str: "text",
    int: "whole number",
    bool: "true or false",
    NoneType: "null",
    float: "number",
    Any: "anything",
}


def route_table() -> Iterator[str]:
    """Every route of the registry."""
    yield "| route | key | role may | what it does | sends | answers |"
    yield "|---|---|---|---|---|---|"
    for route in routes.ROUTES:
        caller = "none" if route.principal is None else _CALLERS[route.principal.__name__]
        yield (
            f"| `{route.method} {route.path}` | {caller} | {_action(route)} "
            f"| {_first_line(route.endpoint)} | {_sends(route)} | {_answers(route)} |"
        )


def shapes() -> Iterator[str]:
    """Every body that is sent or answered, field by field."""
    for shape in _all_shapes():
        yield f"### {_name(shape)}"
        yield ""
        yield " ".join((shape.__doc__ or "").split())
        yield ""
        yield "| field | type |"
        yield "|---|---|"
        for name, kind in _fields(shape):
            yield f"| `{name}` | {kind} |"
        yield ""


def parameters() -> Iterator[str]:
    """Every query parameter, as the document describes it."""
    yield "| parameter | what it may be | default | of |"
    yield "|---|---|---|---|"
    for name, schema in registry.PARAMETERS.items():
        users = ", ".join(f"`{r.path}`" for r in routes.ROUTES if name in r.query)
        default = str(schema.get("default", "")).lower()
        yield f"| `{name}` | {_parameter_type(schema)} | {default} | {users} |"


def dropped() -> Iterator[str]:
    """Every field of a call that never reaches an upstream."""
    yield ", ".join(f"`{name}`" for name in sorted(DROPPED)) + "."


def _action(route: Route) -> str:
    kind = route.principal
    if not (isinstance(kind, type) and issubclass(kind, ProvisioningPrincipal)):
        return ""
    return f"`{route.action or default_action(route.method)}`"


def _sends(route: Route) -> str:
    sent = [_link(route.body)] if route.body else []
    sent += [f"`?{name}`" for name in route.query]
    return ", ".join(sent)


def _answers(route: Route) -> str:
    what = [_link(route.answer)] if route.answer else []
    what += [f"`{route.text}`"] if route.text else []
    return " ".join([str(route.status), " or ".join(what)]).strip()


def _all_shapes() -> list[type]:
    """The types of all routes, each before those that it is made of."""
    found: dict[type, None] = {}
    wanted = [each for route in routes.ROUTES for each in (route.body, route.answer) if each]
    while wanted:
        shape = wanted.pop(0)
        if shape not in found:
            found[shape] = None
            kinds = () if issubclass(shape, BaseModel) else shape.__annotations__.values()
            wanted[:0] = [inner for kind in kinds for inner in _shapes_in(kind)]
    return list(found)


def _shapes_in(kind: Any) -> Iterator[type]:
    if is_typeddict(kind):
        yield kind
    for inner in get_args(kind):
        yield from _shapes_in(inner)


def _fields(shape: type) -> Iterator[tuple[str, str]]:
    if not issubclass(shape, BaseModel):
        for name, kind in shape.__annotations__.items():
            is_always = get_origin(kind) is not NotRequired
            yield name, _type(kind) if is_always else f"{_type(get_args(kind)[0])}, or absent"
        return
    for name, field in shape.model_fields.items():
        default = "" if field.is_required() else _body_default(field)
        yield name, _type(_with_metadata(shape, name)) + default


def _with_metadata(shape: type[BaseModel], name: str) -> Any:
    """The annotation as it was written; pydantic takes what makes a type special out of it."""
    for part in shape.__mro__:
        annotations = inspect.get_annotations(part)
        if name in annotations:
            return annotations[name]
    raise LookupError(name)


def _body_default(field: FieldInfo) -> str:
    if field.default is None:
        return "; may be absent"
    return f"; `{field.default!s}` if absent" if field.default != "" else "; may be absent"


def _type(kind: Any) -> str:
    if kind in _WIRE_TYPES:
        return _WIRE_TYPES[kind]
    origin, inner = get_origin(kind), get_args(kind)
    if origin is list:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return "object"
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type(each) for each in inner))
    if origin is Annotated:
        return _type(inner[0])
    return _PLAIN_TYPES.get(kind) or _link(kind)


def _parameter_type(schema: Mapping[str, object]) -> str:
    if schema.get("format") == "date-time":
        return "a moment"
    if schema["type"] == "boolean":
        return "`true` or `false`"
    if schema["type"] == "string":
        most = schema.get("maxLength")
        return f"text of at most {most} characters" if most else "text"
    if "maximum" in schema:
        return f"a whole number from {schema['minimum']} to {schema['maximum']:,}"
    return "an id"


def _name(shape: type) -> str:
    words = re.findall(r"[A-Z][a-z]+", shape.__name__.removesuffix("Shape"))
    return " ".join([words[0], *(word.lower() for word in words[1:])])


def _link(shape: type) -> str:
    name = _name(shape)
    return f"[{name}](#{name.lower().replace(' ', '-')})"


def _first_line(endpoint: Callable[..., object]) -> str:
    return (endpoint.__doc__ or "").split("\n")[0]
