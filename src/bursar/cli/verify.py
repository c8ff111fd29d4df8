"""`bursar verify`: whether the books are right.

Owns what is printed of the proof. Must not know what is compared; `service.verify` does.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli import failures, output
from bursar.cli.session import Session
from bursar.core.errors import Unreadable

if TYPE_CHECKING:
    from bursar.service.verify import Difference
    from bursar.store.audit.rows import Head
    from bursar.store.database import Database

_MOST_BYTES: Final = 50_000_000
_HASH_BYTES: Final = 32


def verify(
    session: Session,
    heads: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            readable=True,
            help="Ends of audit logs that were noted before: those rows must still be there.",
        ),
    ] = None,
    note_heads: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            help="Note the ends of the audit logs here, if all is right. Keep it elsewhere.",
        ),
    ] = None,
) -> None:
    """Prove the books: each figure from the rows behind it, and that the audit logs are whole.

    Runs beside a running server, in one snapshot. Exit code 0: all figures are right. 1: each one
    that is not is printed.

    \b
    bursar verify
    bursar verify --json
    bursar verify --heads heads.json --note-heads heads.json
    """
    noted = [] if heads is None else _read_heads(heads)
    ends: list[Head] = []
    is_json = session.out.is_json

    async def work(database: "Database") -> tuple[dict[str, int], list[dict[str, Any]], int]:
        from bursar.service import verify

        kept: list[dict[str, Any]] = []
        found = 0
        async with database.read() as tx:
            checked = await verify.count_rows(tx)
            ends.extend(await verify.list_heads(tx))
            now_ms = database.clock_ms()
            async for difference in verify.find_differences(tx, now_ms=now_ms, noted=noted):
                found += 1
                if not is_json:
                    output.write(str(difference))
                elif len(kept) < verify.MOST_KEPT:
                    kept.append(_shape(difference))
        return checked, kept, found

    checked, differences, found = session.run(work)
    _show(session, checked, differences, found)
    if found:
        raise typer.Exit(failures.FOUND)
    if note_heads is not None:
        note_heads.write_text(json.dumps({"heads": [_end(each) for each in ends]}, indent=1))


def _show(
    session: Session, checked: dict[str, int], differences: list[dict[str, Any]], found: int
) -> None:
    if session.out.is_json:
        session.out.show(
            {
                "is_right": found == 0,
                "checked": checked,
                "difference_count": found,
                "differences": differences,
            }
        )
        return
    rows = ", ".join(f"{count} {name}" for name, count in checked.items())
    output.say(f"Compared {rows}.")
    output.say("The books are right." if found == 0 else f"{found} figures are not right.")


def _shape(difference: "Difference") -> dict[str, Any]:
    return {
        "check": difference.check,
        "account_id": difference.account_id,
        "subject": difference.subject,
        "expected": difference.expected,
        "found": difference.found,
        "words": difference.words,
    }


def _end(head: "Head") -> dict[str, Any]:
    return {"account_id": head.account_id, "id": head.id, "hash": head.hash.hex()}


def _read_heads(path: Path) -> "list[Head]":
    from bursar.store.audit.rows import Head

    try:
        with path.open("rb") as opened:
            found = json.loads(opened.read(_MOST_BYTES))["heads"]
        heads = [
            Head(int(each["account_id"]), int(each["id"]), bytes.fromhex(each["hash"]))
            for each in found
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _not_heads(path) from error
    if not all(len(head.hash) == _HASH_BYTES for head in heads):
        raise _not_heads(path)
    return heads


def _not_heads(path: Path) -> Unreadable:
    message = f"{path.name}: these are not the ends of audit logs, as --note-heads writes them."
    return Unreadable("invalid_heads_file", message)
