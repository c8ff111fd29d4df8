"""Writes the parts of the reference that follow from the code.

Owns the blocks between `<!-- generated: name -->` and `<!-- end -->` in the pages under `docs`.
Must not hold a fact of its own: names, defaults, sentences and shapes come from the program. What
stands around the blocks is written by hand and stays.

    python docs/generate.py            rewrites the blocks
    python docs/generate.py --check    says which pages are out of date, and fails if any is

`tests/tidy/test_docs.py` does the latter.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_overloads,
    get_type_hints,
)
from urllib.parse import unquote

import typer
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from typer.testing import CliRunner
from typing_extensions import is_typeddict

from bursar import Bursar, telemetry
from bursar.api import registry, routes
from bursar.api.registry import Route
from bursar.cli import application
from bursar.compat import cerevox, venice_sdk
from bursar.compat.cerevox import Account
from bursar.compat.venice_sdk import VeniceClient
from bursar.config import (
    ENV_PREFIX,
    GrantSettings,
    ProviderSettings,
    Settings,
    UpstreamSettings,
)
from bursar.edge import fields as wire
from bursar.edge.calls import default_action
from bursar.gateway.wire.calls import DROPPED
from bursar.sdk import errors as sdk_error_tree
from bursar.sdk import resources
from bursar.sdk.client import Lazy
from bursar.sdk.faces import Method, PagedMethod, Resource
from bursar.sdk.results import Listing, Result
from bursar.service.access import ProvisioningPrincipal

DOCS = Path(__file__).parent
# Something for each kind of argument that is no id and no text, only to learn where it is sent.
_SAMPLES: Mapping[object, Any] = {UnionType: 1, Union: 1, Sequence: (), Mapping: {}, Literal: ""}
COMMAND = "python docs/generate.py"
_BLOCK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_WIDTH = 100
# Settings that the environment has no room for.
_TABLES = ("upstreams", "sso_providers")
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


# ── Settings ────────────────────────────────────────────────────────────────────────────────────


def settings() -> Iterator[str]:
    """Every setting of the server."""
    yield "| setting | environment | default | what it is |"
    yield "|---|---|---|---|"
    for name, field in Settings.model_fields.items():
        variable = "" if name in _TABLES else f"`{ENV_PREFIX}{name.upper()}`"
        yield f"| `{name}` | {variable} | {_default(field)} | {_sentence(field)} |"


def upstreams() -> Iterator[str]:
    """Every setting of one upstream."""
    return _table_of(UpstreamSettings)


def providers() -> Iterator[str]:
    """Every setting of one sign-in service."""
    return _table_of(ProviderSettings)


def grants() -> Iterator[str]:
    """Every setting of what a group of a sign-in service means."""
    return _table_of(GrantSettings)


def _table_of(model: type[BaseModel]) -> Iterator[str]:
    yield "| setting | default | what it is |"
    yield "|---|---|---|"
    for name, field in model.model_fields.items():
        yield f"| `{name}` | {_default(field)} | {_sentence(field)} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ((), {}) or isinstance(value, SecretStr):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{value}`"


def _sentence(field: FieldInfo) -> str:
    text = (field.description or "").replace("|", "\\|")
    least, most = _bounds(field.metadata)
    if least is not None and most is not None:
        return f"{text} {least} to {most}."
    return f"{text} {least} or more." if least is not None else text


def _bounds(constraints: Iterable[object]) -> tuple[str | None, str | None]:
    found: dict[str, str] = {}
    for each in constraints:
        for name in ("ge", "gt", "le"):
            bound = getattr(each, name, None)
            if bound is not None:
                plain = int(bound) if bound == int(bound) else bound
                found[name] = f"Above {plain}" if name == "gt" else f"{plain:,}"
    return found.get("ge", found.get("gt")), found.get("le")


# ── Metrics ─────────────────────────────────────────────────────────────────────────────────────


def counters() -> Iterator[str]:
    """Every counter."""
    yield "| counter | labels | what it counts |"
    yield "|---|---|---|"
    for name, text, labels in telemetry.COUNTERS:
        shown = ", ".join(f"`{label}`" for label in labels)
        yield f"| `{name}_total` | {shown} | {text} |"


def gauges() -> Iterator[str]:
    """Every gauge."""
    yield "| gauge | what it shows |"
    yield "|---|---|"
    for name, text in telemetry.GAUGES:
        yield f"| `{name}` | {text} |"


# ── The control API ─────────────────────────────────────────────────────────────────────────────


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


# ── The command line ────────────────────────────────────────────────────────────────────────────


def commands() -> Iterator[str]:
    """Every command with its help, as the program prints it."""
    app = application.make()
    for path in _paths(app):
        title = " ".join(("bursar", *path))
        yield f"{'###' if len(path) > 1 else '##'} `{title}`"
        yield ""
        yield "```text"
        yield _help(app, path)
        yield "```"
        yield ""


def _paths(app: typer.Typer) -> Iterator[tuple[str, ...]]:
    yield ()
    for command in app.registered_commands:
        yield (str(command.name),)
    for group in app.registered_groups:
        yield (str(group.name),)
        for inner in group.typer_instance.registered_commands if group.typer_instance else ():
            yield (str(group.name), str(inner.name))


def _help(app: typer.Typer, path: tuple[str, ...]) -> str:
    environment = {"COLUMNS": str(_WIDTH), "TERMINAL_WIDTH": str(_WIDTH), "NO_COLOR": "1"}
    printed = CliRunner().invoke(app, [*path, "--help"], prog_name="bursar", env=environment)
    return "\n".join(line.rstrip() for line in printed.output.strip().splitlines())


# ── The Python SDK ──────────────────────────────────────────────────────────────────────────────


def sdk_calls() -> Iterator[str]:
    """Every method of the SDK, by resource."""
    for path, resource in _sdk_resources(Bursar("bpk_x", base_url="http://127.0.0.1")):
        yield f"### `client.{path}`"
        yield ""
        yield " ".join((type(resource).__doc__ or "").split())
        yield ""
        for name, signature, words, answers in _sdk_methods(resource):
            yield "```python"
            yield from _sdk_signature(f"client.{path}.{name}", signature)
            yield "```"
            yield ""
            yield " ".join(words.split())
            yield ""
            yield f"Answers with {answers}: {_sdk_route(getattr(resource, name))}."
            yield ""


def sdk_results() -> Iterator[str]:
    """Every result of the SDK, field by field."""
    for kind in _result_kinds():
        yield from _sdk_heading(kind)
        for name, field in kind.model_fields.items():
            yield f"| `{name}` | {_python(field.annotation, _result_link, either=' or ')} |"
        for name, value in vars(kind).items():
            if isinstance(value, property):
                yield f"| `{name}` | str: {(value.__doc__ or '').rstrip('.').lower()} |"
        yield ""


def sdk_inputs() -> Iterator[str]:
    """Every dictionary that a method of the SDK takes, key by key."""
    for kind in _sdk_kinds():
        if is_typeddict(kind):
            yield from _sdk_heading(kind)
            for name, each in get_type_hints(kind).items():
                end = "" if name in kind.__required_keys__ else "; may be absent"
                yield f"| `{name}` | {_python(each, _result_link, either=' or ')}{end} |"
            yield ""


def _sdk_heading(kind: type) -> Iterator[str]:
    yield f"### {kind.__name__}"
    yield ""
    yield " ".join((kind.__doc__ or "").split())
    yield ""
    yield "| field | type |"
    yield "|---|---|"


def sdk_errors() -> Iterator[str]:
    """The tree of errors, as it is drawn in its module."""
    return _tree(sdk_error_tree)


# ── The clients of other shapes ─────────────────────────────────────────────────────────────────


def venice_client() -> Iterator[str]:
    """Every method of the client in the form of Venice's SDK, and what it answers with."""
    client = VeniceClient("bpk_x", "http://127.0.0.1")
    parts = {name: each for name, each in vars(client).items() if not name.startswith("_")}
    for path, part in {"client": client, **{f"client.{n}": p for n, p in parts.items()}}.items():
        yield f"### `{path}`"
        yield ""
        yield " ".join((type(part).__doc__ or "").split())
        yield ""
        for name, method in vars(type(part)).items():
            if not name.startswith("_") and inspect.isfunction(method):
                signature = inspect.signature(getattr(part, name))
                kind = signature.return_annotation
                answers = "nothing" if kind is None else _python(kind, _record_link)
                yield from _compat_method(f"{path}.{name}", signature, method.__doc__ or "")
                yield f"Answers with {answers}."
                yield ""
    for kind in (getattr(venice_sdk, name) for name in venice_sdk.__all__):
        if isinstance(kind, type) and is_dataclass(kind):
            yield from _sdk_heading(kind)
            for each in fields(kind):
                yield f"| `{each.name}` | {_python(each.type, _record_link, either=' or ')} |"
            yield ""


def venice_errors() -> Iterator[str]:
    """The tree of errors of the client in the form of Venice's SDK."""
    return _tree(venice_sdk.errors)


def cerevox_client() -> Iterator[str]:
    """Every method of the client in the form of Cerevox's, and what it answers with."""
    client = Account("bpk_x", "http://127.0.0.1")
    for name, signature, words, answers in _sdk_methods(client):
        yield from _compat_method(f"account.{name}", signature, words)
        yield f"Answers with {answers}: {_sdk_route(getattr(client, name))}."
        yield ""
    for kind in (getattr(cerevox, name) for name in cerevox.__all__):
        if issubclass(kind, Result):
            yield from _sdk_heading(kind)
            for name, field in kind.model_fields.items():
                yield f"| `{name}` | {_python(field.annotation, _result_link, either=' or ')} |"
            yield ""


def cerevox_errors() -> Iterator[str]:
    """The error of the client in the form of Cerevox's."""
    return _tree(cerevox.errors)


def _compat_method(name: str, signature: inspect.Signature, words: str) -> Iterator[str]:
    yield "```python"
    yield from _sdk_signature(name, signature)
    yield "```"
    yield ""
    yield " ".join(words.split())
    yield ""


def _record_link(kind: type) -> str:
    if is_dataclass(kind):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    return kind.__name__


def _tree(module: ModuleType) -> Iterator[str]:
    """What a module of errors draws at its top."""
    yield "```text"
    yield inspect.cleandoc(inspect.cleandoc(module.__doc__ or "").partition("\n\n")[2])
    yield "```"


def _sdk_resources(client: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in inspect.getmembers_static(type(client)):
        if isinstance(value, Lazy | property) and not name.startswith("_"):
            found = getattr(client, name)
            if isinstance(found, Resource):
                yield f"{prefix}{name}", found
                yield from _sdk_resources(found, f"{prefix}{name}.")


def _sdk_methods(resource: Any) -> Iterator[tuple[str, inspect.Signature, str, str]]:
    for name, value in vars(type(resource)).items():
        found = None if name.startswith("_") else getattr(resource, name)
        if isinstance(found, Method | PagedMethod):
            signature = inspect.signature(found)
            kind = signature.return_annotation
            if isinstance(found, PagedMethod):
                kind = get_args(kind)[0]
                answers = f"pages of {_python(kind, _result_link)}"
            else:
                answers = "nothing" if kind in (None, NoneType) else _python(kind, _result_link)
            if get_origin(kind) is Listing:
                answers = f"a list of {_python(get_args(kind)[0], _result_link)}"
            yield name, signature, found.__doc__ or "", answers
        elif isinstance(value, property) and callable(found):
            call = type(found).__call__
            variants = [inspect.signature(each) for each in get_overloads(call)]
            kinds = [_python(each.return_annotation, _result_link) for each in variants]
            own = [each for name, each in variants[0].parameters.items() if name != "self"]
            signature = inspect.Signature(own)
            yield name, signature, call.__doc__ or "", " or ".join(kinds)


def _sdk_route(method: Any) -> str:
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
    call = method._describe(**needed)
    return f"`{call.method} {unquote(call.path)}`"


def _sdk_signature(name: str, signature: inspect.Signature) -> Iterator[str]:
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
        kind = _python(parameter.annotation, lambda each: each.__name__)
        yield f"    {stars}{parameter.name}: {kind}{default},"
    yield ")"


def _python(kind: Any, name: Callable[[type], str], *, either: str = " | ") -> str:
    """An annotation as Python has it, without modules and what pydantic hangs on."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is None or kind is NoneType:
        return "None"
    if origin is Annotated:
        return _python(inner[0], name, either=either)
    if origin in (Union, UnionType):
        return either.join(dict.fromkeys(_python(each, name, either=either) for each in inner))
    if origin is Literal:
        return "bool" if inner[0] in (True, False) else either.join(map(repr, inner))
    if origin is tuple:
        return f"tuple[{_python(inner[0], name, either=either)}, ...]"
    if origin is not None:
        parts = ", ".join(_python(each, name, either=either) for each in inner)
        return f"{name(origin)}[{parts}]"
    return name(kind) if isinstance(kind, type) else str(kind).removeprefix("typing.")


def _result_link(kind: type) -> str:
    if issubclass(kind, Result):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    return kind.__name__


def _result_kinds() -> Iterator[type[Result]]:
    """Every kind of result, in the order in which the files of resources have them."""
    for kind in _sdk_kinds():
        if issubclass(kind, Result):
            yield kind


def _sdk_kinds() -> Iterator[Any]:
    """Every class that a file of resources has."""
    for module in pkgutil.walk_packages(resources.__path__, f"{resources.__name__}."):
        found = import_module(module.name)
        for kind in vars(found).values():
            if isinstance(kind, type) and kind.__module__ == found.__name__:
                yield kind


# ── Pages ───────────────────────────────────────────────────────────────────────────────────────

BLOCKS: Mapping[str, Callable[[], Iterator[str]]] = {
    "settings": settings,
    "upstreams": upstreams,
    "sso-providers": providers,
    "sso-roles": grants,
    "counters": counters,
    "gauges": gauges,
    "routes": route_table,
    "parameters": parameters,
    "shapes": shapes,
    "dropped": dropped,
    "commands": commands,
    "sdk-calls": sdk_calls,
    "sdk-results": sdk_results,
    "sdk-inputs": sdk_inputs,
    "sdk-errors": sdk_errors,
    "venice-client": venice_client,
    "venice-errors": venice_errors,
    "cerevox-client": cerevox_client,
    "cerevox-errors": cerevox_errors,
}


def page_names() -> list[Path]:
    """The pages that have generated blocks."""
    return [page for page in sorted(DOCS.rglob("*.md")) if _BLOCK.search(page.read_text("utf-8"))]


def render(page: str) -> str:
    """A page's text with every block made anew."""

    def fill(block: re.Match[str]) -> str:
        lines = "\n".join(BLOCKS[block[2]]()).rstrip()
        return f"{block[1]}\n{lines}\n\n{block[3]}"

    return _BLOCK.sub(fill, page)


def main(arguments: list[str]) -> int:
    """Rewrite the pages, or with `--check` only compare them; returns the exit code."""
    stale = []
    for page in page_names():
        before = page.read_text("utf-8")
        after = render(before)
        if after == before:
            continue
        stale.append(page)
        if "--check" not in arguments:
            page.write_text(after, "utf-8")
    for page in stale:
        sys.stdout.write(f"{page.relative_to(DOCS.parent)}\n")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
