"""The application of the dialect's control part. Must not know nouns."""

from collections.abc import Callable

from starlette.applications import Starlette

from bursar.dialects import application
from bursar.dialects.venice import errors, routes
from bursar.dialects.venice.models import Served
from bursar.edge.calls import Plane


def create(
    plane: Plane,
    *,
    served: Served,
    shows_totals: bool = True,
    count_gone: Callable[[], None] = lambda: None,
) -> Starlette:
    """Return the dialect's control part as an ASGI application, for `routes.make`'s arguments.

    `count_gone` is called for each caller who left before the request was complete.
    """
    return application.create(
        plane,
        prefix=routes.PREFIX,
        routes=routes.make(served=served, shows_totals=shows_totals),
        words=errors,
        count_gone=count_gone,
    )
