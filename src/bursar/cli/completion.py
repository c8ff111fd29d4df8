"""`bursar completion`: what a shell needs to complete commands and options.

Owns nothing but the way there: the script is Typer's.
"""

import os
from enum import StrEnum
from importlib import import_module
from typing import Annotated, Final

import typer

from bursar.cli.output import Output, write
from bursar.cli.places.choice import Given

# What a shell sets when it asks; the name follows from that of the program.
_VARIABLE: Final = "_BURSAR_COMPLETE"


class Shell(StrEnum):
    """The shells that can."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    POWERSHELL = "powershell"


def completion(given: Given, shell: Annotated[Shell, typer.Argument(help="Which shell.")]) -> None:
    """Print what makes a shell complete commands and options of bursar.

    \b
    bursar completion bash > ~/.local/share/bash-completion/completions/bursar
    bursar completion zsh > ~/.zfunc/_bursar
    bursar completion fish > ~/.config/fish/completions/bursar.fish
    """
    scripts = import_module("typer.completion")
    script = scripts.get_completion_script(
        prog_name="bursar", complete_var=_VARIABLE, shell=shell.value
    )
    if given.is_json:
        Output(is_json=True).show({"shell": shell.value, "script": script})
    else:
        write(script)


def be_ready() -> None:
    """Be ready to answer a shell, if it is one that asks."""
    if _VARIABLE in os.environ:
        import_module("typer.completion").completion_init()
