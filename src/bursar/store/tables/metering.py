"""The table of metered events: the ids by which an account's reports of use are taken once.

Owns its name, types and key, in the conventions of all tables. What was used and what it cost is in
the usage rows, whose own key has their moment in it, which a report sent again may not.
"""

from typing import Final

from sqlalchemy import PrimaryKeyConstraint

from bursar.store.tables.columns import integer, table, text

metered_events: Final = table(
    "metered_events",
    integer("account_id"),
    text("event_id"),
    integer("at_ms"),
    PrimaryKeyConstraint("account_id", "event_id", name="metered_events_pk"),
)
