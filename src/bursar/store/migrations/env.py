"""What Alembic runs around the migrations: on the connection and in the transaction it is given.

Owns nothing else: `bursar.store.migrations.upgrade` opens the transaction and ends it.
"""

from alembic import context

from bursar.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
