"""What a command of an account's owner works with: a client, and a place for its data.

Owns that the client is made when it is first used, and that a command acts where the rule of
`choice` says. Must not know which command is run.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import typer

from bursar.cli.output import Output
from bursar.cli.places import choice
from bursar.cli.places.choice import Given
from bursar.cli.session import Session

if TYPE_CHECKING:
    from typing import Self

    from bursar.sdk.client import Bursar

FIRST_ACCOUNT: Final = 1


@dataclass(slots=True)
class Owner:
    """Whoever runs a command, and where it acts; closed when the command is over.

    `account` is the one that `--account` names, which only an installation's host may.
    """

    given: Given
    account: int | None = None
    out: Output = field(init=False)
    _parts: ExitStack = field(default_factory=ExitStack, repr=False)
    _client: "Bursar | None" = None
    _is_server: bool | None = None

    def __post_init__(self) -> None:
        self.out = Output(self.given.is_json)

    @property
    def is_server(self) -> bool:
        """Whether the command acts on a server over HTTP; raises BadParameter."""
        if self._is_server is None:
            self._is_server = choice.is_server(self.given)
            if self._is_server and self.account is not None:
                raise typer.BadParameter(
                    "--account is for the installation's host; a key belongs to one account."
                )
        return self._is_server

    @property
    def account_id(self) -> int:
        """On the host: the account that the command is about."""
        return self.account or FIRST_ACCOUNT

    @property
    def client(self) -> "Bursar":
        """The client; raises ConfigurationError, and on the host NotFound and Conflict."""
        if self._client is None:
            self._client = self._server() if self.is_server else self._host()
        return self._client

    def host(self) -> Session:
        """The installation at hand; raises BadParameter where the command acts on a server."""
        if self.is_server:
            raise typer.BadParameter("That is done on the installation's host only.")
        return self._session()

    def _session(self) -> Session:
        return Session(self.given.data_dir, self.given.config, self.out)

    def _server(self) -> "Bursar":
        from bursar.sdk.client import Bursar

        made = Bursar(base_url=self.given.url, profile=self.given.profile)
        return self._parts.enter_context(made)

    def _host(self) -> "Bursar":
        try:
            from bursar.cli.places import host
        except ModuleNotFoundError as missing:
            from bursar.sdk.errors import ConfigurationError

            raise ConfigurationError(
                "Nobody is signed in here, and there is no installation at hand: the server's "
                f"packages are not installed ({missing.name})."
            ) from missing

        opened = host.opened(self._session(), account_id=self.account_id)
        return self._parts.enter_context(opened)

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        self._parts.close()
        if self._is_server is False and error is not None and hasattr(error, "request_id"):
            # No log has the id of a request that never left this process.
            error.request_id = None
