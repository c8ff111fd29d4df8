"""`bursar audit`: who changed what in an account, from where, and what it was before.

Owns what the command takes and how entries are laid out.
"""

from itertools import islice
from typing import Annotated, Any, Final

import typer

from bursar.cli import output
from bursar.cli.owner import options
from bursar.cli.owner.options import From, To
from bursar.cli.owner.shapes import shape, shapes
from bursar.cli.places.owner import Owner

_COLUMNS: Final = ("at", "actor", "action", "target", "address", "changed")
_MANY: Final = 100_000
_PAGE: Final = 1_000


def audit(
    owner: Owner,
    action: Annotated[
        str | None, typer.Option(help="Only this: key.create, or key for all of them.")
    ] = None,
    actor: Annotated[
        str | None, typer.Option(metavar="WHO", help="Only what they did: user:5, key:2.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="WHAT", help="Only what was done to it: key:12.")
    ] = None,
    since: From = None,
    until: To = None,
    count: Annotated[int, typer.Option(min=1, max=_MANY, help="How many, newest first.")] = 50,
) -> None:
    """Show who changed what in the account, from where, and what it was before.

    The head is the end of the log. Keep it elsewhere: it proves later that nothing was cut off.

    \b
    bursar audit
    bursar audit --action key --from 7d
    bursar audit --target key:12 --json | jq -c '.events[] | [.at, .actor, .before, .after]'
    """
    log = owner.client.audit
    found = log.list(
        action=action,
        actor=actor,
        target=target,
        start=options.parse_since(since, param="from"),
        end=options.parse_since(until, param="to"),
        page_size=min(count, _PAGE),
    )
    rows = shapes(islice(found, count))
    head = log.head()
    if owner.out.is_json:
        owner.out.show({"events": rows, "head": shape(head)})
        return
    lines = [{**row, "changed": _changes(row["before"] or {}, row["after"] or {})} for row in rows]
    owner.out.show_list("events", lines, columns=_COLUMNS, empty="Nothing of this was done.")
    if head is not None:
        output.say(f"The head is entry {head.id}: {head.hash}")


def _changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What was and what became of it, name by name."""
    new = {name: value for name, value in after.items() if name not in before}
    return {
        **{name: f"{value} → {after.get(name)}" for name, value in before.items()},
        # What a new thing does not have goes without saying.
        **{name: value for name, value in new.items() if value not in (None, "", [], {})},
    }
