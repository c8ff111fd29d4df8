"""What holds for every command: help, the start, what is asked first, and the shell's questions."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from bursar.cli import application
from tests.cli.conftest import SOURCE, Bursar
from tests.cli.terminals import commands, options
from tests.live import run

COMMANDS = commands()
# Everything that destroys something, with arguments that would.
DESTROYS = {
    "accounts cancel": ("1",),
    "export": ("there.csv",),
    "keys delete": ("3",),
    "keys rotate": ("3", "--grace", "0"),
    "limits remove": ("key:3", "requests", "minute"),
    "people disable": ("1",),
    "people sign-out": ("1",),
    "plans delete": ("2",),
    "plans remove": ("1", "key", "requests", "minute"),
    "projects delete": ("1",),
    "projects remove-member": ("1", "1"),
    "users remove": ("1",),
    "users withdraw": ("1",),
}
# It asks with an option of its own, and is refused without it: `--replace` says what is lost.
ASKS_OTHERWISE = {"restore"}
_VERBS = re.compile(r"delete|remove|cancel|withdraw|revoke|disable|sign-out|rotate|restore|drop")
# The start of a sentence in a list of examples, not of a command.
_EXAMPLE = re.compile(r"^  (?:[A-Z_]+=\S+ |[^\n]*\| )*bursar .*$", re.MULTILINE)


# ── What destroys ───────────────────────────────────────────────────────────────────────────────


def test_what_destroys_takes_yes_and_nothing_else_does() -> None:
    takes_yes = {words for words, command in COMMANDS.items() if "--yes" in options(command)}
    assert takes_yes == set(DESTROYS)


def test_what_is_called_like_destroying_is_known_to_do_so() -> None:
    called = {words for words in COMMANDS if _VERBS.search(words)}
    assert called - set(DESTROYS) == ASKS_OTHERWISE


@pytest.mark.parametrize("words", sorted(DESTROYS))
def test_nothing_is_destroyed_unasked_where_there_is_no_terminal(
    bursar: Bursar, words: str
) -> None:
    Path("there.csv").write_text("mine")
    before = sorted(Path().rglob("*"))
    for more in ([], ["--json"]):
        done = bursar(*words.split(), *DESTROYS[words], *more)
        # There is not even an installation: it is asked before anything is opened.
        assert (done.code, done.stdout) == (2, ""), done.stderr
        assert "say --yes" in done.stderr
    assert Path("there.csv").read_text() == "mine"
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("words", sorted(DESTROYS))
def test_whoever_is_asked_may_say_no(
    bursar: Bursar, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    class Person(io.StringIO):
        def isatty(self) -> bool:
            return True

    Path("there.csv").write_text("mine")
    for answer, code in (("n\n", 130), ("\n", 130), ("y\n", 3)):
        monkeypatch.setattr("sys.stdin", Person(answer))
        done = bursar(*words.split(), *DESTROYS[words])
        # Who says yes comes as far as the installation, which is not there.
        assert (done.code, done.stdout) == (code, ""), done.stderr
        assert re.search(r"\? \[y/N\]: ", done.stderr)


def test_a_rotation_with_grace_destroys_nothing_and_asks_nothing(bursar: Bursar) -> None:
    assert bursar("keys", "rotate", 3).code == 3


# ── Help ────────────────────────────────────────────────────────────────────────────────────────


def examples(text: str) -> list[str]:
    """The examples of a help text: lines that begin with the command, or lead up to it."""
    return [found.strip() for found in _EXAMPLE.findall(text)]


@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_help_has_examples_of_the_command_before_its_arguments_and_options(
    bursar: Bursar, words: str
) -> None:
    text = bursar(*words.split(), "--help").stdout
    head = re.split(r"^(?:Arguments|Options):$", text, maxsplit=1, flags=re.MULTILINE)[0]
    found = examples(head)
    own = [each for each in found if re.search(rf"(^|\s)bursar {words}\b(?!-)", each)]
    assert own, head
    assert examples(text) == found, "an example stands behind the options"
    for each in found:
        _is_possible(each)


def _is_possible(example: str) -> None:
    """Whether an example names a command that is there, and only options that it has."""
    cut = re.split(r" [|<>] |  +", example)
    line = next(part for part in cut if "bursar " in part)
    parts = shlex.split(line.replace("…", "."))
    parts = parts[parts.index("bursar") + 1 :]
    words = next(" ".join(parts[:n]) for n in (2, 1) if " ".join(parts[:n]) in COMMANDS)
    known = options(COMMANDS[words])
    assert {part for part in parts if re.match(r"--[a-z]", part)} <= known, example


@pytest.mark.parametrize("group", sorted({w.split()[0] for w in COMMANDS if " " in w}))
def test_help_of_a_group_has_an_example_of_each_of_its_commands(bursar: Bursar, group: str) -> None:
    text = bursar(group, "--help").stdout
    head = text.partition("\nOptions:\n")[0]
    for words in COMMANDS:
        if words.startswith(f"{group} "):
            assert re.search(rf"^  bursar {words}\b(?!-)", head, re.MULTILINE), (words, head)


def test_help_of_the_whole_begins_with_examples(bursar: Bursar) -> None:
    head = bursar("--help").stdout.partition("\nOptions:\n")[0]
    found = examples(head)
    assert len(found) >= 6
    for each in found:
        _is_possible(each)


# ── The start ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["keys", "create", "--help"], ["nonsense"]]
)
def test_the_command_starts_in_less_than_three_tenths_of_a_second(arguments: list[str]) -> None:
    program = (
        "import atexit, sys, time\n"
        "atexit.register(lambda: print(time.process_time(), file=sys.stderr))\n"
        f"from bursar.cli import main; main({arguments!r})"
    )

    def took_s() -> float:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": str(SOURCE)},
            capture_output=True,
            text=True,
            check=False,
        )
        return float(done.stderr.splitlines()[-1])

    # The processor's time, and the best of several: a busy machine is not a slow start.
    assert min(took_s() for _ in range(5)) < 0.3


# ── What a shell asks ───────────────────────────────────────────────────────────────────────────


def test_a_script_for_each_shell_asks_this_program(bursar: Bursar) -> None:
    for shell, registers in (
        ("bash", "complete -o default -F _bursar_completion bursar"),
        ("zsh", "#compdef bursar"),
        ("fish", "complete --command bursar"),
        ("powershell", "Register-ArgumentCompleter"),
    ):
        script = bursar("completion", shell).stdout
        assert registers in script, script
        assert "_BURSAR_COMPLETE" in script
        assert bursar("completion", shell, "--json").json == {
            "shell": shell,
            "script": script.removesuffix("\n"),
        }
    assert bursar("completion", "tcsh").code == 2


@pytest.mark.parametrize(
    ("typed", "offered", "withheld"),
    [
        ("bursar ke", {"keys"}, "limits"),
        ("bursar keys ro", {"rotate"}, "create"),
        ("bursar keys rotate --gr", {"--grace"}, "--kind"),
        ("bursar keys create --kind op", {"operator"}, "inference"),
        ("bursar completion ", {"bash", "zsh", "fish"}, "tcsh"),
    ],
)
def test_each_shell_is_told_what_can_follow(typed: str, offered: set[str], withheld: str) -> None:
    words = typed.split(" ")
    asked: dict[str, dict[str, str]] = {
        "complete_bash": {"COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)},
        "complete_zsh": {"_TYPER_COMPLETE_ARGS": typed},
        "complete_fish": {
            "_TYPER_COMPLETE_ARGS": typed,
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
    }
    for instruction, environment in asked.items():
        done = run(_BURSAR_COMPLETE=instruction, **environment)
        assert (done.returncode, done.stderr) == (0, ""), instruction
        told = set(re.findall(r"[\w-]+", done.stdout))
        assert offered <= told, (instruction, done.stdout)
        assert withheld not in told, (instruction, done.stdout)


def test_bash_completes_with_the_script_that_is_printed(bursar: Bursar, tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(bursar("completion", "bash").stdout)
    program = tmp_path / "bin" / "bursar"
    program.parent.mkdir()
    start = f'exec {sys.executable} -c "from bursar.cli import main; main()" "$@"'
    program.write_text(f"#!/bin/sh\nPYTHONPATH={SOURCE} {start}\n")
    program.chmod(0o755)
    ask = (
        f"PATH={program.parent}:$PATH; . {script}; COMP_WORDS=(bursar keys ro); COMP_CWORD=2; "
        '_bursar_completion bursar; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", ask], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "rotate\n"


# ── JSON ────────────────────────────────────────────────────────────────────────────────────────


def test_every_command_takes_json_in_front_of_its_name_and_behind_it(bursar: Bursar) -> None:
    root: Any = typer.main.get_command(application.make())
    for command in (root, *COMMANDS.values()):
        assert "--json" in options(command), command.name
    for arguments in (["--version", "--json"], ["--json", "--version"]):
        assert bursar(*arguments).json == {"version": bursar("--version").stdout.strip()}
    for arguments in (["--json", "completion", "bash"], ["completion", "--json", "bash"]):
        assert bursar(*arguments).json["shell"] == "bash"


def test_an_export_in_json_is_no_csv(bursar: Bursar) -> None:
    done = bursar("export", "-", "--format", "csv", "--json")
    assert (done.code, done.stdout) == (2, "")
    assert "--json is no CSV" in done.stderr
