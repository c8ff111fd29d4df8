"""The settings of one sign-in service: who it is, whom it speaks for, what its groups mean.

Owns their names, bounds and sentences. Must not know how a service is asked. The secret is named
here (an environment variable, a file), never kept: what is read is in nobody's repr.
"""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from bursar.config.upstreams import read_secret


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable():
        raise ValueError("must be http:// or https:// and a host")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must not carry credentials, a query or a fragment")
    return url


def _check_domain(domain: str) -> str:
    is_name = all(part and part.isalnum() for part in domain.replace("-", "x").split("."))
    if not domain.isascii() or domain != domain.lower() or not is_name:
        raise ValueError("a domain looks like example.com")
    return domain


PlainUrl = Annotated[str, AfterValidator(_check_url)]
Domain = Annotated[str, AfterValidator(_check_domain)]


class GrantSettings(BaseModel):
    """What being in a group of the service makes somebody in an account."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    account_id: int = Field(ge=1, description="The account.")
    group: str = Field(
        min_length=1, max_length=255, description="The group, as the service writes it."
    )
    role: Literal["owner", "admin", "member", "viewer"] = Field(
        description="What its people are there: `owner`, `admin`, `member` or `viewer`. Of several "
        "groups the one that makes them most counts."
    )


class ProviderSettings(BaseModel):
    """One sign-in service that speaks OpenID Connect."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,63}$", description="Its name in requests and in the log."
    )
    title: str = Field(
        default="", max_length=100, description="What people call it; by default its name."
    )
    issuer: PlainUrl = Field(
        description="Its issuer, to the letter: what `/.well-known/openid-configuration` is put "
        "behind."
    )
    client_id: str = Field(min_length=1, max_length=255, description="Bursar's id there.")
    client_secret_env: str | None = Field(
        default=None, description="The environment variable that holds Bursar's secret there."
    )
    client_secret_file: Path | None = Field(
        default=None,
        description="The file that holds it. With neither, PKCE alone protects the code.",
    )
    scopes: tuple[str, ...] = Field(
        default=("openid", "email", "profile"), description="What is asked for."
    )
    groups_claim: str = Field(
        default="groups", min_length=1, description="Where it says which groups somebody is in."
    )
    domains: tuple[Domain, ...] = Field(
        default=(),
        description="The domains whose addresses it speaks for: whoever has an address there, "
        "which it has verified, is the person here who has it.",
    )
    redirect_urls: tuple[str, ...] = Field(
        default=(),
        description="The pages that browsers may be sent back to, besides programs on the "
        "person's own machine.",
    )
    creates_people: bool = Field(
        default=False,
        description="Whether people of its domains who have a role by a group are made at their "
        "first sign-in; otherwise they are invited first.",
    )
    counts_as_two: bool = Field(
        default=False,
        description="Whether its word stands for a second factor, too: then nobody is asked for "
        "theirs here.",
    )
    is_internal: bool = Field(
        default=False,
        description="Whether it may be at a private address, or without TLS; otherwise it is "
        "reached at public ones alone.",
    )
    roles: tuple[GrantSettings, ...] = Field(
        default=(), description="What its groups mean here: a table each, as below."
    )

    @model_validator(mode="after")
    def _check(self) -> "ProviderSettings":
        if "openid" not in self.scopes:
            raise ValueError("scopes must have openid")
        if any(not scope.isascii() or not scope.isprintable() for scope in self.scopes):
            raise ValueError("scopes are words")
        if self.client_secret_env and self.client_secret_file:
            raise ValueError("client_secret_env and client_secret_file exclude each other")
        if self.issuer.startswith("http://") and not self.is_internal:
            raise ValueError("an issuer without TLS is for is_internal = true")
        return self

    def read_client_secret(self) -> str | None:
        """Bursar's secret there; None where it has none. Raises ConfigError."""
        whose = f"Sign-in service {self.name}"
        return read_secret(
            self.client_secret_env, self.client_secret_file, whose=whose, what="client secret"
        )
