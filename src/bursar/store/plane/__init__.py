"""What the data plane says to the database: leases, settlement, workers.

The only hand-written SQL of the product, one text a database, because these few statements carry
every charge. The rest of `store` is SQLAlchemy Core.
"""
