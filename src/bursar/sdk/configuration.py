"""Where the server is and which key to use: arguments, environment, profiles.

Owns their order: an argument, a profile that is named as an argument, the environment
(`BURSAR_API_KEY`, `BURSAR_BASE_URL`), the profile that `BURSAR_PROFILE` names, the profile
`default`. Profiles are tables of `profiles.toml` in the user's configuration directory; one that
has no key may have a sign-in that was kept under its name. A profile's key or sign-in is used at
that profile's address only: no secret travels to where it is not meant.
"""

import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlsplit

from bursar.sdk.errors import ConfigurationError
from bursar.sdk.values import Secret

if TYPE_CHECKING:
    from bursar.sdk.sessions.renewal import Session
    from bursar.sdk.sessions.stores import Store

DEFAULT_BASE_URL: Final = "http://127.0.0.1:8080"
DEFAULT_TIMEOUT_S: Final = 60.0
DEFAULT_MAX_RETRIES: Final = 2
FILE_NAME: Final = "profiles.toml"
_LONGEST_TIMEOUT_S: Final = 86_400
_MOST_RETRIES: Final = 10
_DEFAULT_PROFILE: Final = "default"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Options:
    """How a client calls; `timeout_s` is what one step of an answer may take, None forever."""

    base_url: str
    api_key: Secret | None = field(repr=False)
    timeout_s: float | None = DEFAULT_TIMEOUT_S
    max_retries: int = DEFAULT_MAX_RETRIES
    session: "Session | None" = None

    def __post_init__(self) -> None:
        if self.timeout_s is not None and not 0 < self.timeout_s <= _LONGEST_TIMEOUT_S:
            raise ConfigurationError(
                f"timeout_s must be above 0 and at most {_LONGEST_TIMEOUT_S}, or None for none."
            )
        if not 0 <= self.max_retries <= _MOST_RETRIES:
            raise ConfigurationError(f"max_retries must be from 0 to {_MOST_RETRIES}.")


@dataclass(frozen=True, slots=True)
class Found:
    """An address, and what there is to show there: a key, a sign-in, or neither."""

    base_url: str
    api_key: Secret | None = None
    sign_in: "Store | None" = None


@dataclass(frozen=True, slots=True)
class _Profile:
    base_url: str | None = None
    api_key: Secret | None = None
    sign_in: "Store | None" = None

    def has_something_for(self, url: str) -> bool:
        """Whether there is a key or a sign-in, and `url` is the address that it is for."""
        own = clean_url(self.base_url or DEFAULT_BASE_URL)
        return own == url and (self.api_key is not None or self.sign_in is not None)


def find(
    *,
    api_key: str | None,
    base_url: str | None,
    profile: str | None,
    environment: Mapping[str, str] | None = None,
) -> Found:
    """Return the address and what there is to show there; raises ConfigurationError."""
    known = os.environ if environment is None else environment
    env_key, env_url = known.get("BURSAR_API_KEY"), known.get("BURSAR_BASE_URL")
    named = kept = _Profile()
    if profile is not None:
        named = _read(profile, must_exist=True)
    elif not (api_key or env_key) or not (base_url or env_url):
        name = known.get("BURSAR_PROFILE")
        kept = _read(name or _DEFAULT_PROFILE, must_exist=bool(name))
    url = clean_url(base_url or named.base_url or env_url or kept.base_url or DEFAULT_BASE_URL)
    key, sign_in = api_key, None
    if not key and named.has_something_for(url):
        key, sign_in = named.api_key, named.sign_in
    elif not key and env_key:
        key = env_key
    elif not key and kept.has_something_for(url):
        key, sign_in = kept.api_key, kept.sign_in
    return Found(url, clean_key(key) if key else None, sign_in)


def find_url(
    *, base_url: str | None, profile: str | None, environment: Mapping[str, str] | None = None
) -> tuple[str, str]:
    """Return the address to sign in at and the name of the profile to keep it under.

    The profile need not be there yet. Raises ConfigurationError, too for one that has a key.
    """
    known = os.environ if environment is None else environment
    name = profile or known.get("BURSAR_PROFILE") or _DEFAULT_PROFILE
    found = _read(name, must_exist=False, is_signing_in=True)
    env_url = known.get("BURSAR_BASE_URL")
    first, second = (found.base_url, env_url) if profile else (env_url, found.base_url)
    return clean_url(base_url or first or second or DEFAULT_BASE_URL), name


def require_no_key(profile: str) -> None:
    """Raise ConfigurationError if a profile has a key, which would win over a sign-in."""
    if _read(profile, must_exist=False, is_signing_in=True).api_key is not None:
        raise ConfigurationError(
            f"The profile {profile!r} has a key, which would win: sign in under another profile, "
            f"or take the key out of {profiles_path()}."
        )


def clean_key(key: str) -> Secret:
    """Return a key that can stand in a header; raises ConfigurationError."""
    stripped = key.strip()
    if not stripped or not stripped.isascii() or not stripped.isprintable() or " " in stripped:
        raise ConfigurationError(
            "The API key is not one: check api_key, BURSAR_API_KEY or your profile for blanks and "
            "line breaks."
        )
    return Secret(stripped)


def clean_url(url: str) -> str:
    """Return the server's address without `/v1` and slashes at its end.

    Raises ConfigurationError for what is no http(s) address, or holds credentials or a query.
    """
    parts = _split(url)
    if parts is None or "@" in parts.netloc or parts.query or parts.fragment:
        # The address is not repeated: it may hold a password.
        raise ConfigurationError(
            "The base URL is not one: it looks like https://bursar.example.com, without user, "
            "query or fragment."
        )
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def _split(url: str) -> SplitResult | None:
    """The parts of an http(s) address with a host and, if any, a port that can be one."""
    try:
        parts = urlsplit(url.strip())
        is_good = bool(parts.hostname) and parts.port != 0 and parts.scheme in ("http", "https")
        # A name that none can have, as with a part of more than 63 letters, is a ValueError too.
        (parts.hostname or "").encode("idna")
    except ValueError:
        return None
    return parts if is_good else None


def profiles_path() -> Path:
    """Return where this user's profiles are kept."""
    from platformdirs import user_config_path

    return user_config_path("bursar", appauthor=False) / FILE_NAME


def _read(name: str, *, must_exist: bool, is_signing_in: bool = False) -> _Profile:
    import tomllib

    path = profiles_path()
    try:
        with path.open("rb") as file:
            require_private(path, os.fstat(file.fileno()).st_mode)
            found = tomllib.load(file).get(name)
    except FileNotFoundError:
        found = None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeError) as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}.") from error
    profile = _Profile() if found is None else _profile(name, found, path)
    kept = _sign_in(name, is_replaced=is_signing_in) if profile.api_key is None else None
    if found is None and kept is None and must_exist:
        raise ConfigurationError(f"There is no profile {name!r} in {path}.")
    if kept is None or clean_url(profile.base_url or kept[0]) != kept[0]:
        return profile
    return _Profile(kept[0], None, kept[1])


def _sign_in(name: str, *, is_replaced: bool) -> "tuple[str, Store] | None":
    from bursar.sdk.sessions import stores

    try:
        return stores.find(name)
    except ConfigurationError:
        # It says to sign in again: whoever does must not be told so once more.
        if is_replaced:
            return None
        raise


def _profile(name: str, found: object, path: Path) -> _Profile:
    texts = isinstance(found, dict) and all(isinstance(each, str) for each in found.values())
    if not isinstance(found, dict) or not texts or set(found) - {"base_url", "api_key"}:
        raise ConfigurationError(
            f"The profile {name!r} in {path} may have base_url and api_key, both text."
        )
    key = found.get("api_key")
    return _Profile(found.get("base_url"), None if key is None else Secret(key))


def require_private(path: Path, mode: int) -> None:
    """Raise ConfigurationError if others than its owner may use a file of secrets."""
    if sys.platform != "win32" and mode & _OTHERS:
        raise ConfigurationError(
            f"{path} holds keys, and others on this machine may use it: run chmod 600 on it."
        )
