"""The settings of one upstream: where it is, what it serves, and where its secret stands.

Owns their names, bounds and sentences. Must not know how an upstream is called. The secret is named
here (an environment variable, a file), never kept: what is read is in nobody's repr.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from bursar.core.errors import Invalid

Seconds = Annotated[float, Field(gt=0, le=86_400)]
_MOST_SECRET_BYTES = 4_096


class ConfigError(Invalid):
    """A setting is wrong; the text is one sentence that names the setting and where it stands."""

    def __init__(self, message: str) -> None:
        super().__init__("invalid_settings", message)


def _check_pattern(pattern: str) -> str:
    if not pattern or any(character in pattern for character in "[]") or not pattern.isprintable():
        raise ValueError("a model pattern is a name in which * and ? are wild")
    return pattern


def _check_base_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be http:// or https:// and a host")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must not carry credentials, a query or a fragment")
    return url.rstrip("/")


def _check_host_name(host: str) -> str:
    is_name = re.fullmatch(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]", host)
    if is_name is None:
        raise ValueError("a host is a name or an address, without a port; one of IPv6 in brackets")
    return host.removesuffix(".").lower()


def _check_origin(origin: str) -> str:
    url = _check_base_url(origin.lower())
    if urlsplit(url).path:
        raise ValueError("an origin is http:// or https:// and a host, with nothing behind")
    return url


Url = Annotated[str, AfterValidator(_check_base_url)]
Origin = Annotated[str, AfterValidator(_check_origin)]
HostName = Annotated[str, AfterValidator(_check_host_name)]
Pattern = Annotated[str, AfterValidator(_check_pattern)]


class UpstreamSettings(BaseModel):
    """One upstream: an OpenAI-compatible server and the models that it serves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$",
        description="Its name in usage rows, logs and metrics.",
    )
    base_url: Url = Field(
        description="Where it is, including its version: `http://127.0.0.1:9001/v1`."
    )
    models: tuple[Pattern, ...] = Field(
        default=(),
        description="The models it serves; `*` and `?` are wild. The first upstream that serves a "
        "model is tried first.",
    )
    rename: dict[str, str] = Field(
        default_factory=dict,
        description="Names of models here, and what they are called there.",
    )
    api_key_env: str | None = Field(
        default=None, description="The environment variable that holds its API key."
    )
    api_key_file: Path | None = Field(default=None, description="The file that holds its API key.")
    client: Literal["pool", "aiohttp"] = Field(
        default="pool",
        description="Bursar's own connection pool, or aiohttp, which can go through a proxy.",
    )
    proxy: Url | None = Field(
        default=None, description='An HTTP proxy on the way to it; needs `client = "aiohttp"`.'
    )
    max_connections: int = Field(
        default=512, ge=1, le=65_536, description="The most connections to it at once."
    )
    connect_timeout_s: Seconds = Field(
        default=5.0, description="How long connecting may take, in seconds."
    )
    headers_timeout_s: Seconds = Field(
        default=600.0, description="How long it may take to begin its answer, in seconds."
    )
    idle_timeout_s: Seconds = Field(
        default=120.0, description="The longest silence within its answer, in seconds."
    )
    total_timeout_s: Seconds = Field(
        default=1800.0, description="How long one call may take altogether, in seconds."
    )

    refused_aside_s: float = Field(
        default=30.0,
        ge=0,
        le=86_400,
        description="How long it is left alone once it has refused its API key three times in a "
        "row (401), in seconds; with 0 every call tries it.",
    )

    @model_validator(mode="after")
    def _check(self) -> "UpstreamSettings":
        if not self.models and not self.rename:
            raise ValueError("models or rename must say what it serves")
        if self.api_key_env and self.api_key_file:
            raise ValueError("api_key_env and api_key_file exclude each other")
        if self.proxy and self.client != "aiohttp":
            raise ValueError('a proxy needs client = "aiohttp"')
        return self

    def read_api_key(self) -> str | None:
        """The API key to call it with; None if it takes none.

        Raises ConfigError where the variable or the file is missing, empty or not one line.
        """
        whose = f"Upstream {self.name}"
        return read_secret(self.api_key_env, self.api_key_file, whose=whose, what="API key")


def read_secret(env: str | None, path: Path | None, *, whose: str, what: str) -> str | None:
    """Return the secret that a variable or a file holds; None where neither is named.

    Raises ConfigError where it is missing, empty or not one line.
    """
    if env:
        secret = os.environ.get(env, "").strip()
        place = f"environment variable {env}"
    elif path:
        place = f"file {path}"
        try:
            with path.open(encoding="ascii") as file:
                secret = file.read(_MOST_SECRET_BYTES).strip()
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"{whose}: the {place} with its {what} cannot be read.") from error
    else:
        return None
    if not secret or not secret.isascii() or not secret.isprintable():
        raise ConfigError(f"{whose}: the {place} holds no {what}.")
    return secret
