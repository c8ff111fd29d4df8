"""`bursar verify`: whether the books are right.

Owns what is printed of the proof. Must not know what is compared; `service.verify` does.
"""

from typing import TYPE_CHECKING, Any

import typer

from bursar.cli import failures, output
from bursar.cli.session import Session

if TYPE_CHECKING:
    from bursar.service.verify import Difference
    from bursar.store.database import Database


def verify(session: Session) -> None:
    """Prove the books: each figure from the rows behind it.

    Runs beside a running server, in one snapshot. Exit code 0: all figures are right. 1: each one
    that is not is printed.

    \b
    bursar verify
    bursar verify --json
    """
    is_json = session.out.is_json

    async def work(database: "Database") -> tuple[dict[str, int], list[dict[str, Any]], int]:
        from bursar.service import verify

        kept: list[dict[str, Any]] = []
        found = 0
        async with database.read() as tx:
            checked = await verify.count_rows(tx)
            async for difference in verify.find_differences(tx, now_ms=database.clock_ms()):
                found += 1
                if not is_json:
                    output.write(str(difference))
                elif len(kept) < verify.MOST_KEPT:
                    kept.append(_shape(difference))
        return checked, kept, found

    checked, differences, found = session.run(work)
    if is_json:
        session.out.show(
            {
                "is_right": found == 0,
                "checked": checked,
                "difference_count": found,
                "differences": differences,
            }
        )
    else:
        rows = ", ".join(f"{count} {name}" for name, count in checked.items())
        output.say(f"Compared {rows}.")
        output.say("The books are right." if found == 0 else f"{found} figures are not right.")
    if found:
        raise typer.Exit(failures.FOUND)


def _shape(difference: "Difference") -> dict[str, Any]:
    return {
        "check": difference.check,
        "account_id": difference.account_id,
        "subject": difference.subject,
        "expected": difference.expected,
        "found": difference.found,
    }
