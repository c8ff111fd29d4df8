"""Every call of the SDK has its route, with the fields that it sends, and every route its call."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from bursar.api import routes
from bursar.api.registry import Route
from bursar.sdk.calls import Call
from tests.sdk.test_surface import PAIRS, methods

CALLS = {
    f"{name}.{each}": method for (name, one), _ in PAIRS for each, method in methods(one).items()
}
# Served by the data plane, which has no registry.
MODEL_ROUTES = ("/v1/models",)
# What a program that manages an account does not call: probes, and reports by strangers.
OTHERS = ("/healthz", "/readyz", "/metrics", "/v1/leaks")
# What only a browser can do: the way to a sign-in service and back.
BROWSERS = ("/v1/auth/sso",)


def value_for(annotation: Any) -> Any:
    """Something that a parameter of this type takes."""
    if annotation in (Any, inspect.Parameter.empty):
        return "x"
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return inner[0]
    if origin in (typing.Union, types.UnionType):
        return value_for(inner[0])
    if origin in (Sequence, list, tuple):
        return [value_for(inner[0])]
    if origin in (Mapping, dict):
        return {"name": "x"}
    if typing.is_typeddict(annotation):
        hints = typing.get_type_hints(annotation)
        return {name: value_for(hints[name]) for name in annotation.__required_keys__}
    known = {object: {}, int: 7, str: "x", bool: True, datetime: datetime(2027, 1, 1, tzinfo=UTC)}
    return {**known, Decimal: Decimal("1.50")}[annotation]


def described(method: Any, *, is_full: bool) -> Call[object]:
    """The call that a method makes, with every argument or only with those that it must have."""
    signature = inspect.signature(method)
    kinds = typing.get_type_hints(method._describe)
    asked = {
        name: value_for(kinds[name])
        for name, parameter in signature.parameters.items()
        if is_full or parameter.default is inspect.Parameter.empty
    }
    positional = [
        asked.pop(name)
        for name, parameter in signature.parameters.items()
        if name in asked and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    found: Call[object] = method._describe(*positional, **asked)
    return found


def route_of(call: Call[object]) -> Route | None:
    """The route that a call is for."""
    for route in routes.ROUTES:
        pattern = re.sub(r"\{\w+\}", "[^/]+", route.path)
        if route.method == call.method and re.fullmatch(pattern, call.path):
            # A fixed segment is no id: a longer match stands in the list as well.
            if "{" not in route.path or "[^/]+" in pattern:
                return route
    return None


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("is_full", [False, True])
def test_a_call_has_its_route_and_sends_what_that_takes(name: str, is_full: bool) -> None:
    call = described(CALLS[name], is_full=is_full)
    if call.path.startswith(MODEL_ROUTES):
        return
    route = route_of(call)
    assert route is not None, f"{call.method} {call.path}"
    sent = {each for each, value in call.query.items() if value is not None}
    assert sent <= set(route.query)
    assert (call.body is None) == (route.body is None)
    if call.body is not None and route.body is not None:
        fields = {field.alias or each for each, field in route.body.model_fields.items()}
        assert set(call.body) <= fields
        if is_full and name != "api_keys.create_many":
            assert set(call.body) == fields - unsent(name)


def unsent(name: str) -> set[str]:
    """Fields that a call leaves to their defaults on purpose."""
    if name == "operator.accounts.create_key":
        # An operator hands over a key; what it may reach is for the account to say.
        return {
            *("user_id", "project_id", "environment", "description", "labels", "label_names"),
            *("models", "endpoints", "networks"),
        }
    return set()


def test_every_route_has_its_call() -> None:
    called = {
        (route.method, route.path)
        for method in CALLS.values()
        if (route := route_of(described(method, is_full=False))) is not None
    }
    for route in routes.ROUTES:
        if not route.path.startswith(OTHERS + BROWSERS):
            assert (route.method, route.path) in called, f"{route.method} {route.path}"
