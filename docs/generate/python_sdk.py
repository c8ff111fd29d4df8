"""The reference of the Python SDK: its calls, results, inputs and errors."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from typing import Any, get_type_hints

from typing_extensions import is_typeddict

from bursar import Bursar
from bursar.sdk import errors as error_module
from bursar.sdk import resources
from bursar.sdk.client import Lazy
from bursar.sdk.faces import Resource
from bursar.sdk.results import Result
from docs.generate import python


def calls() -> Iterator[str]:
    """Every method of the SDK, by resource."""
    for path, resource in _resources(Bursar("bpk_x", base_url="http://127.0.0.1")):
        yield from python.heading(f"`client.{path}`", type(resource))
        for name, signature, words, answers in python.methods(resource):
            yield from python.call(f"client.{path}.{name}", signature, words)
            yield f"Answers with {answers}: {python.route(getattr(resource, name))}."
            yield ""


def results() -> Iterator[str]:
    """Every result of the SDK, field by field."""
    for kind in _kinds():
        if issubclass(kind, Result):
            found = {
                name: python.value(each.annotation) for name, each in kind.model_fields.items()
            }
            for name, value in vars(kind).items():
                if isinstance(value, property):
                    found[name] = f"str: {(value.__doc__ or '').rstrip('.').lower()}"
            yield from python.record(kind, found)


def inputs() -> Iterator[str]:
    """Every dictionary that a method of the SDK takes, key by key."""
    for kind in filter(is_typeddict, _kinds()):
        found = {}
        for name, each in get_type_hints(kind).items():
            end = "" if name in kind.__required_keys__ else "; may be absent"
            found[name] = f"{python.value(each)}{end}"
        yield from python.record(kind, found)


def errors() -> Iterator[str]:
    """The tree of errors, as it is drawn in its module."""
    return python.error_tree(error_module)


def _resources(client: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in inspect.getmembers_static(type(client)):
        if isinstance(value, Lazy | property) and not name.startswith("_"):
            found = getattr(client, name)
            if isinstance(found, Resource):
                yield f"{prefix}{name}", found
                yield from _resources(found, f"{prefix}{name}.")


def _kinds() -> Iterator[Any]:
    """Every class that a file of resources has."""
    for module in pkgutil.walk_packages(resources.__path__, f"{resources.__name__}."):
        found = import_module(module.name)
        for kind in vars(found).values():
            if isinstance(kind, type) and kind.__module__ == found.__name__:
                yield kind
