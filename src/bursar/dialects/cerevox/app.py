"""The application of the dialect. Must not know nouns."""

from collections.abc import Callable

from starlette.applications import Starlette

from bursar.dialects import application
from bursar.dialects.cerevox import errors, routes
from bursar.edge.calls import Plane


def create(plane: Plane, *, count_gone: Callable[[], None] = lambda: None) -> Starlette:
    """Return the dialect as an ASGI application.

    `count_gone` is called for each caller who left before the request was complete.
    """
    return application.create(
        plane, prefix=routes.PREFIX, routes=routes.ROUTES, words=errors, count_gone=count_gone
    )
