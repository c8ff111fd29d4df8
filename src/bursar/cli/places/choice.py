"""Which place a command is about.

Owns the rule: what stands on the command line, then what stands in the environment, then whom
somebody has signed in as, then the folder at hand. Must not open anything.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from bursar.cli.output import Output
from bursar.cli.session import Session

_SERVER: Final = ("BURSAR_API_KEY", "BURSAR_PROFILE", "BURSAR_BASE_URL")
_HOST: Final = ("BURSAR_DATA_DIR", "BURSAR_DATABASE_URL", "BURSAR_CONFIG")


@dataclass(frozen=True, slots=True)
class Given:
    """The options that commands have in common, as they were given."""

    data_dir: Path | None = None
    config: Path | None = None
    profile: str | None = None
    url: str | None = None
    is_json: bool = False

    def over(self, before: "Given") -> "Given":
        """These, and where they say nothing, what was said in front of the command's name."""
        return Given(
            self.data_dir or before.data_dir,
            self.config or before.config,
            self.profile or before.profile,
            self.url or before.url,
            self.is_json or before.is_json,
        )

    def session(self) -> Session:
        """The installation at hand; raises BadParameter where a server was named."""
        if self.profile or self.url:
            raise typer.BadParameter(
                "This command works on the installation's host: --profile and --url are not for it."
            )
        return Session(self.data_dir, self.config, Output(self.is_json))


def is_server(given: Given, *, environment: Mapping[str, str] | None = None) -> bool:
    """Whether a command acts on a server over HTTP, rather than on the installation at hand.

    Raises BadParameter where the command line names both.
    """
    known = os.environ if environment is None else environment
    names_server = bool(given.profile or given.url)
    names_host = bool(given.data_dir or given.config)
    if names_server and names_host:
        raise typer.BadParameter(
            "Name a server (--profile, --url) or an installation (--data-dir, --config), not both."
        )
    if names_server or names_host:
        return names_server
    if any(known.get(name) for name in _SERVER):
        return True
    if any(known.get(name) for name in _HOST):
        return False
    from bursar.cli.places import profiles

    return profiles.has_default()
