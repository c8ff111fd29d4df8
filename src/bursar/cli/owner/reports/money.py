"""`bursar status`, `bursar balance` and `bursar billing`: where an account stands.

Owns what the commands take and show.
"""

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli import charts, output
from bursar.cli.owner.shapes import shape, shapes, usd
from bursar.cli.places import whose
from bursar.cli.places.owner import Owner

if TYPE_CHECKING:
    from bursar.sdk.resources.billing import Bill

_COLUMNS: Final = ("at", "kind", "amount", "key_id", "model", "note")
_LIMIT_COLUMNS: Final = ("name", "limit", "used", "left", "resets_at")
_PRODUCT_COLUMNS: Final = ("product", "events", "quantities", "cost", "bar")
_MANY: Final = 10_000
_PAGE: Final = 1_000


def status(owner: Owner) -> None:
    """Show where commands go, whose account that is, and what it has.

    With an inference key: that key's own limits. With an operator's: that it is one.

    \b
    bursar status
    bursar status --profile work --json
    """
    place = _place(owner)
    account, key = whose.find(owner.client)
    if account is not None:
        owner.out.show(
            {**place, "account": shape(account)} if owner.out.is_json else _flat(place, account)
        )
    elif key is not None:
        _show_own_key(owner, place, shape(key))
    else:
        owner.out.show({**place, "kind": "operator"})
        output.say("An operator's key is for programs: no command takes it.")


def balance(owner: Owner) -> None:
    """Show what the account has left, in USD.

    \b
    bursar balance
    bursar balance --json | jq -r .balance
    """
    found = owner.client.billing.balance()
    if owner.out.is_json:
        owner.out.show(shape(found))
    else:
        output.write(f"{usd(found.balance)} USD")


def billing(
    owner: Owner,
    month: Annotated[
        str | None, typer.Option(metavar="YYYY-MM", help="Which month; absent: the present one.")
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, max=_MANY, help="How many movements, newest first.")
    ] = 20,
) -> None:
    """Show what a month has cost by product, the balance, and what moved it.

    Movements are credit, corrections and the cost of each request, of whatever month.

    \b
    bursar billing
    bursar billing --month 2026-10 --json | jq -r .month.total_cost
    bursar billing --count 1000 --json | jq '.transactions[] | select(.kind != "usage")'
    """
    found = owner.client.billing
    bill = found.month(month)
    left = found.balance().balance
    rows = shapes(islice(found.transactions(page_size=min(count, _PAGE)), count))
    if owner.out.is_json:
        owner.out.show({"balance": usd(left), "month": shape(bill), "transactions": rows})
        return
    _show_products(owner, bill)
    owner.out.show_list("transactions", rows, columns=_COLUMNS, empty="Nothing has moved yet.")
    output.say(
        f"{bill.first_day} to {bill.last_day}: {usd(bill.total_cost)} USD, plan {bill.plan_name}; "
        f"the invoice comes on {bill.next_invoice_on}. {usd(left)} USD are left."
    )


def _show_products(owner: Owner, bill: "Bill") -> None:
    drawn = charts.bars([each.cost for each in bill.products])
    rows = [
        {
            "product": each.product,
            "events": each.events,
            "quantities": dict(each.quantities),
            "cost": usd(each.cost),
            "bar": bar,
        }
        for each, bar in zip(bill.products, drawn, strict=True)
    ]
    owner.out.show_list("products", rows, columns=_PRODUCT_COLUMNS, empty="Nothing was used.")


def _place(owner: Owner) -> dict[str, Any]:
    if not owner.is_server:
        data_dir = owner.host().settings().data_dir
        return {"place": "installation", "data_dir": str(data_dir)}
    return {"place": "server", "url": owner.client.options.base_url}


def _flat(place: dict[str, Any], account: Any) -> dict[str, Any]:
    shown = shape(account)
    return {
        **place,
        "account": f"{shown['id']} {shown['name']}",
        **{name: value for name, value in shown.items() if name not in ("id", "name")},
    }


def _show_own_key(owner: Owner, place: dict[str, Any], key: dict[str, Any]) -> None:
    if owner.out.is_json:
        owner.out.show({**place, "key": key})
        return
    limits = key.pop("limits")
    owner.out.show({**place, "key": f"{key['id']} {key['name']}", "expires_at": key["expires_at"]})
    owner.out.show_list("limits", limits, columns=_LIMIT_COLUMNS, empty="It has no limits.")
