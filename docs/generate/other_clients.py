"""The reference of the clients in the form of other services' own."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from bursar.compat import cerevox, venice_sdk
from bursar.compat.cerevox import Account
from bursar.compat.venice_sdk import VeniceClient
from bursar.sdk.results import Result
from docs.generate import python


def venice_client() -> Iterator[str]:
    """Every method of the client in the form of Venice's SDK, and what it answers with."""
    client = VeniceClient("bpk_x", "http://127.0.0.1")
    parts = {name: each for name, each in vars(client).items() if not name.startswith("_")}
    for path, part in {"client": client, **{f"client.{n}": p for n, p in parts.items()}}.items():
        yield from python.heading(f"`{path}`", type(part))
        for name, method in vars(type(part)).items():
            if not name.startswith("_") and inspect.isfunction(method):
                signature = inspect.signature(getattr(part, name))
                kind = signature.return_annotation
                answers = "nothing" if kind is None else python.annotation(kind, python.link)
                yield from python.call(f"{path}.{name}", signature, method.__doc__ or "")
                yield f"Answers with {answers}."
                yield ""
    for kind in (getattr(venice_sdk, name) for name in venice_sdk.__all__):
        if isinstance(kind, type) and is_dataclass(kind):
            yield from python.record(kind, {x.name: python.value(x.type) for x in fields(kind)})


def venice_errors() -> Iterator[str]:
    """The tree of errors of the client in the form of Venice's SDK."""
    return python.error_tree(venice_sdk.errors)


def cerevox_client() -> Iterator[str]:
    """Every method of the client in the form of Cerevox's, and what it answers with."""
    client = Account("bpk_x", "http://127.0.0.1")
    for name, signature, words, answers in python.methods(client):
        yield from python.call(f"account.{name}", signature, words)
        yield f"Answers with {answers}: {python.route(getattr(client, name))}."
        yield ""
    for kind in (getattr(cerevox, name) for name in cerevox.__all__):
        if issubclass(kind, Result):
            found = kind.model_fields.items()
            yield from python.record(kind, {n: python.value(x.annotation) for n, x in found})


def cerevox_errors() -> Iterator[str]:
    """The error of the client in the form of Cerevox's."""
    return python.error_tree(cerevox.errors)
