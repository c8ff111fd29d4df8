"""`bursar doctor`: whether this installation can be trusted with traffic and money.

Owns the questions, what counts as a bad answer, and what to do about it. Changes nothing. Must not
know how anything it asks about works.
"""

import asyncio
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple
from urllib.parse import urlsplit

import typer

from bursar.cli import failures, output, server
from bursar.cli.session import Session, quiet_logs

if TYPE_CHECKING:
    from bursar.config import Settings, UpstreamSettings
    from bursar.store.database import Database

OK, WARN, FAIL = "ok", "warn", "fail"
_OLDEST_PYTHON: Final = (3, 11)
_OLDEST_POSTGRESQL: Final = 150_000
_FEWEST_FILES: Final = 4_096
_LEAST_FREE_BYTES: Final = 1_000_000_000
_MOST_SKEW_MS: Final = 2_000
_EARLIEST_S: Final = 1_760_000_000
_CONNECT_S: Final = 3.0
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class Check(NamedTuple):
    """One answer: ok, warn or fail, and what to do about it."""

    status: str
    name: str
    message: str
    advice: str = ""


def doctor(
    session: Session,
    connect: Annotated[
        bool, typer.Option("--connect", help="Also open a connection to each upstream.")
    ] = False,
) -> None:
    """Check this installation.

    Each line says what is right or wrong, and what to do about it. Exit code 1 if a check fails;
    a warning is no failure.

    \b
    bursar doctor
    bursar doctor --connect --json
    """
    from bursar.config import ConfigError

    quiet_logs()
    checks = list(_check_program())
    try:
        found = session.settings()
    except ConfigError as error:
        checks.append(Check(FAIL, "settings", str(error), "Correct it; nothing runs before."))
    else:
        checks += _check_settings(found)
        checks += _check_folder(found.data_dir)
        checks += _check_journals(found.journal_dir)
        checks += _check_upstreams(found, connect=connect)
        checks += asyncio.run(_check_database(found))
    _show(session, checks)
    if any(check.status == FAIL for check in checks):
        raise typer.Exit(failures.FOUND)


def _check_program() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _OLDEST_PYTHON:
        yield Check(FAIL, "python", f"Python {version} is too old.", "Install Python 3.11.")
    else:
        yield Check(OK, "python", f"Python {version}")
    if time.time() < _EARLIEST_S:
        yield Check(FAIL, "clock", "The clock is years behind.", "Set it, and run an NTP client.")
    else:
        yield Check(OK, "clock", output.format_moment(int(time.time() * 1000)) or "")
    yield _check_files()


def _check_files() -> Check:
    import resource

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY or files >= _FEWEST_FILES:
        return Check(OK, "open files", f"up to {files}")
    advice = f"Each caller and each upstream call takes one: ulimit -n {16 * _FEWEST_FILES}"
    return Check(WARN, "open files", f"Only {files} are allowed.", advice)


def _check_settings(found: "Settings") -> Iterator[Check]:
    from bursar.config import ENV_PREFIX, OTHER_ENV

    known = {f"{ENV_PREFIX}{name.upper()}" for name in type(found).model_fields} | OTHER_ENV
    for name in sorted(os.environ):
        if name.startswith(ENV_PREFIX) and name not in known:
            advice = "Nothing reads it: correct its name or unset it."
            yield Check(WARN, "settings", f"There is no setting {name}.", advice)
    warning = server.exposure(found)
    if warning:
        yield Check(WARN, "address", warning)
    yield Check(OK, "settings", f"{found.url}, {len(found.upstreams)} upstreams")


def _check_folder(folder: Path) -> Iterator[Check]:
    name = "data directory"
    if not folder.is_dir():
        yield Check(FAIL, name, f"{folder} does not exist.", "Make it with: bursar init")
        return
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield Check(FAIL, name, f"{folder} cannot be written.", "Run Bursar as its owner.")
        return
    if folder.stat().st_mode & _OTHERS:
        advice = f"Close it: chmod 700 {folder}"
        yield Check(WARN, name, f"{folder} is open to other users of this machine.", advice)
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize
    if free < _LEAST_FREE_BYTES:
        advice = "Make room: without it, requests are refused."
        yield Check(WARN, "disk", f"Only {free // 1_000_000} MB are free.", advice)
    yield Check(OK, name, str(folder))


def _check_journals(folder: Path) -> Iterator[Check]:
    from bursar.worker import journal

    for path in sorted(folder.glob("*.quarantine")):
        count = path.read_bytes().count(b"\n")
        advice = f"Read {path}; each line says why. Book them by hand, then move the file away."
        yield Check(FAIL, "quarantine", f"{count} charges could not be settled.", advice)
    charges = 0
    try:
        for dead in journal.find_dead(folder):
            with dead:
                charges += sum(1 for _ in dead.charges())
    except journal.JournalDamaged as error:
        advice = "Keep a copy of the folder, and restore the file from a backup."
        yield Check(FAIL, "journals", f"A journal is damaged: {error}.", advice)
        return
    if charges:
        message = f"A server that died left up to {charges} charges that are not settled."
        yield Check(WARN, "journals", message, "Start the server on this machine: it settles them.")
    else:
        yield Check(OK, "journals", "nothing is left behind")


def _check_upstreams(found: "Settings", *, connect: bool) -> Iterator[Check]:
    from bursar.config import ConfigError

    for upstream in found.upstreams:
        name = f"upstream {upstream.name}"
        try:
            upstream.read_api_key()
        except ConfigError as error:
            yield Check(FAIL, name, str(error), "The server does not start without it.")
            continue
        yield _connect(name, upstream) if connect else Check(OK, name, upstream.base_url)


def _connect(name: str, upstream: "UpstreamSettings") -> Check:
    target = urlsplit(upstream.proxy or upstream.base_url)
    port = target.port or (443 if target.scheme == "https" else 80)
    try:
        with socket.create_connection((target.hostname or "", port), timeout=_CONNECT_S):
            return Check(OK, name, f"{target.hostname} port {port} answers")
    except OSError as error:
        message = f"{target.hostname} port {port}: {error.strerror or error}."
        return Check(FAIL, name, message, "Is it running, and is base_url right?")


async def _check_database(found: "Settings") -> list[Check]:
    from bursar import bootstrap
    from bursar.store.database import UNAVAILABLE

    database = bootstrap.open_database(found)
    try:
        if database.path is not None and not database.path.exists():
            message = f"{database.path} does not exist."
            return [Check(FAIL, "database", message, "Make it with: bursar init")]
        return [check async for check in _examine(database, found)]
    except UNAVAILABLE as error:
        failure = failures.describe(error)
        advice = "Is it running, and is database_url right?"
        return [Check(FAIL, "database", failure.message, advice)]
    finally:
        await database.close()


async def _examine(database: "Database", found: "Settings") -> Any:
    from bursar.store import migrations
    from bursar.store.migrations import health

    state = await health.examine(database)
    if database.path is None and state.version < _OLDEST_POSTGRESQL:
        yield Check(FAIL, "database", "PostgreSQL is older than 15.", "Upgrade it.")
    if not state.is_durable:
        advice = "Set fsync = on and synchronous_commit = on: a power cut would take charges back."
        yield Check(FAIL, "durability", "A commit does not wait for the disk.", advice)
    if state.now_ms is not None:
        skew_ms = abs(state.now_ms - int(time.time() * 1000))
        if skew_ms > _MOST_SKEW_MS:
            message = f"This clock and the database's differ by {skew_ms} ms."
            yield Check(WARN, "clock", message, "Run an NTP client on both machines.")
    revision = await migrations.current(database)
    if revision != migrations.head():
        message = f"The schema is {revision or 'missing'}, this program's is {migrations.head()}."
        yield Check(FAIL, "schema", message, "Start the server once, or run: bursar init")
        return
    yield Check(OK, "database", f"{database.dialect}, schema {revision}")
    if database.has_wall and found.row_security != "off":
        yield await _check_walls(database, is_required=found.row_security == "required")
    async for check in _check_prices(database, found):
        yield check


async def _check_walls(database: "Database", *, is_required: bool) -> Check:
    from bursar.store.migrations import walls

    gap = await walls.find_gap(database)
    if gap is None:
        return Check(OK, "row security", "PostgreSQL keeps accounts apart, too")
    advice = "As the database's administrator: CREATE ROLE bursar_tenant NOLOGIN; and GRANT "
    advice += "bursar_tenant TO the role in database_url; then start the server again."
    return Check(FAIL if is_required else WARN, "row security", f"It is missing: {gap}.", advice)


async def _check_prices(database: "Database", found: "Settings") -> Any:
    from bursar.service import prices

    async with database.read() as tx:
        current = await prices.list_current(tx, at_ms=database.clock_ms())
    priced = {price.model for price in current}
    wanted = {
        model
        for upstream in found.upstreams
        for model in (*upstream.models, *upstream.rename)
        if not set(model) & {"*", "?"}
    }
    missing = sorted(wanted - priced)
    if missing:
        advice = "Their calls are refused. Add prices: bursar prices load FILE"
        yield Check(WARN, "prices", f"Without a price: {', '.join(missing)}.", advice)
    yield Check(OK, "prices", f"{len(current)} in force")


def _show(session: Session, checks: list[Check]) -> None:
    if session.out.is_json:
        is_fine = all(check.status != FAIL for check in checks)
        session.out.show({"is_fine": is_fine, "checks": [check._asdict() for check in checks]})
        return
    for check in checks:
        output.write(f"{check.status:<5} {check.name}: {check.message}")
        if check.advice:
            output.write(f"      {check.advice}")
