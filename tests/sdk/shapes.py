"""Writes down what every result of the SDK and of the clients beside it has: field and type.

    python -m tests.sdk.shapes    writes tests/sdk/shapes.txt anew

Programs are written against these names. Whoever changes one sees it in the difference, and tells
those who use it.
"""

from __future__ import annotations

import dataclasses
import inspect
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from bursar import compat
from bursar.sdk import resources
from bursar.sdk.results import Result

PATH = Path(__file__).with_name("shapes.txt")
COMMAND = "python -m tests.sdk.shapes"
# What makes a class of the wire's, and not a part of what programs see.
_INSIDE = "bursar.compat.venice_sdk.shapes"


def classes(package: ModuleType) -> Iterator[type[Any]]:
    """Every class that a module of a package has."""
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        for kind in vars(import_module(found.name)).values():
            if inspect.isclass(kind) and kind.__module__ == found.name:
                yield kind


def text() -> str:
    """Every result with its fields, as it is now."""
    return "\n".join(line for package in (resources, compat) for line in _lines(package)) + "\n"


def _lines(package: ModuleType) -> Iterator[str]:
    for kind in classes(package):
        if kind.__module__ == _INSIDE:
            continue
        if issubclass(kind, Result):
            yield f"{kind.__module__}.{kind.__name__}"
            for name, field in kind.model_fields.items():
                end = "" if field.is_required() else " = …"
                yield f"    {name}: {_type(field.annotation)}{end}"
        elif dataclasses.is_dataclass(kind) and "__dataclass_params__" in vars(kind):
            yield f"{kind.__module__}.{kind.__name__}"
            for each in dataclasses.fields(kind):
                is_required = each.default is each.default_factory is dataclasses.MISSING
                end = "" if is_required else " = …"
                yield f"    {each.name}: {_type(each.type)}{end}"


def _type(annotation: Any) -> str:
    """A type without modules, and without what pydantic hangs on."""
    plain = annotation.__name__ if inspect.isclass(annotation) else str(annotation)
    if not inspect.isclass(annotation) or "[" in str(annotation):
        plain = str(annotation)
    plain = re.sub(r"Annotated\[([^\[\],]+), [^\]]*\]", r"\1", plain)
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", plain)


if __name__ == "__main__":
    PATH.write_text(text(), "utf-8")
