"""The clients: `Bursar`, whose methods block, and `AsyncBursar`, whose methods are awaited.

Owns what both are made of: options, a connection, and the resources. A resource is imported when
it is first used.
"""

from dataclasses import replace
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, overload

from bursar.sdk import configuration
from bursar.sdk.configuration import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT_S, Options
from bursar.sdk.errors import ConfigurationError
from bursar.sdk.transport import AsyncConnection, Connection
from bursar.sdk.values import UNSET, Unset

if TYPE_CHECKING:
    from typing import Self

    import httpx2

    from bursar.sdk.resources.account import Account, AsyncAccount
    from bursar.sdk.resources.alerts import Alerts, AsyncAlerts
    from bursar.sdk.resources.api_keys import ApiKeys, AsyncApiKeys
    from bursar.sdk.resources.billing import AsyncBilling, Billing
    from bursar.sdk.resources.chat import AsyncChat, Chat
    from bursar.sdk.resources.limits import AsyncLimits, Limits
    from bursar.sdk.resources.models import AsyncModels, Models
    from bursar.sdk.resources.operator import AsyncOperator, Operator
    from bursar.sdk.resources.people.auth import AsyncAuth, Auth
    from bursar.sdk.resources.people.users import AsyncUsers, Users
    from bursar.sdk.resources.projects import AsyncProjects, Projects
    from bursar.sdk.resources.usage import AsyncUsage, Usage

R = TypeVar("R")

_MOST_RETRIES: Final = 10


class Lazy(Generic[R]):
    """A resource of a client: its class is imported, and it is made, when it is first used."""

    def __init__(self, module: str, name: str) -> None:
        self._module = module
        self._name = name
        self._attribute = ""

    def __set_name__(self, owner: type, attribute: str) -> None:
        self._attribute = attribute

    @overload
    def __get__(self, client: None, owner: type) -> "Lazy[R]": ...
    @overload
    def __get__(self, client: object, owner: type) -> R: ...
    def __get__(self, client: Any, owner: type) -> Any:
        if client is None:
            return self
        kind = getattr(import_module(f"bursar.sdk.resources.{self._module}"), self._name)
        made = kind(client.connection, client.options)
        # Found in the instance from now on, before this descriptor.
        vars(client)[self._attribute] = made
        return made


class Bursar:
    """A Bursar server, as the holder of one key sees it; methods block. Safe to share by threads.

    Without arguments the environment says where it is and which key to use (`BURSAR_BASE_URL`,
    `BURSAR_API_KEY`), else a profile (`BURSAR_PROFILE`). `timeout_s` is what a step of an answer
    may take; what fails in passing is tried `max_retries` times more. An `http_client` that is
    handed in is used as it is and stays open.
    """

    account: "Lazy[Account]" = Lazy("account", "Account")
    alerts: "Lazy[Alerts]" = Lazy("alerts", "Alerts")
    api_keys: "Lazy[ApiKeys]" = Lazy("api_keys", "ApiKeys")
    auth: "Lazy[Auth]" = Lazy("people.auth", "Auth")
    billing: "Lazy[Billing]" = Lazy("billing", "Billing")
    chat: "Lazy[Chat]" = Lazy("chat", "Chat")
    limits: "Lazy[Limits]" = Lazy("limits", "Limits")
    models: "Lazy[Models]" = Lazy("models", "Models")
    operator: "Lazy[Operator]" = Lazy("operator", "Operator")
    projects: "Lazy[Projects]" = Lazy("projects", "Projects")
    usage: "Lazy[Usage]" = Lazy("usage", "Usage")
    users: "Lazy[Users]" = Lazy("people.users", "Users")

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        profile: str | None = None,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        max_retries: int = DEFAULT_MAX_RETRIES,
        http_client: "httpx2.Client | None" = None,
    ) -> None:
        self.options = _options(api_key, base_url, profile, timeout_s, max_retries)
        self.connection = Connection(http_client)

    def with_options(
        self,
        *,
        api_key: str | None = None,
        timeout_s: float | Unset | None = UNSET,
        max_retries: int | None = None,
    ) -> "Self":
        """Return a client with other options, on the same connections."""
        made = object.__new__(type(self))
        made.options = _changed(self.options, api_key, timeout_s, max_retries)
        made.connection = self.connection
        return made

    def close(self) -> None:
        """Close the connections, of clients made by `with_options` too."""
        self.connection.close()

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return _shown(self, self.options)


class AsyncBursar:
    """A Bursar server, as the holder of one key sees it; methods are awaited. One event loop's.

    Arguments are those of `Bursar`.
    """

    account: "Lazy[AsyncAccount]" = Lazy("account", "AsyncAccount")
    alerts: "Lazy[AsyncAlerts]" = Lazy("alerts", "AsyncAlerts")
    api_keys: "Lazy[AsyncApiKeys]" = Lazy("api_keys", "AsyncApiKeys")
    auth: "Lazy[AsyncAuth]" = Lazy("people.auth", "AsyncAuth")
    billing: "Lazy[AsyncBilling]" = Lazy("billing", "AsyncBilling")
    chat: "Lazy[AsyncChat]" = Lazy("chat", "AsyncChat")
    limits: "Lazy[AsyncLimits]" = Lazy("limits", "AsyncLimits")
    models: "Lazy[AsyncModels]" = Lazy("models", "AsyncModels")
    operator: "Lazy[AsyncOperator]" = Lazy("operator", "AsyncOperator")
    projects: "Lazy[AsyncProjects]" = Lazy("projects", "AsyncProjects")
    usage: "Lazy[AsyncUsage]" = Lazy("usage", "AsyncUsage")
    users: "Lazy[AsyncUsers]" = Lazy("people.users", "AsyncUsers")

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        profile: str | None = None,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        max_retries: int = DEFAULT_MAX_RETRIES,
        http_client: "httpx2.AsyncClient | None" = None,
    ) -> None:
        self.options = _options(api_key, base_url, profile, timeout_s, max_retries)
        self.connection = AsyncConnection(http_client)

    def with_options(
        self,
        *,
        api_key: str | None = None,
        timeout_s: float | Unset | None = UNSET,
        max_retries: int | None = None,
    ) -> "Self":
        """Return a client with other options, on the same connections."""
        made = object.__new__(type(self))
        made.options = _changed(self.options, api_key, timeout_s, max_retries)
        made.connection = self.connection
        return made

    async def close(self) -> None:
        """Close the connections, of clients made by `with_options` too."""
        await self.connection.close()

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return _shown(self, self.options)


def _options(
    api_key: str | None,
    base_url: str | None,
    profile: str | None,
    timeout_s: float | None,
    max_retries: int,
) -> Options:
    url, key = configuration.find(api_key=api_key, base_url=base_url, profile=profile)
    return Options(url, key, _timeout(timeout_s), _retries(max_retries))


def _changed(
    options: Options, api_key: str | None, timeout_s: float | Unset | None, max_retries: int | None
) -> Options:
    key = options.api_key if api_key is None else configuration.clean_key(api_key)
    return replace(
        options,
        api_key=key,
        timeout_s=options.timeout_s if isinstance(timeout_s, Unset) else _timeout(timeout_s),
        max_retries=options.max_retries if max_retries is None else _retries(max_retries),
    )


def _timeout(timeout_s: float | None) -> float | None:
    if timeout_s is not None and not 0 < timeout_s <= 86_400:
        raise ConfigurationError("timeout_s must be above 0 and at most 86400, or None for none.")
    return timeout_s


def _retries(count: int) -> int:
    if not 0 <= count <= _MOST_RETRIES:
        raise ConfigurationError(f"max_retries must be from 0 to {_MOST_RETRIES}.")
    return count


def _shown(client: Bursar | AsyncBursar, options: Options) -> str:
    return f"{type(client).__name__}({options.base_url!r}, api_key={options.api_key!r})"
