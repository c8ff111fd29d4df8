"""`bursar login` and `bursar logout`: who one is at a server, under the name of a profile.

Owns how secrets are asked for: on a terminal without an echo, else a line of standard input, and
never as an argument, which others on the machine can read. Must not know how they are kept.
"""

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli import output
from bursar.cli.output import Output
from bursar.cli.places import profiles, whose
from bursar.cli.places.choice import Given

if TYPE_CHECKING:
    from bursar.sdk.client import Bursar

_LONGEST: Final = 4_096
_SECOND_FACTOR: Final = "second_factor_required"


def login(
    given: Given,
    server: Annotated[
        str | None, typer.Argument(metavar="URL", help="The server: https://bursar.example.com.")
    ] = None,
    email: Annotated[
        str | None, typer.Option(help="Who you are; the password is asked for.")
    ] = None,
    with_key: Annotated[
        bool, typer.Option("--with-key", help="By an API key instead, which is asked for.")
    ] = False,
    account: Annotated[
        int | None, typer.Option("--account", metavar="ID", min=1, help="If not your first.")
    ] = None,
    keyring: Annotated[
        bool, typer.Option("--keyring", help="Keep it in the system's keyring, not in a file.")
    ] = False,
) -> None:
    """Sign in to a server, so that commands act there until bursar logout.

    Secrets are asked for, or read from standard input, a line each: password, then code if there
    is a second factor; or the key.

    \b
    bursar login https://bursar.example.com
    bursar login https://bursar.example.com --email ada@example.com --profile work
    bursar login --with-key --profile calls < key.txt
    """
    if with_key and (email or account or keyring):
        raise typer.BadParameter("A key needs no --email, --account or --keyring.")
    out, url = Output(given.is_json), server or given.url
    name = given.profile or os.environ.get("BURSAR_PROFILE") or profiles.DEFAULT
    if with_key:
        shown = _with_key(url, name)
    else:
        email = email or _ask("E-mail address", is_secret=False)
        shown = _with_password(url, name, email, account, is_in_keyring=keyring)
    out.show({"profile": name, **shown})


def logout(given: Given) -> None:
    """Forget who one is; a session ends at the server, too. A key goes on working for others.

    Where the server cannot be reached, or refuses, it is forgotten here and that is said: the
    session lasts there until it expires.

    \b
    bursar logout
    bursar logout --profile work
    """
    from bursar.sdk.errors import ConnectionFailed, InvalidAnswer, Refused

    name = given.profile or os.environ.get("BURSAR_PROFILE") or profiles.DEFAULT
    client = profiles.find_sign_in(name)
    is_gone = False
    if client is not None:
        is_gone = True
        with client:
            try:
                client.log_out()
            except (ConnectionFailed, InvalidAnswer, Refused) as error:
                output.say(
                    "Forgotten here; at the server the session lasts until it expires. "
                    f"{error.message}"
                )
    is_gone = profiles.remove(name) or is_gone
    if not is_gone:
        raise typer.BadParameter(f"Nobody is signed in under the profile {name}.")
    Output(given.is_json).show({"profile": name, "is_signed_in": False})


def _with_password(
    url: str | None, name: str, email: str, account: int | None, *, is_in_keyring: bool
) -> dict[str, Any]:
    from bursar.sdk.client import Bursar
    from bursar.sdk.errors import Unauthenticated

    password = _ask("Password")
    options: dict[str, Any] = {
        "account_id": account,
        "keep": "keyring" if is_in_keyring else "file",
        "base_url": url,
        "profile": name,
    }
    try:
        client = Bursar.log_in(email, password, **options)
    except Unauthenticated as refused:
        if refused.code != _SECOND_FACTOR:
            raise
        client = Bursar.log_in(email, password, code=_ask("Code"), **options)
    with client:
        found = client.account.get()
        return _shown(client, email=email, account=f"{found.id} {found.name}")


def _with_key(url: str | None, name: str) -> dict[str, Any]:
    from bursar.sdk import configuration
    from bursar.sdk.client import Bursar

    if profiles.find_sign_in(name) is not None:
        raise typer.BadParameter(
            f"Somebody is signed in under the profile {name}: first bursar logout, or another name."
        )
    found, _ = configuration.find_url(base_url=url, profile=name)
    with Bursar(_ask("API key"), base_url=found) as client:
        found_out = _fields(whose.find(client))
        profiles.save(
            name, {"base_url": client.options.base_url, "api_key": str(client.options.api_key)}
        )
        return _shown(client, **found_out)


def _fields(found: whose.Whose) -> dict[str, Any]:
    if found.account is not None:
        return {"kind": "provisioning", "account": f"{found.account.id} {found.account.name}"}
    if found.key is not None:
        return {"kind": "inference", "key": f"{found.key.id} {found.key.name}"}
    return {"kind": "operator"}


def _shown(client: "Bursar", **whose: Any) -> dict[str, Any]:
    return {"url": client.options.base_url, **whose, "is_signed_in": True}


def _ask(what: str, *, is_secret: bool = True) -> str:
    """Ask for a line on a terminal, or take the next one of standard input."""
    if sys.stdin.isatty():
        return str(typer.prompt(what, hide_input=is_secret, err=True))
    line = sys.stdin.readline(_LONGEST).rstrip("\r\n")
    if not line:
        raise typer.BadParameter(
            f"There is no terminal to ask for it: give the {what.lower()} as a line of standard "
            "input."
        )
    return line
