"""The clients: `Bursar`, whose methods block, and `AsyncBursar`, whose methods are awaited.

Owns what both are made of: options, a connection, and the resources. A resource is imported when
it is first used.
"""

from dataclasses import replace
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

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
    from bursar.sdk.resources.audit import AsyncAudit, Audit
    from bursar.sdk.resources.billing import AsyncBilling, Billing
    from bursar.sdk.resources.chat import AsyncChat, Chat
    from bursar.sdk.resources.limits import AsyncLimits, Limits
    from bursar.sdk.resources.meter import AsyncMeter, Meter
    from bursar.sdk.resources.models import AsyncModels, Models
    from bursar.sdk.resources.operator import AsyncOperator, Operator
    from bursar.sdk.resources.people.auth import AsyncAuth, Auth
    from bursar.sdk.resources.people.users import AsyncUsers, Users
    from bursar.sdk.resources.projects import AsyncProjects, Projects
    from bursar.sdk.resources.usage import AsyncUsage, Usage
    from bursar.sdk.sessions.renewal import Session
    from bursar.sdk.sessions.stores import Keep

R = TypeVar("R")
C = TypeVar("C", Connection, AsyncConnection)


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


class Client(Generic[C]):
    """What both clients are: options, and connections that further clients may share."""

    options: Options
    connection: C

    def with_options(
        self,
        *,
        api_key: str | None = None,
        timeout_s: float | Unset | None = UNSET,
        max_retries: int | None = None,
    ) -> "Self":
        """Return a client with other options, on the same connections."""
        changed = self.options
        if api_key is not None:
            changed = replace(changed, api_key=configuration.clean_key(api_key), session=None)
        if not isinstance(timeout_s, Unset):
            changed = replace(changed, timeout_s=timeout_s)
        if max_retries is not None:
            changed = replace(changed, max_retries=max_retries)
        return _made(type(self), changed, self.connection)

    def __repr__(self) -> str:
        who = "signed in" if self.options.session else f"api_key={self.options.api_key!r}"
        return f"{type(self).__name__}({self.options.base_url!r}, {who})"


class Bursar(Client[Connection]):
    """A Bursar server, as the holder of one key sees it; methods block. Safe to share by threads.

    Without arguments the environment says where it is and which key to use (`BURSAR_BASE_URL`,
    `BURSAR_API_KEY`), else a profile (`BURSAR_PROFILE`) or who has signed in under its name.
    `timeout_s` is what a step of an answer may take; what fails in passing is tried `max_retries`
    times more. An `http_client` that is handed in is used as it is and stays open.
    """

    account: "Lazy[Account]" = Lazy("account", "Account")
    alerts: "Lazy[Alerts]" = Lazy("alerts", "Alerts")
    api_keys: "Lazy[ApiKeys]" = Lazy("api_keys", "ApiKeys")
    audit: "Lazy[Audit]" = Lazy("audit", "Audit")
    auth: "Lazy[Auth]" = Lazy("people.auth", "Auth")
    billing: "Lazy[Billing]" = Lazy("billing", "Billing")
    chat: "Lazy[Chat]" = Lazy("chat", "Chat")
    limits: "Lazy[Limits]" = Lazy("limits", "Limits")
    meter: "Lazy[Meter]" = Lazy("meter", "Meter")
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
        self.options: Options = _options(api_key, base_url, profile, timeout_s, max_retries)
        self.connection: Connection = Connection(http_client)

    @classmethod
    def log_in(
        cls,
        email: str,
        password: str,
        *,
        code: str | None = None,
        account_id: int | None = None,
        keep: "Keep | None" = None,
        base_url: str | None = None,
        profile: str | None = None,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        max_retries: int = DEFAULT_MAX_RETRIES,
        http_client: "httpx2.Client | None" = None,
    ) -> "Self":
        """Sign in, and return a client that renews its tokens by itself before they expire.

        `code` is one of the second factor, `account_id` the account if not your first. `keep` has
        it last: in a file of yours, or in the system's keyring, under the profile's name; then
        `Bursar()` without a key finds it, until `log_out`. Raises Unauthenticated, whose code is
        `second_factor_required` where `code` is needed too, and RateLimited.
        """
        from bursar.sdk.sessions import renewal

        url, name = configuration.find_url(base_url=base_url, profile=profile)
        options = Options(url, None, timeout_s, max_retries)
        connection = Connection(http_client)
        asked = renewal.Asked(email, password, code, account_id)
        try:
            session = connection.drive(renewal.sign_in(asked, options, name=name, keep=keep))
        except BaseException:
            connection.close()
            raise
        return _made(cls, replace(options, session=session), connection)

    def log_out(self) -> None:
        """Sign out: what was kept is forgotten in any case, and the session ends at the server.

        Raises ConfigurationError for a client that uses a key.
        """
        self.connection.drive(_session(self.options).end(self.options))

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


class AsyncBursar(Client[AsyncConnection]):
    """A Bursar server, as the holder of one key sees it; methods are awaited. One event loop's.

    Arguments are those of `Bursar`.
    """

    account: "Lazy[AsyncAccount]" = Lazy("account", "AsyncAccount")
    alerts: "Lazy[AsyncAlerts]" = Lazy("alerts", "AsyncAlerts")
    api_keys: "Lazy[AsyncApiKeys]" = Lazy("api_keys", "AsyncApiKeys")
    audit: "Lazy[AsyncAudit]" = Lazy("audit", "AsyncAudit")
    auth: "Lazy[AsyncAuth]" = Lazy("people.auth", "AsyncAuth")
    billing: "Lazy[AsyncBilling]" = Lazy("billing", "AsyncBilling")
    chat: "Lazy[AsyncChat]" = Lazy("chat", "AsyncChat")
    limits: "Lazy[AsyncLimits]" = Lazy("limits", "AsyncLimits")
    meter: "Lazy[AsyncMeter]" = Lazy("meter", "AsyncMeter")
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
        self.options: Options = _options(api_key, base_url, profile, timeout_s, max_retries)
        self.connection: AsyncConnection = AsyncConnection(http_client)

    @classmethod
    async def log_in(
        cls,
        email: str,
        password: str,
        *,
        code: str | None = None,
        account_id: int | None = None,
        keep: "Keep | None" = None,
        base_url: str | None = None,
        profile: str | None = None,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        max_retries: int = DEFAULT_MAX_RETRIES,
        http_client: "httpx2.AsyncClient | None" = None,
    ) -> "Self":
        """Sign in, and return a client that goes on by itself, as `Bursar.log_in` does."""
        from bursar.sdk.sessions import renewal

        url, name = configuration.find_url(base_url=base_url, profile=profile)
        options = Options(url, None, timeout_s, max_retries)
        connection = AsyncConnection(http_client)
        asked = renewal.Asked(email, password, code, account_id)
        try:
            session = await connection.drive(renewal.sign_in(asked, options, name=name, keep=keep))
        except BaseException:
            await connection.close()
            raise
        return _made(cls, replace(options, session=session), connection)

    async def log_out(self) -> None:
        """Sign out: what was kept is forgotten in any case, and the session ends at the server.

        Raises ConfigurationError for a client that uses a key.
        """
        await self.connection.drive(_session(self.options).end(self.options))

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


K = TypeVar("K", bound=Client[Any])


def _made(kind: type[K], options: Options, connection: Any) -> K:
    """A client without a look at arguments, environment and profiles."""
    client = object.__new__(kind)
    client.options = options
    client.connection = connection
    return client


def _options(
    api_key: str | None,
    base_url: str | None,
    profile: str | None,
    timeout_s: float | None,
    max_retries: int,
) -> Options:
    found = configuration.find(api_key=api_key, base_url=base_url, profile=profile)
    session = None
    if found.sign_in is not None:
        from bursar.sdk.sessions.renewal import Session

        session = Session(found.sign_in, found.base_url)
    return Options(found.base_url, found.api_key, timeout_s, max_retries, session)


def _session(options: Options) -> "Session":
    if options.session is None:
        raise ConfigurationError("Nobody has signed in with this client: it uses a key, or none.")
    return options.session
