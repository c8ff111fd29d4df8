"""The file of profiles: what `bursar login` keeps, and the SDK reads.

Owns how the file is changed: as a whole, its owner's alone from the first byte. Must not know
whether a key is good.
"""

import json
import os
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bursar.sdk import configuration
from bursar.sdk.errors import ConfigurationError

if TYPE_CHECKING:
    from bursar.sdk.client import Bursar

DEFAULT: Final = "default"
_PRIVATE: Final = 0o700
_HEAD: Final = "# Who signed in where, as `bursar login` has it. This file holds secrets.\n"


def path() -> Path:
    """Where the profiles are."""
    return configuration.profiles_path()


def has_default() -> bool:
    """Whether somebody has signed in here without naming a profile."""
    # Nearly every start of a command on a host comes here, and finds nothing.
    if not path().parent.exists():
        return False
    return DEFAULT in _read() or _has_sign_in(DEFAULT)


def find_sign_in(name: str) -> "Bursar | None":
    """A client of whoever has signed in under this name; None: nobody, or a key has."""
    if name in _read() or not _has_sign_in(name):
        return None
    from bursar.sdk.client import Bursar

    return Bursar(profile=name)


def save(name: str, fields: Mapping[str, str]) -> None:
    """Keep a profile under a name, in place of the one before."""
    _write({**_read(), name: dict(fields)})


def remove(name: str) -> bool:
    """Forget a profile; whether there was one."""
    found = _read()
    if name not in found:
        return False
    del found[name]
    _write(found)
    return True


def _has_sign_in(name: str) -> bool:
    from bursar.sdk.sessions import stores

    return stores.find(name) is not None


def _read() -> dict[str, dict[str, Any]]:
    try:
        with path().open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeError) as error:
        raise ConfigurationError(f"{path()} is not valid TOML: {error}.") from error


def _write(profiles: Mapping[str, Mapping[str, Any]]) -> None:
    tables = [_HEAD]
    for name, fields in profiles.items():
        lines = [f"{field} = {_text(value)}\n" for field, value in fields.items()]
        tables.append(f"[{_text(name)}]\n" + "".join(lines))
    target = path()
    target.parent.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    # Made with mode 600 and then renamed: nobody ever reads half of it, or what is not theirs.
    fd, written = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write("\n".join(tables))
        Path(written).replace(target)
    except BaseException:
        Path(written).unlink(missing_ok=True)
        raise


def _text(value: object) -> str:
    """TOML's text, whose escapes are those of JSON."""
    return json.dumps(str(value)).replace("\x7f", "\\u007f")
