"""`bursar backup` and `bursar restore`: everything into one file, and out of it again.

Owns what the commands take, where the file goes, and what is printed. Must not know what is in a
backup, or what a restore makes of it; `service.backup` does.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli import failures, output
from bursar.cli.session import Session, quiet_logs

if TYPE_CHECKING:
    from bursar.config import Settings
    from bursar.service.backup import Restored
    from bursar.service.verify import Report
    from bursar.store.backup.archives import Written
    from bursar.store.database import Database

_SAY_EVERY_S: Final = 2.0
_SHOWN: Final = 20


def backup(
    session: Session,
    target: Annotated[
        Path, typer.Argument(metavar="FILE_OR_DIR", help="A new file, or a folder for one.")
    ],
) -> None:
    """Copy everything into one file, beside running servers.

    It is the state of one moment, the same format for SQLite and PostgreSQL, and readable by you
    alone: it has no secret in clear, but what secrets are checked against.

    \b
    bursar backup /var/backups
    bursar backup before-upgrade.bursar
    """

    async def work(database: "Database") -> "tuple[Path, int, Written]":
        from bursar.service import backup

        async with database.read() as tx:
            taken_ms = database.clock_ms()
            path = _place(target, taken_ms)
            written = await backup.back_up(tx, path=path, taken_ms=taken_ms, report=_progress())
        return path, taken_ms, written

    path, taken_ms, written = session.run(work)
    session.out.show(
        {
            "file": str(path),
            "taken_at": output.format_moment(taken_ms),
            "bytes": written.size_bytes,
            "sha256": written.sha256,
            "rows": written.rows,
        }
    )


def restore(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What bursar backup has made.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Drop the installation that is there.")
    ] = False,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over", help="The original is gone: settle its servers' journals here."
        ),
    ] = False,
) -> None:
    """Fill an empty database from a backup, and prove its books.

    All or nothing. What servers had leased or were doing when the backup was made is void here.
    Exit code 1: the books are not right; they were not when the backup was made.

    \b
    bursar restore /var/backups/bursar-2026-11-21T12-00-00Z.bursar
    BURSAR_DATABASE_URL=postgresql+asyncpg://… bursar restore before-upgrade.bursar
    """
    from bursar import bootstrap

    quiet_logs()
    found = session.settings()
    found.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with bootstrap.owning(found):
        restored, report = asyncio.run(_restore(found, file, replace, take_over))
    if not session.out.is_json:
        for difference in report.differences[:_SHOWN]:
            output.say(str(difference))
    session.out.show(_shape(file, restored, report))
    if report.differences:
        raise typer.Exit(failures.FOUND)


async def _restore(
    found: "Settings", file: Path, replaces: bool, takes_over: bool
) -> "tuple[Restored, Report]":
    from bursar import bootstrap
    from bursar.service import backup, verify

    database = bootstrap.open_database(found)
    try:
        async with database.write() as tx:
            restored = await backup.restore(
                tx,
                path=file,
                replaces=replaces,
                takes_over=takes_over,
                alive_s=found.lease_ttl_s,
                report=_progress(),
            )
        async with database.read() as tx:
            return restored, await verify.verify(tx, now_ms=database.clock_ms())
    finally:
        await database.close()


def _place(target: Path, taken_ms: int) -> Path:
    """The file to write: in a folder it is named by its moment."""
    if not target.is_dir():
        return target
    moment = (output.format_moment(taken_ms) or "").replace(":", "-")
    return target / f"bursar-{moment}.bursar"


def _progress() -> Callable[[str, int], None]:
    """Say how far it is, now and then."""
    said_s = time.monotonic()

    def report(table: str, count: int) -> None:
        nonlocal said_s
        if time.monotonic() - said_s >= _SAY_EVERY_S:
            said_s = time.monotonic()
            output.say(f"{table}: {count} rows")

    return report


def _shape(file: Path, restored: "Restored", report: "Report") -> dict[str, Any]:
    return {
        "file": str(file),
        "taken_at": output.format_moment(restored.header.taken_ms),
        "rows": restored.rows,
        "leases_voided": restored.voided.leases,
        "workers_closed": restored.voided.workers,
        "is_right": not report.differences,
        "difference_count": len(report.differences),
    }
