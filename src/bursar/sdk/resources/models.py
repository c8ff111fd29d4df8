"""The models that are served, and their prices. Needs no key."""

from typing import Final

from bursar.sdk import results, values
from bursar.sdk.calls import Call
from bursar.sdk.faces import AsyncResource, Resource, awaited, sync
from bursar.sdk.results import Listing, Result


class Model(Result):
    """A model that can be called; what else the server says of it is kept."""

    id: str


def _list() -> Call[Listing[Model]]:
    """Every model that is served and priced."""
    return Call("GET", "/v1/models", results.read_list(Model, "data"), is_public=True)


def _get(model: str) -> Call[Model]:
    """One of them; raises NotFound."""
    path = values.path("/v1/models", model)
    return Call("GET", path, results.read(Model), is_public=True)


class Models(Resource):
    """Models."""

    list: Final = sync(_list)
    get: Final = sync(_get)


class AsyncModels(AsyncResource):
    """Models."""

    list: Final = awaited(_list)
    get: Final = awaited(_get)
