"""Bursar: the account plane of an AI API, and its Python SDK.

    from bursar import Bursar

    client = Bursar(api_key="bpk_…", base_url="https://bursar.example.com")
    print(client.billing.balance().balance)

Owns the names that a program may import from `bursar`, and the version. It knows nothing of the
server and imports nothing until a name is used: it works where only the base install is.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from bursar.version import __version__

if TYPE_CHECKING:
    from bursar.sdk.calls import RawResponse
    from bursar.sdk.client import AsyncBursar, Bursar
    from bursar.sdk.errors import (
        BursarError,
        ConfigurationError,
        Conflict,
        ConnectionFailed,
        Forbidden,
        InsufficientCredit,
        InvalidAnswer,
        InvalidArgument,
        InvalidRequest,
        MissingDependency,
        NotFound,
        RateLimited,
        Refused,
        ServerFailed,
        StreamCut,
        TimedOut,
        TlsFailed,
        Unauthenticated,
    )
    from bursar.sdk.values import UNSET

__all__ = [
    "UNSET",
    "AsyncBursar",
    "Bursar",
    "BursarError",
    "ConfigurationError",
    "Conflict",
    "ConnectionFailed",
    "Forbidden",
    "InsufficientCredit",
    "InvalidAnswer",
    "InvalidArgument",
    "InvalidRequest",
    "MissingDependency",
    "NotFound",
    "RateLimited",
    "RawResponse",
    "Refused",
    "ServerFailed",
    "StreamCut",
    "TimedOut",
    "TlsFailed",
    "Unauthenticated",
    "__version__",
]

# Where a name lives that is not an error.
_HOMES: Final = {
    "AsyncBursar": "client",
    "Bursar": "client",
    "RawResponse": "calls",
    "UNSET": "values",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"bursar.sdk.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return [*__all__]
