"""Settings: every knob of an installation, its sentence, its default and where it may be set.

Owns names, bounds and the order of sources: command line, then environment (`BURSAR_*`), then the
file (`bursar.toml` in the data directory, unless another is named), then defaults. Must not know
what the settings are used for. Secrets are named here (an environment variable, a file), never
kept: what is read from them is in nobody's repr.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    SettingsConfigDict,
    SettingsError,
)

from bursar.config.providers import GrantSettings, ProviderSettings
from bursar.config.upstreams import (
    ConfigError,
    HostName,
    Origin,
    Seconds,
    UpstreamSettings,
    Url,
)
from bursar.core import permissions
from bursar.core.errors import Invalid

__all__ = [
    "DATA_DIR",
    "ENV_PREFIX",
    "OTHER_ENV",
    "ConfigError",
    "GrantSettings",
    "ProviderSettings",
    "Settings",
    "UpstreamSettings",
]

ENV_PREFIX = "BURSAR_"
FILE_NAME = "bursar.toml"
DATA_DIR = Path("./bursar-data")
# Read by other parts of the program, or by the tests: not settings, and not mistakes.
OTHER_ENV = frozenset(
    (
        *("BURSAR_API_KEY", "BURSAR_BASE_URL", "BURSAR_PROFILE", "BURSAR_CONFIG", "BURSAR_FP"),
        *("BURSAR_TEST_CACHE", "BURSAR_TEST_POSTGRES", "BURSAR_TEST_SOAK"),
    )
)

_SCHEMES = {
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
}


def _check_network(text: str) -> str:
    try:
        return permissions.clean_network(text)
    except Invalid as error:
        raise ValueError(error.message.removesuffix(".")) from None


def _split(value: object) -> object:
    """A list, as an environment variable has it: with commas."""
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


Network = Annotated[str, AfterValidator(_check_network)]


class Settings(BaseSettings):
    """Every setting of the server and of the command line."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    data_dir: Path = Field(
        default=DATA_DIR,
        description="Where the database file, the workers' journals and the settings file live.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="`postgresql+asyncpg://user:password@host/name` or "
        "`sqlite+aiosqlite:///path`; by default the file `bursar.db` in the data directory.",
    )
    database_connections: int = Field(
        default=16,
        ge=10,
        le=1_000,
        description="The most connections to the database that one process opens; eight are kept "
        "for charges and limits, the rest serve the control API.",
    )
    row_security: Literal["auto", "required", "off"] = Field(
        default="auto",
        description="PostgreSQL's own wall between accounts, beneath Bursar's: `auto` warns where "
        "the role `bursar_tenant` cannot be had, `required` does not start without it.",
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="The address to listen on.")
    port: int = Field(default=8080, ge=0, le=65_535, description="The port; 0 takes a free one.")
    public_url: Url | None = Field(
        default=None, description="How callers reach this server, if not by host and port."
    )
    behind_proxy: bool = Field(
        default=False,
        description="A proxy in front ends TLS: listening on an open address is meant.",
    )
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_split)] = Field(
        default=(),
        description="Addresses and networks of proxies whose `x-forwarded-for` is believed, for "
        "keys that may be used from some networks only; in the environment with commas.",
    )
    allowed_hosts: Annotated[tuple[HostName, ...], NoDecode, BeforeValidator(_split)] = Field(
        default=(),
        description="The names by which callers may call this server, without ports, beside this "
        "machine's own; by default all. In the environment with commas.",
    )
    cors_origins: Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(_split)] = Field(
        default=(),
        description="The origins of web pages that may read answers, as `https://app.example.com`; "
        "by default none. In the environment with commas.",
    )
    secret_key_file: Path | None = Field(
        default=None,
        description="The installation's own secret, 32 random bytes, by default the file "
        "`secret.key` in the data directory; made at the first start. All servers on one database "
        "share it, and a backup of the database does not have it.",
    )
    password_threads: int = Field(
        default=2,
        ge=1,
        le=64,
        description="How many passwords are checked at the same time; each takes 64 MiB.",
    )
    passkey_domain: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$",
        description="The domain that passkeys belong to, by default the public URL's host. Those "
        "of another domain are of no use: choose it once.",
    )
    passkey_origins: Annotated[tuple[Url, ...], NoDecode, BeforeValidator(_split)] = Field(
        default=(),
        description="The pages on which passkeys may be used, as `https://bursar.example.com`, by "
        "default the public URL's; in the environment with commas.",
    )
    sso_providers: tuple[ProviderSettings, ...] = Field(
        default=(), description="Sign-in services (OpenID Connect), a table each."
    )
    mail_host: str | None = Field(
        default=None,
        description="The mail server for invitations and password resets; without one, letters "
        "are printed in the log.",
    )
    mail_port: int = Field(default=587, ge=1, le=65_535, description="The mail server's port.")
    mail_security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="How TLS begins; `none` is for a mail server beside."
    )
    mail_from: str = Field(
        default="bursar@localhost", min_length=3, description="The address that letters come from."
    )
    mail_user: str | None = Field(
        default=None, description="The name to sign in to the mail server with."
    )
    mail_password: SecretStr | None = Field(
        default=None, description="The password to sign in to the mail server with."
    )
    workers: int = Field(
        default=1, ge=1, le=256, description="Server processes; more than one needs PostgreSQL."
    )
    credit: str = Field(
        default="100",
        pattern=r"^\d{1,9}(\.\d{1,9})?$",
        description="Starting credit of the first account, in USD.",
    )
    upstreams: tuple[UpstreamSettings, ...] = Field(
        default=(), description="Model servers, in the order in which they are tried."
    )
    sandbox_enabled: bool = Field(
        default=True, description="Serve the built-in models `sandbox/*`, which need no provider."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto",
        description="Log lines for programs (`json`) or for people (`console`); `auto` is for "
        "people on a terminal.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least important lines to log."
    )
    max_body_bytes: int = Field(
        default=10_000_000,
        ge=1_024,
        le=1_000_000_000,
        description="The largest request that the gateway takes, in bytes.",
    )
    max_control_body_bytes: int = Field(
        default=65_536,
        ge=1_024,
        le=10_000_000,
        description="The largest request that the control API takes, in bytes.",
    )
    activity_cache_s: float = Field(
        default=300.0,
        ge=0,
        le=86_400,
        description="How long an account's activity report may be repeated unchanged, in seconds.",
    )
    venice_totals: bool = Field(
        default=True,
        description="Whether /api/v1/billing/usage-history, asked for without a parameter by a "
        "client that names no media type (as venice-sdk), answers with one object of totals.",
    )
    max_staleness_s: Seconds = Field(
        default=5.0,
        description="How long a worker goes on admitting requests when the database is silent, in "
        "seconds: no deleted key lives longer.",
    )
    lease_ttl_s: Seconds = Field(
        default=30.0, description="After how much silence a worker counts as dead, in seconds."
    )
    lease_idle_s: Seconds = Field(
        default=5.0, description="How long a worker keeps credit that it does not use, in seconds."
    )
    limit_log_days: int = Field(
        default=30, ge=1, le=3_650, description="How long refusals by limits are kept, in days."
    )
    keyring_most: int = Field(
        default=200_000, ge=100, description="The most keys that a worker remembers."
    )
    settle_linger_ms: int = Field(
        default=10, ge=0, le=10_000, description="How long a batch of charges gathers, in ms."
    )
    settle_batch: int = Field(
        default=256, ge=1, le=10_000, description="The most charges that are settled at once."
    )
    settle_backlog_most: int = Field(
        default=50_000,
        ge=1,
        description="Unsettled charges at which a worker stops admitting requests.",
    )
    journal_max_bytes: int = Field(
        default=1_000_000_000,
        ge=1_000_000,
        description="The size of a worker's journal at which it stops admitting requests, in "
        "bytes.",
    )
    drain_s: float = Field(
        default=30.0,
        ge=0,
        le=3_600,
        description="How long requests in flight may take to finish at shutdown, in seconds.",
    )
    disconnect_drain_s: float = Field(
        default=60.0,
        ge=0,
        le=3_600,
        description="How long an answer is read on for its price when its reader has gone, in "
        "seconds.",
    )

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        names = [upstream.name for upstream in self.upstreams]
        for name in names:
            if name == "sandbox" or names.count(name) > 1:
                raise ValueError(f"upstreams: the name {name} is taken")
        services = [provider.name for provider in self.sso_providers]
        if len(set(services)) < len(services):
            raise ValueError("sso_providers: two have the same name")
        url = self.resolved_database_url
        if self.workers > 1 and url.startswith("sqlite"):
            raise ValueError("workers: more than one needs PostgreSQL")
        return self

    @property
    def resolved_database_url(self) -> str:
        """The database's URL with the driver's name in it; holds a password, so never show it."""
        if self.database_url is None:
            return f"sqlite+aiosqlite:///{(self.data_dir / 'bursar.db').absolute()}"
        scheme, separator, rest = self.database_url.get_secret_value().partition("://")
        if not separator or scheme not in _SCHEMES:
            raise ValueError("database_url: must begin with postgresql+asyncpg:// or sqlite:///")
        return f"{_SCHEMES[scheme]}://{rest}"

    @property
    def journal_dir(self) -> Path:
        """Where workers keep the charges that are not settled yet."""
        return self.data_dir / "journal"

    @property
    def secret_key_path(self) -> Path:
        """Where the installation's own secret is."""
        return self.secret_key_file or self.data_dir / "secret.key"

    @property
    def url(self) -> str:
        """How callers on this machine, or by the public URL, reach the server."""
        if self.public_url:
            return self.public_url
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[Any, ...]:
        """Only what is passed in: `load` has put the sources in their order."""
        return (sources["init_settings"],)

    @classmethod
    def load(
        cls, config_file: Path | None = None, overrides: Mapping[str, Any] | None = None
    ) -> "Settings":
        """Read the settings from every source; None in `overrides` means not given.

        A named file must exist; the one in the data directory need not. Raises ConfigError.
        """
        given = {name: value for name, value in (overrides or {}).items() if value is not None}
        try:
            environment = EnvSettingsSource(cls)()
        except SettingsError as error:
            raise ConfigError(f"The environment cannot be read: {error}.") from error
        file, written = _read_file(config_file, {**environment, **given})
        try:
            return cls(**{**written, **environment, **given})
        except ValidationError as error:
            raise ConfigError(_explain(error, given, environment, file)) from None


def _read_file(config_file: Path | None, known: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    named = config_file or os.environ.get("BURSAR_CONFIG")
    path = Path(named) if named else Path(known.get("data_dir", DATA_DIR)) / FILE_NAME
    try:
        with path.open("rb") as file:
            return path, tomllib.load(file)
    except FileNotFoundError:
        if named:
            raise ConfigError(f"The settings file {path} does not exist.") from None
        return path, {}
    except OSError as error:
        raise ConfigError(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeError) as error:
        raise ConfigError(f"The settings file {path} is not valid TOML: {error}.") from error


def _explain(
    error: ValidationError, given: Mapping[str, Any], environment: Mapping[str, Any], file: Path
) -> str:
    """One sentence about the first mistake; never the value, which may be a secret."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if not place:
        place, _, message = message.rpartition(": ")
    name = place.split(".")[0]
    if name in given:
        source = f"option --{name.replace('_', '-')}"
    elif name in environment:
        source = f"environment variable {ENV_PREFIX}{name.upper()}"
    else:
        source = f"settings file {file}"
    if first["type"] == "extra_forbidden":
        return f"In the {source}, there is no setting {place}."
    return f"In the {source}, {place}: {message[:1].lower()}{message[1:]}."
