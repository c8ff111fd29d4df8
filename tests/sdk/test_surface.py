"""What `bursar` exports, that both faces offer the same, and that no call misses its route."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

import pytest

import bursar
from bursar import AsyncBursar, Bursar, compat
from bursar.sdk import errors
from bursar.sdk import resources as nouns
from bursar.sdk.calls import Page
from bursar.sdk.client import Lazy
from bursar.sdk.faces import (
    AsyncMethod,
    AsyncPagedMethod,
    AsyncResource,
    Method,
    PagedMethod,
    Resource,
)
from bursar.sdk.frames import Listing
from bursar.sdk.results import Result
from tests.sdk import shapes

SOURCE = Path(bursar.__file__).parents[1]
PUBLIC = """
    UNSET AsyncBursar Bursar BursarError ConfigurationError Conflict ConnectionFailed Forbidden
    InsufficientCredit InvalidAnswer InvalidArgument InvalidRequest MissingDependency NotFound
    RateLimited RawResponse Refused ServerFailed StreamCut TimedOut TlsFailed Unauthenticated
    __version__
""".split()
SYNC = Bursar("bpk_x", base_url="http://b")
ASYNC = AsyncBursar("bpk_x", base_url="http://b")


def test_the_public_names_are_these() -> None:
    assert sorted(bursar.__all__) == sorted(PUBLIC)
    assert set(dir(bursar)) == set(PUBLIC)
    for name in PUBLIC:
        assert getattr(bursar, name) is not None
    with pytest.raises(AttributeError):
        _ = bursar.nothing


def test_every_error_is_public_and_is_in_the_tree() -> None:
    kinds = {
        name
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, Exception)
    }
    assert kinds <= set(bursar.__all__)
    for name in kinds:
        assert issubclass(getattr(bursar, name), bursar.BursarError)


def run(program: str) -> str:
    """What a program prints that has this package and nothing else imported yet."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_importing_the_client_loads_neither_server_nor_http_library() -> None:
    program = (
        "import sys; from bursar import Bursar, AsyncBursar; Bursar('bpk_x').account\n"
        "print([n for n in sys.modules if n.startswith('bursar.')])\n"
        "print([n for n in ('sqlalchemy', 'fastapi', 'starlette', 'aiosqlite', 'structlog',"
        " 'msgspec', 'httpx2', 'pandas', 'typer', 'rich') if n in sys.modules])"
    )
    ours, others = run(program).splitlines()
    loaded = set(ast.literal_eval(ours))
    assert {name.split(".")[1] for name in loaded} == {"sdk", "version"}
    assert others == "[]"


def test_importing_the_client_is_quick() -> None:
    program = (
        "import time; t = time.process_time(); from bursar import Bursar, AsyncBursar\n"
        "print(time.process_time() - t)"
    )
    # The processor's time, and the best of several: a busy machine is not a slow import.
    assert min(float(run(program)) for _ in range(5)) < 0.15


# ── Parity ──────────────────────────────────────────────────────────────────────────────────────


def resources(client: Any) -> Iterator[tuple[str, Any]]:
    """Every resource of a client, those within others too."""
    for name, value in inspect.getmembers_static(type(client)):
        if isinstance(value, Lazy):
            found = getattr(client, name)
            yield name, found
            for inner, each in inspect.getmembers_static(type(found)):
                if isinstance(each, property):
                    within = getattr(found, inner)
                    if isinstance(within, Resource | AsyncResource):
                        yield f"{name}.{inner}", within


def methods(resource: Any) -> dict[str, Any]:
    """The methods of a resource by name."""
    kinds = (Method, AsyncMethod, PagedMethod, AsyncPagedMethod)
    found = {name: getattr(resource, name) for name in dir(resource) if not name.startswith("_")}
    return {name: value for name, value in found.items() if isinstance(value, kinds)}


PAIRS = list(zip(resources(SYNC), resources(ASYNC), strict=True))


def test_there_are_as_many_resources_as_files() -> None:
    folder = SOURCE / "bursar/sdk/resources"
    files = {path.stem for path in folder.rglob("[a-z]*.py")}
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}
    named = {name.rpartition(".")[2] for (name, _), _ in PAIRS}
    # What several resources answer with has a file as well.
    assert files - {"sign_ins"} <= named
    assert named <= files | packages


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda pair: pair[0])
def test_both_faces_offer_the_same(one: tuple[str, Any], other: tuple[str, Any]) -> None:
    assert one[0] == other[0]
    blocking, awaited = methods(one[1]), methods(other[1])
    assert blocking.keys() == awaited.keys()
    assert isinstance(one[1], Resource)
    assert isinstance(other[1], AsyncResource)
    for name, method in blocking.items():
        twin = awaited[name]
        assert method._describe is twin._describe, "a call is described once"
        assert inspect.signature(method) == inspect.signature(twin)
        assert isinstance(method, PagedMethod) == isinstance(twin, AsyncPagedMethod)


def test_chat_has_the_same_parameters_on_both_faces() -> None:
    for name in ("__call__", "with_raw_response"):
        faces = (type(SYNC.chat.complete), type(ASYNC.chat.complete))
        one, other = (inspect.signature(getattr(face, name)).parameters for face in faces)
        assert one == other


def test_both_clients_take_the_same_arguments() -> None:
    for make in (lambda kind: kind, lambda kind: kind.log_in):
        one, other = (inspect.signature(make(kind)).parameters for kind in (Bursar, AsyncBursar))
        assert list(one) == list(other)
    public = {name for name in dir(Bursar) if not name.startswith("_")}
    assert public == {name for name in dir(AsyncBursar) if not name.startswith("_")}


@pytest.mark.parametrize("resource", [one for one, _ in PAIRS], ids=lambda pair: pair[0])
def test_every_method_is_described_and_typed(resource: tuple[str, Any]) -> None:
    for name, method in methods(resource[1]).items():
        assert method.__doc__, name
        assert method.__name__ == method._describe.__name__.removeprefix("_")
        signature = inspect.signature(method)
        for parameter in signature.parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty, (name, parameter)
        assert signature.return_annotation is not inspect.Signature.empty
        assert repr(method) == f"<method {type(resource[1]).__name__}.{method.__name__}>"


# ── What is typed and documented ────────────────────────────────────────────────────────────────


# Every class that a file has: results, what calls take, the faces, and the clients beside them.
CLASSES = [*shapes.classes(nouns), *shapes.classes(compat)]
RESULTS = [kind for kind in CLASSES if issubclass(kind, Result)]
RECORDS = [kind for kind in CLASSES if "__dataclass_params__" in vars(kind)]
# Whole numbers of Venice's client, and its texts, are in units that are not ours.
MONEY = re.compile(r"(^|_)(cost|usage|balance|credits|spent|amount)($|_)")


def parts(annotation: Any) -> Iterator[Any]:
    """The types that a type is made of."""
    yield annotation
    for inner in typing.get_args(annotation):
        yield from parts(inner)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_class_says_what_it_is(kind: type) -> None:
    assert (kind.__doc__ or "").strip().endswith((".", "shown this one time."))
    for name, value in vars(kind).items():
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
            assert value.__doc__, name


@pytest.mark.parametrize("kind", RESULTS, ids=lambda kind: kind.__name__)
def test_every_field_of_a_result_has_a_type_and_money_its_unit(kind: type[Result]) -> None:
    for name, field in kind.model_fields.items():
        assert field.annotation is not None, name
        if Decimal in parts(field.annotation):
            told = " ".join(each.__doc__ or "" for each in kind.__mro__[:2])
            assert "USD" in told, f"{kind.__name__}.{name}"
        assert float not in parts(field.annotation), name


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_every_whole_number_of_money_says_its_unit(kind: type) -> None:
    told = " ".join([kind.__doc__ or "", import_module(kind.__module__).__doc__ or ""])
    for field in dataclasses.fields(kind):
        if field.type in (int, "int") and MONEY.search(field.name):
            assert "USD" in told, f"{kind.__name__}.{field.name}"
        assert Decimal not in parts(field.type), field.name


def test_the_fields_of_results_are_those_that_programs_know() -> None:
    known = shapes.PATH.read_text("utf-8")
    assert shapes.text() == known, f"if that is meant, run: {shapes.COMMAND}"


@pytest.mark.parametrize("name", bursar.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    if name not in ("UNSET", "__version__"):
        assert inspect.getdoc(getattr(bursar, name))


@pytest.mark.parametrize("kind", [Bursar, AsyncBursar])
def test_every_public_method_of_a_client_is_typed_and_documented(kind: type) -> None:
    for name in dir(kind):
        value = inspect.getattr_static(kind, name)
        if name.startswith("_") or isinstance(value, Lazy):
            continue
        method = getattr(kind, name)
        assert inspect.getdoc(method), name
        assert "return" in method.__annotations__, name


@pytest.mark.parametrize("resource", [one for one, _ in PAIRS], ids=lambda pair: pair[0])
def test_every_answer_becomes_a_table(resource: tuple[str, Any]) -> None:
    for name, method in methods(resource[1]).items():
        kind = inspect.signature(method).return_annotation
        either = typing.get_args(kind) if isinstance(kind, UnionType) else (kind,)
        for found in (typing.get_origin(each) or each for each in either if each is not NoneType):
            assert issubclass(found, Result | Listing | Page), name
            assert callable(found.to_frame), name
