"""The commands, put together, and the options that all of them have.

Owns the order in which help shows them. Must not know what a command does.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

import bursar.cli.limits.allowances
import bursar.cli.limits.plans
import bursar.cli.prices
import bursar.cli.tenants.accounts
import bursar.cli.tenants.credit
import bursar.cli.tenants.keys
import bursar.cli.tenants.projects
from bursar import __version__
from bursar.cli.backup import backup, restore
from bursar.cli.doctor import doctor
from bursar.cli.limits.explain import explain
from bursar.cli.output import Output, write
from bursar.cli.server import init, serve
from bursar.cli.session import Session
from bursar.cli.verify import verify

_EPILOG: Final = """\b
Exit codes:
  0 done                         1 found something wrong (verify, doctor, explain)
  2 a mistake in what was given  3 there is no such thing
  4 its state does not allow it  5 something needed cannot be had
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
_GROUPS: Final = (
    ("accounts", bursar.cli.tenants.accounts),
    ("credit", bursar.cli.tenants.credit),
    ("keys", bursar.cli.tenants.keys),
    ("limits", bursar.cli.limits.allowances),
    ("plans", bursar.cli.limits.plans),
    ("prices", bursar.cli.prices),
    ("projects", bursar.cli.tenants.projects),
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


def make() -> typer.Typer:
    """The command `bursar`."""
    root = typer.Typer(epilog=_EPILOG, context_settings=_HELP, **_PLAIN)
    root.callback(invoke_without_command=True)(_start)
    for function in (init, serve, verify, doctor, backup, restore, explain):
        root.command(function.__name__)(_with_session(function))
    for name, module in _GROUPS:
        group = typer.Typer(help=module.HELP, no_args_is_help=True, **_PLAIN)
        for command_name, function, extra in module.COMMANDS:
            settings = {**_HELP, **extra}
            group.command(command_name, context_settings=settings)(_with_session(function))
        root.add_typer(group, name=name, context_settings=_HELP)
    return root


def _start(
    context: typer.Context,
    data_dir: DataDir = None,
    config: Config = None,
    json: Json = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Bursar: API keys, prepaid credit, budgets and usage in front of AI models.

    \b
    bursar serve                          set up on first start, and serve
    bursar keys create --name laptop      another key
    bursar credit grant 1 50.00           more credit for account 1
    bursar verify                         prove the books
    bursar backup /var/backups            copy everything, beside the server
    """
    context.obj = Session(data_dir, config, Output(json))
    if version:
        write(__version__)
    elif context.invoked_subcommand is None:
        write(context.get_help())


def _with_session(function: Callable[..., None]) -> Callable[..., None]:
    """The command with the options that all commands have, also in front of its name."""

    def command(
        context: typer.Context,
        data_dir: DataDir = None,
        config: Config = None,
        json: Json = False,
        **own: Any,
    ) -> None:
        before: Session = context.obj
        session = Session(
            data_dir or before.data_dir,
            config or before.config,
            Output(json or before.out.is_json),
        )
        function(session, **own)

    common = list(inspect.signature(command).parameters.values())[:-1]
    own = list(inspect.signature(function).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [each.replace(kind=keyword) for each in (*own, *common)]
    # What Typer reads: the command's own options, then those that it shares with all others.
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    command.__doc__ = function.__doc__
    return command
