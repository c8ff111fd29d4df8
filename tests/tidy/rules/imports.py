"""Which libraries live where. Who imports whom inside Bursar is the import contracts' business."""

from __future__ import annotations

from collections.abc import Iterator

from tests.tidy.rule import Finding, Rule, each, file
from tests.tidy.sources import Source, imported_modules

_EDGES = ("api", "dialects", "dashboard", "edge", "gateway")

# Library → the packages that may import it. A library that is not listed may be used anywhere but
# in the core, which uses none.
HOMES: dict[str, tuple[str, ...]] = {
    "aiosqlite": ("store",),
    "alembic": ("store",),
    "asyncpg": ("store",),
    "fastapi": _EDGES,
    "pydantic": (*_EDGES, "config", "sdk"),
    "pydantic_settings": ("config",),
    "rich": ("cli",),
    "sqlalchemy": ("store",),
    "sqlite3": ("store",),
    "starlette": _EDGES,
    "typer": ("cli",),
}

# Never, and what to do instead.
BANNED: dict[str, str] = {
    "marshal": "it runs what it reads; use JSON",
    "pickle": "it runs what it reads; use JSON",
    "shelve": "it runs what it reads; use the store",
    "sqlalchemy.ext.declarative": "no ORM: say what you send to the database",
    "sqlalchemy.orm": "no ORM: say what you send to the database",
    "unittest.mock": "a port is missing: use a fake",
}


def _homes(source: Source) -> Iterator[Finding]:
    if not source.package:
        return
    for line, module in imported_modules(source.tree):
        homes = HOMES.get(module.partition(".")[0])
        if homes is not None and source.package not in homes:
            yield Finding(source, line, f"{module} belongs in {', '.join(homes)}")


def _banned(source: Source) -> Iterator[Finding]:
    if not source.is_under("src"):
        return
    for line, module in imported_modules(source.tree):
        for name, instead in BANNED.items():
            if f"{module}.".startswith(f"{name}."):
                yield Finding(source, line, f"{module}: {instead}")


RULES = (
    Rule(
        "library_homes",
        "A library that is in one place can be understood, replaced and tested there. SQL is the"
        " store's, web frameworks and validation are the edges'.",
        each(_homes),
        bad=(
            file("src/bursar/service/keys.py", "import sqlalchemy as sa"),
            file("src/bursar/worker/keyring.py", "from sqlalchemy import select"),
            file("src/bursar/service/keys.py", "from fastapi import HTTPException"),
            file("src/bursar/bootstrap.py", "def f():\n    from starlette import routing"),
            file("src/bursar/core/keys.py", "from pydantic import BaseModel"),
        ),
        good=(
            file("src/bursar/store/keys.py", "import sqlalchemy as sa\nimport asyncpg"),
            file("src/bursar/api/keys.py", "from fastapi import APIRouter\nimport pydantic"),
            file("src/bursar/config.py", "from pydantic_settings import BaseSettings"),
            file("tests/store/test_keys.py", "import sqlalchemy as sa"),
        ),
    ),
    Rule(
        "banned_libraries",
        "Some things have been decided once, so that nobody need argue them again.",
        each(_banned),
        bad=(
            file("src/bursar/store/keys.py", "from sqlalchemy.orm import Session"),
            file("src/bursar/store/keys.py", "from sqlalchemy import orm"),
            file("src/bursar/worker/journal.py", "import pickle"),
        ),
        good=(file("src/bursar/store/keys.py", "from sqlalchemy.dialects import postgresql"),),
    ),
)
