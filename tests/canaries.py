"""Looks for secrets where none may be, in the whole test run, and fails the test that left one.

Every secret of Bursar can be told from other text: a key by its prefix and its checksum, tokens by
their forms. So whatever the tests do, the files of their databases (and their logs of changes, and
PostgreSQL's own log) are searched when they are done with them, what a test has written to its
output is searched when it ends, and every answer to a client is searched as it comes, unless it is
of a route that shows a secret once. Owns the search; what is searched is handed in.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bursar.core import secrets

_KEY = re.compile(rb"b[spo]k_[0-9A-Za-z]{36}(?![0-9A-Za-z])")
_TOKEN = re.compile(rb"b[rf]t_[0-9a-f]{64}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}", re.ASCII)
# A letter's token is in the log where there is no mail server: that is where it is read.
_LINK = re.compile(rb"blt_[0-9a-f]{32}")
# What is made or traded here is shown here, once.
_SHOWS = re.compile(
    r"POST (/v1/account/keys(/bulk|/\d+/rotate)?|/v1/operator/accounts/\d+/keys"
    r"|/v1/(auth|token)/.*|/api/v1/api_keys"
    # What a model says is its own affair, and the sandbox says what it is told.
    r"|(/api)?/v1/(chat/completions|embeddings))"
)
_MOST_SHOWN = 5


class Leaked(AssertionError):
    """A secret is where none may be."""


def find(data: Any, *, links: bool = True) -> list[bytes]:
    """The secrets in these bytes; a key with a wrong checksum is none."""
    found = [key for key in _KEY.findall(data) if secrets.parse(key) is not None]
    found += _TOKEN.findall(data)
    return found + (_LINK.findall(data) if links else [])


def search(paths: Iterable[Path]) -> None:
    """Search files; raises Leaked with where secrets were, and how they begin."""
    found = []
    for path in paths:
        if not path.is_file() or path.stat().st_size == 0:
            continue
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            is_log = path.suffix == ".log"
            found += [f"{path.name}: {each[:12]!r}" for each in find(data, links=not is_log)]
    if found:
        raise Leaked(f"{len(found)} secrets, as {found[:_MOST_SHOWN]}")


def sqlite_files(path: Path) -> Iterator[Path]:
    """A database file, what is not in it yet, and the journals of its workers."""
    yield from path.parent.glob(f"{path.name}*")
    yield from path.parent.glob("journal/*")


def postgres_files(data_folder: Path) -> Iterator[Path]:
    """Tables and indexes, the log of changes, and what the server has said."""
    yield from data_folder.glob("base/*/*")
    yield from data_folder.glob("pg_wal/*")
    yield from data_folder.parent.glob("*.log")


def check_answer(request: httpx2.Request, response: httpx2.Response) -> None:
    """Search one answer, body and headers; raises Leaked."""
    if _SHOWS.fullmatch(f"{request.method} {request.url.path}"):
        return
    content = response.content if response.is_closed else b""
    headers = b"\n".join(value for _, value in response.headers.raw)
    found = find(content + b"\n" + headers)
    if found:
        shown = [each[:12] for each in found[:_MOST_SHOWN]]
        raise Leaked(f"{request.method} {request.url} answered with secrets: {shown}")


def watch_answers() -> None:
    """Have every answer to a client of this process searched."""
    blocking, awaited = httpx2.Client.send, httpx2.AsyncClient.send

    def send(self: Any, request: Any, **options: Any) -> Any:
        response = blocking(self, request, **options)
        check_answer(request, response)
        return response

    async def send_awaited(self: Any, request: Any, **options: Any) -> Any:
        response = await awaited(self, request, **options)
        check_answer(request, response)
        return response

    httpx2.Client.send = send  # type: ignore[method-assign]
    httpx2.AsyncClient.send = send_awaited  # type: ignore[method-assign]


def check_report(report: pytest.TestReport) -> None:
    """Fail a test that has written a secret to its output, where our own log goes."""
    said = "\n".join((report.capstdout, report.capstderr))
    found = find(said.encode("utf-8", "replace"), links=False)
    if found and report.outcome == "passed":
        report.outcome = "failed"
        shown = [each[:12] for each in found[:_MOST_SHOWN]]
        report.longrepr = f"The test's output has secrets in it: {shown}"
