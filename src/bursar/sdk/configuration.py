"""Where the server is and which key to use: arguments, environment, profiles.

Owns their order: an argument, a profile that is named as an argument, the environment
(`BURSAR_API_KEY`, `BURSAR_BASE_URL`), the profile that `BURSAR_PROFILE` names, the profile
`default`. Profiles are tables of `profiles.toml` in the user's configuration directory. A
profile's key is used at that profile's address only: no secret travels to where it is not meant.
"""

import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from bursar.sdk.errors import ConfigurationError
from bursar.sdk.values import Secret

DEFAULT_BASE_URL: Final = "http://127.0.0.1:8080"
DEFAULT_TIMEOUT_S: Final = 60.0
DEFAULT_MAX_RETRIES: Final = 2
FILE_NAME: Final = "profiles.toml"
_DEFAULT_PROFILE: Final = "default"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Options:
    """How a client calls; `timeout_s` is what one step of an answer may take, None forever."""

    base_url: str
    api_key: Secret | None = field(repr=False)
    timeout_s: float | None = DEFAULT_TIMEOUT_S
    max_retries: int = DEFAULT_MAX_RETRIES


@dataclass(frozen=True, slots=True)
class _Profile:
    base_url: str | None = None
    api_key: Secret | None = None

    def key_for(self, url: str) -> Secret | None:
        """The key, where `url` is the address that it is for."""
        own = clean_url(self.base_url or DEFAULT_BASE_URL)
        return self.api_key if own == url else None


def find(
    *,
    api_key: str | None,
    base_url: str | None,
    profile: str | None,
    environment: Mapping[str, str] | None = None,
) -> tuple[str, Secret | None]:
    """Return the address and the key, None if there is none; raises ConfigurationError."""
    known = os.environ if environment is None else environment
    env_key, env_url = known.get("BURSAR_API_KEY"), known.get("BURSAR_BASE_URL")
    named = kept = _Profile()
    if profile is not None:
        named = _read(profile, must_exist=True)
    elif not (api_key or env_key) or not (base_url or env_url):
        name = known.get("BURSAR_PROFILE")
        kept = _read(name or _DEFAULT_PROFILE, must_exist=bool(name))
    url = clean_url(base_url or named.base_url or env_url or kept.base_url or DEFAULT_BASE_URL)
    key = api_key or named.key_for(url) or env_key or kept.key_for(url)
    return url, None if key is None else clean_key(key)


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
    except ValueError:
        return None
    return parts if is_good else None


def profiles_path() -> Path:
    """Return where this user's profiles are kept."""
    from platformdirs import user_config_path

    return user_config_path("bursar", appauthor=False) / FILE_NAME


def _read(name: str, *, must_exist: bool) -> _Profile:
    import tomllib

    path = profiles_path()
    try:
        with path.open("rb") as file:
            _require_private(path, os.fstat(file.fileno()).st_mode)
            found = tomllib.load(file).get(name)
    except FileNotFoundError:
        found = None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeError) as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}.") from error
    if found is None:
        if must_exist:
            raise ConfigurationError(f"There is no profile {name!r} in {path}.")
        return _Profile()
    return _profile(name, found, path)


def _profile(name: str, found: object, path: Path) -> _Profile:
    texts = isinstance(found, dict) and all(isinstance(each, str) for each in found.values())
    if not isinstance(found, dict) or not texts or set(found) - {"base_url", "api_key"}:
        raise ConfigurationError(
            f"The profile {name!r} in {path} may have base_url and api_key, both text."
        )
    key = found.get("api_key")
    return _Profile(found.get("base_url"), None if key is None else Secret(key))


def _require_private(path: Path, mode: int) -> None:
    if sys.platform != "win32" and mode & _OTHERS:
        raise ConfigurationError(
            f"{path} holds keys, and others on this machine may use it: run chmod 600 on it."
        )
