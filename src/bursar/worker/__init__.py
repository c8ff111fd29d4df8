"""The data plane's memory: verified keys, leases, holds, the journal, and the road to the ledger.

Decides about requests without waiting for a database. Must not know HTTP, and hears of the control
plane only through the store's change feed.
"""
