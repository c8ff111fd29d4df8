"""Where the tokens of a sign-in are kept: in memory, in a file, or in the system's keyring.

Owns their form on the disk and who may renew them: one at a time, of all programs that use the
same. A file is its owner's alone, and is replaced as a whole. Of what is in the keyring a file says
so, and where it is for.
"""

import json
import os
import re
import secrets
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias

from bursar.sdk import configuration
from bursar.sdk.errors import ConfigurationError, MissingDependency
from bursar.sdk.values import Secret

Keep: TypeAlias = Literal["file", "keyring"]
Release: TypeAlias = Callable[[], None]
_SERVICE: Final = "bursar"
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", re.ASCII)
_AGAIN: Final = "Sign in again."


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The tokens of one sign-in; moments are seconds of this machine's clock since 1970.

    From `renew_from_s` on the access token is about to expire, at `access_until_s` it does.
    """

    base_url: str
    email: str
    account_id: int
    user_id: int
    session_id: int
    role: str
    access_token: Secret = field(repr=False)
    refresh_token: Secret = field(repr=False)
    renew_from_s: float
    access_until_s: float


class Store(Protocol):
    """Keeps the tokens of one sign-in; every method raises ConfigurationError if it cannot."""

    def load(self) -> SignedIn | None:
        """What is kept, None if nothing is."""

    def save(self, held: SignedIn) -> None:
        """Keep this in place of what was."""

    def forget(self) -> None:
        """Keep nothing."""

    def try_lock(self) -> Release | None:
        """Become the only one who renews; what ends that, or None if somebody else is at it."""


class MemoryStore:
    """Keeps them as long as the program runs."""

    def __init__(self) -> None:
        self._held: SignedIn | None = None
        self._lock = threading.Lock()

    def load(self) -> SignedIn | None:
        """What is kept, None if nothing is."""
        return self._held

    def save(self, held: SignedIn) -> None:
        """Keep this in place of what was."""
        self._held = held

    def forget(self) -> None:
        """Keep nothing."""
        self._held = None

    def try_lock(self) -> Release | None:
        """Become the only one who renews."""
        return self._lock.release if self._lock.acquire(blocking=False) else None


class FileStore:
    """Keeps them in a file that only its owner may read."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._path = _path(name)

    def load(self) -> SignedIn | None:
        """What is kept, None if nothing is."""
        found = _read(self._path)
        return None if found is None else _signed_in(found, self._path)

    def save(self, held: SignedIn) -> None:
        """Keep this in place of what was, in the keyring too."""
        was_in_keyring = _is_in_keyring(self._path)
        _write(self._path, asdict(held))
        if was_in_keyring:
            _keyring("delete_password", self._name)

    def forget(self) -> None:
        """Keep nothing."""
        _remove(self._path)

    def try_lock(self) -> Release | None:
        """Become the only one who renews."""
        return _try_lock(self._path)


class KeyringStore:
    """Keeps them in the system's keyring; needs the package `keyring`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._path = _path(name)

    def load(self) -> SignedIn | None:
        """What is kept, None if nothing is."""
        text = _keyring("get_password", self._name)
        if text is None:
            return None
        try:
            return _signed_in(json.loads(text), self._path)
        except ValueError:
            raise _unreadable(self._path) from None

    def save(self, held: SignedIn) -> None:
        """Keep this in place of what was."""
        _keyring("set_password", self._name, json.dumps(asdict(held)))
        if not _is_in_keyring(self._path):
            _write(self._path, {"base_url": held.base_url, "kept_in": "keyring"})

    def forget(self) -> None:
        """Keep nothing."""
        if self.load() is not None:
            _keyring("delete_password", self._name)
        _remove(self._path)

    def try_lock(self) -> Release | None:
        """Become the only one who renews."""
        return _try_lock(self._path)


def make(name: str, keep: Keep | None) -> Store:
    """Return where a sign-in of that name is to be kept; None is as long as the program runs."""
    if keep is None:
        return MemoryStore()
    return FileStore(name) if keep == "file" else KeyringStore(name)


def find(name: str) -> tuple[str, Store] | None:
    """Return the address that a sign-in of that name is for, and where it is kept; None: nowhere.

    Raises ConfigurationError for a file that others may read, or that is none of ours.
    """
    if not _NAME.fullmatch(name):
        return None
    path = _path(name)
    found = _read(path)
    if found is None:
        return None
    url = found.get("base_url")
    if not isinstance(url, str):
        raise _unreadable(path)
    store = KeyringStore(name) if found.get("kept_in") == "keyring" else FileStore(name)
    return url, store


def _path(name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a profile to sign in with: letters, digits, '.', '_' "
            "and '-', at most 64."
        )
    return configuration.profiles_path().parent / "sessions" / f"{name}.json"


def _signed_in(found: dict[str, Any], path: Path) -> SignedIn:
    try:
        return SignedIn(
            base_url=str(found["base_url"]),
            email=str(found["email"]),
            account_id=int(found["account_id"]),
            user_id=int(found["user_id"]),
            session_id=int(found["session_id"]),
            role=str(found["role"]),
            access_token=Secret(found["access_token"]),
            refresh_token=Secret(found["refresh_token"]),
            renew_from_s=float(found["renew_from_s"]),
            access_until_s=float(found["access_until_s"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _unreadable(path) from None


def _unreadable(path: Path) -> ConfigurationError:
    return ConfigurationError(f"{path} does not say who has signed in. {_AGAIN}")


# ── Files ───────────────────────────────────────────────────────────────────────────────────────


def _read(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            configuration.require_private(path, os.fstat(file.fileno()).st_mode)
            found: Any = json.loads(file.read())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError:
        raise _unreadable(path) from None
    if not isinstance(found, dict):
        raise _unreadable(path)
    return found


def _is_in_keyring(path: Path) -> bool:
    """Whether a file says so; one that says nothing is about to be replaced."""
    try:
        found = _read(path)
    except ConfigurationError:
        return False
    return found is not None and found.get("kept_in") == "keyring"


def _write(path: Path, document: object) -> None:
    """Replace a file as a whole: whoever reads it meanwhile has the old one or the new one."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(number, "wb") as file:
                file.write(json.dumps(document).encode())
                file.flush()
                # A refresh token that is lost cannot be had again.
                os.fsync(file.fileno())
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}.") from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be removed: {error.strerror}.") from error


def _try_lock(path: Path) -> Release | None:
    # Compared as a whole, so that type checkers know which half is for which system.
    if sys.platform == "win32":
        # Two programs that renew at the same moment get the same answer for some seconds.
        return lambda: None
    import fcntl

    lock = path.with_suffix(".lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{lock} cannot be opened: {error.strerror}.") from error
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(number)
        return None
    # Closing it gives it up, and so does the end of the program.
    return partial(os.close, number)


# ── The keyring ─────────────────────────────────────────────────────────────────────────────────


def _keyring(method: str, *arguments: str) -> Any:
    try:
        keyring, errors = import_module("keyring"), import_module("keyring.errors")
    except ImportError as error:
        raise MissingDependency(
            "Keeping a sign-in in the keyring needs a package: pip install 'bursar[keyring]'."
        ) from error
    try:
        return getattr(keyring, method)(_SERVICE, *arguments)
    except errors.KeyringError as error:
        raise ConfigurationError(
            f"The system's keyring cannot be used ({error or type(error).__name__}): keep the "
            'sign-in in a file instead, with keep="file".'
        ) from error
