"""The commands, put together, and the options that all of them have.

Owns the order in which help shows them. Must not know what a command does.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

import bursar.cli.owner.keys
import bursar.cli.owner.limits
import bursar.cli.owner.projects
import bursar.cli.owner.users
import bursar.cli.prices
import bursar.cli.tenants.accounts
import bursar.cli.tenants.credit
import bursar.cli.tenants.people
import bursar.cli.tenants.plans
from bursar import __version__
from bursar.cli.backup import backup, restore
from bursar.cli.completion import be_ready, completion
from bursar.cli.doctor import doctor
from bursar.cli.output import Output, write
from bursar.cli.owner.chat import chat
from bursar.cli.owner.explain import explain
from bursar.cli.owner.reports.audit import audit
from bursar.cli.owner.reports.export import export
from bursar.cli.owner.reports.money import balance, billing, status
from bursar.cli.owner.reports.top import top
from bursar.cli.owner.reports.usage import activity, usage
from bursar.cli.places.choice import Given
from bursar.cli.places.owner import Owner
from bursar.cli.places.sign_in import login, logout
from bursar.cli.server import init, serve
from bursar.cli.session import MAX_ID
from bursar.cli.verify import verify

_EPILOG: Final = """\b
Exit codes:
  0 done                         1 found something wrong (verify, doctor, explain)
  2 a mistake in what was given  3 there is no such thing
  4 refused, or not possible now 5 something needed cannot be had
  6 a bug                        130 interrupted"""
_PLAIN: Final[dict[str, Any]] = {
    "rich_markup_mode": None,
    "add_completion": False,
    "pretty_exceptions_enable": False,
}
_HELP: Final[dict[str, Any]] = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
}
# What the installation's host does, with its files.
_HOST: Final = (init, serve, verify, doctor, backup, restore)
_HOST_GROUPS: Final = (
    ("accounts", bursar.cli.tenants.accounts),
    ("credit", bursar.cli.tenants.credit),
    ("people", bursar.cli.tenants.people),
    ("plans", bursar.cli.tenants.plans),
    ("prices", bursar.cli.prices),
)
# What is about the program itself.
_OWN: Final = (login, logout, completion)
# What an account's owner does, on a server or at hand.
_OWNER: Final = (status, balance, activity, usage, billing, audit, top, export, explain, chat)
_OWNER_GROUPS: Final = (
    ("keys", bursar.cli.owner.keys),
    ("limits", bursar.cli.owner.limits),
    ("projects", bursar.cli.owner.projects),
    ("users", bursar.cli.owner.users),
)

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="The data directory. [BURSAR_DATA_DIR; default: ./bursar-data]",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The settings file. [BURSAR_CONFIG; default: bursar.toml in the data directory]",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print data as JSON.")]
Profile = Annotated[
    str | None,
    typer.Option(
        "--profile", metavar="NAME", help="Whose sign-in to use. [BURSAR_PROFILE; default: default]"
    ),
]
Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="The server. [BURSAR_BASE_URL; default: signed in]"),
]
Account = Annotated[
    int | None,
    typer.Option(
        "--account", metavar="ID", min=1, max=MAX_ID, help="On the host: whose. [default: 1]"
    ),
]


def make() -> typer.Typer:
    """The command `bursar`."""
    be_ready()
    root = typer.Typer(epilog=_EPILOG, context_settings=_HELP, **_PLAIN)
    root.callback(invoke_without_command=True)(_start)
    for function in _HOST:
        root.command(function.__name__)(_for_host(function))
    for own in _OWN:
        root.command(own.__name__)(_for_itself(own))
    for shared in _OWNER:
        root.command(shared.__name__)(_for_owner(shared))
    for groups, wrap in ((_HOST_GROUPS, _for_host), (_OWNER_GROUPS, _for_owner)):
        for name, module in groups:
            root.add_typer(_group(module, wrap), name=name, context_settings=_HELP)
    return root


def _group(module: Any, wrap: Callable[[Callable[..., None]], Callable[..., None]]) -> typer.Typer:
    group = typer.Typer(help=_with_examples(module), no_args_is_help=True, **_PLAIN)
    for name, function, extra in module.COMMANDS:
        group.command(name, context_settings={**_HELP, **extra})(wrap(function))
    return group


def _with_examples(module: Any) -> str:
    """What a group is for, and the first example of each of its commands."""
    examples = [
        next(line.strip() for line in lines if line.strip().startswith("bursar "))
        for lines in ((function.__doc__ or "").splitlines() for _, function, _ in module.COMMANDS)
    ]
    return "\n".join((module.HELP, "", "\b", *examples))


def _start(
    context: typer.Context,
    profile: Profile = None,
    url: Url = None,
    data_dir: DataDir = None,
    config: Config = None,
    json: Json = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Bursar: API keys, prepaid credit, budgets and usage in front of AI models.

    \b
    bursar login https://bursar.example.com   sign in; what follows acts there
    bursar keys create --name laptop          another key
    bursar usage --by key --from 30d          who used what
    bursar top                                what is spent right now

    \b
    bursar serve                              set up on first start, and serve
    bursar credit grant 1 50.00               more credit for account 1
    bursar verify                             prove the books
    bursar backup /var/backups                copy everything, beside the server
    """
    context.obj = Given(data_dir, config, profile, url, json)
    if version and json:
        Output(is_json=True).show({"version": __version__})
    elif version:
        write(__version__)
    elif context.invoked_subcommand is None:
        write(context.get_help())


def _for_host(function: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of the installation, also in front of its name."""

    def command(
        context: typer.Context,
        data_dir: DataDir = None,
        config: Config = None,
        json: Json = False,
        **own: Any,
    ) -> None:
        given = Given(data_dir, config, None, None, json).over(context.obj)
        function(given.session(), **own)

    return _signed(command, function)


def _for_itself(function: Callable[..., None]) -> Callable[..., None]:
    """The command with the options that name a server, also in front of its name."""

    def command(
        context: typer.Context,
        profile: Profile = None,
        url: Url = None,
        json: Json = False,
        **own: Any,
    ) -> None:
        function(Given(None, None, profile, url, json).over(context.obj), **own)

    return _signed(command, function)


def _for_owner(function: Callable[..., None]) -> Callable[..., None]:
    """The command with the options that say where it acts, also in front of its name."""

    def command(
        context: typer.Context,
        account: Account = None,
        profile: Profile = None,
        url: Url = None,
        data_dir: DataDir = None,
        config: Config = None,
        json: Json = False,
        **own: Any,
    ) -> None:
        given = Given(data_dir, config, profile, url, json).over(context.obj)
        with Owner(given, account) as owner:
            function(owner, **own)

    return _signed(command, function)


def _signed(command: Callable[..., None], function: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer reads it: its own options, then those that it shares with others."""
    common = list(inspect.signature(command).parameters.values())[:-1]
    own = list(inspect.signature(function).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [each.replace(kind=keyword) for each in (*own, *common)]
    # What `inspect` looks for on any callable, though no type says that it may be there.
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    command.__doc__ = function.__doc__
    return command
